"""Tests of `seewhy.bulk.parallel_plan`: threads and batch sizes for jobs of every size."""

from __future__ import annotations

import itertools
import math

import pytest

from seewhy._shared.cpu_count import usable_cores
from seewhy.bulk.parallel_plan import ParallelPlan, plan_parallelism


@pytest.mark.parametrize(
    ("images", "threads", "batch_size", "expected"),
    [
        (64, 2, 8, ParallelPlan(2, 2, 1, 8, 32)),
        (1000, 1, 8, ParallelPlan(1, 1, None, 8, 16)),
        (20, 2, 8, ParallelPlan(2, 2, 1, 5, 20)),  # 5 5 5 5, not 8 8 4
        (40, 2, 32, ParallelPlan(2, 2, 1, 20, 80)),  # 20 20, not 32 8
        (1, 4, 8, ParallelPlan(4, 1, None, 1, 2)),  # one image has all cores
        (3, 8, 8, ParallelPlan(8, 3, 2, 1, 6)),
        (0, 2, 8, ParallelPlan(2, 1, None, 1, 2)),
    ],
)
def test_layouts_equal_those_found_by_hand(images: int, threads: int, batch_size: int, expected: ParallelPlan) -> None:
    assert plan_parallelism(images, threads, batch_size, on_cpu=True, many_passes=False) == expected


def test_no_run_is_larger_and_none_has_much_more_to_do() -> None:
    for images, threads, batch_size in itertools.product(range(1, 70), range(1, 6), (1, 2, 7, 8, 32)):
        layout = plan_parallelism(images, threads, batch_size, on_cpu=True, many_passes=False)
        assert 1 <= layout.size <= batch_size
        assert layout.concurrent_batches * (layout.threads_per_session or 1) <= threads
        # As many rounds as full batches would take, and no more.
        runs = math.ceil(images / layout.size)
        assert math.ceil(runs / layout.concurrent_batches) == math.ceil(
            images / (batch_size * layout.concurrent_batches)
        )
        assert layout.window >= layout.size


def test_threads_of_ones_own_are_kept_to() -> None:
    assert plan_parallelism(64, 3, 8, on_cpu=True, many_passes=False).threads == 3
    assert plan_parallelism(64, None, 8, on_cpu=True, many_passes=False).threads == usable_cores() + 1


def test_other_providers_take_full_batches_from_two_runs() -> None:
    assert plan_parallelism(64, 4, 32, on_cpu=False, many_passes=False) == ParallelPlan(4, 2, None, 32, 128)


def test_many_passes_take_one_image_after_the_other() -> None:
    for on_cpu in (True, False):
        assert plan_parallelism(64, 4, 8, on_cpu=on_cpu, many_passes=True) == ParallelPlan(1, 1, None, 1, 1)
