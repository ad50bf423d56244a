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
        (64, 2, 8, ParallelPlan(2, 2, 1, 8, 32, 4)),
        (1000, 1, 8, ParallelPlan(1, 1, None, 8, 16, 4)),
        (20, 2, 8, ParallelPlan(2, 2, 1, 5, 20, 2)),  # 5 5 5 5, not 8 8 4
        (40, 2, 32, ParallelPlan(2, 2, 1, 20, 80, 4)),  # 20 20, not 32 8
        (1, 4, 8, ParallelPlan(4, 1, None, 1, 2)),  # one image has all cores
        (3, 8, 8, ParallelPlan(8, 3, 2, 1, 6)),
        (0, 2, 8, ParallelPlan(2, 1, None, 1, 2)),
    ],
)
def test_plans_equal_those_found_by_hand(images: int, threads: int, batch_size: int, expected: ParallelPlan) -> None:
    assert plan_parallelism(images, threads, batch_size, on_cpu=True, multi_pass=False) == expected


def test_no_batch_is_too_large_and_the_work_is_spread_evenly() -> None:
    for images, threads, batch_size in itertools.product(range(1, 70), range(1, 6), (1, 2, 7, 8, 32)):
        plan = plan_parallelism(images, threads, batch_size, on_cpu=True, multi_pass=False)
        assert 1 <= plan.batch_size <= batch_size
        assert plan.concurrent_batches * (plan.threads_per_session or 1) <= threads
        # There are no more rounds than full batches would take.
        batches = math.ceil(images / plan.batch_size)
        assert math.ceil(batches / plan.concurrent_batches) == math.ceil(
            images / (batch_size * plan.concurrent_batches)
        )
        assert plan.window > 2 * (plan.group_size - 1) + plan.batch_size - 1


def test_a_given_number_of_threads_is_not_exceeded() -> None:
    assert plan_parallelism(64, 3, 8, on_cpu=True, multi_pass=False).threads == 3
    assert plan_parallelism(64, None, 8, on_cpu=True, multi_pass=False).threads == usable_cores() + 1


def test_other_providers_run_two_full_batches_at_the_same_time() -> None:
    assert plan_parallelism(64, 4, 32, on_cpu=False, multi_pass=False) == ParallelPlan(4, 2, None, 32, 128, 4)


def test_multi_pass_methods_take_one_image_at_a_time() -> None:
    for on_cpu in (True, False):
        assert plan_parallelism(64, 4, 8, on_cpu=on_cpu, multi_pass=True) == ParallelPlan(1, 1, None, 1, 1)
