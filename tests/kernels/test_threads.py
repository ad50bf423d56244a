"""Tests of threads: results have the same bits, all threads work, and none is started for small work."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from seewhy import _core
from support.kernel_calls import ARGUMENTS, KERNELS, Arguments, call, floats, image, pixels

BIG = (5, 211, 307)  # more than five times the work for which a thread is started
BIGGER = (5, 422, 614)  # takes far longer than starting threads, even in the fastest kernel


@pytest.fixture(scope="module", params=KERNELS)
def big(request: pytest.FixtureRequest) -> tuple[str, Arguments]:
    return request.param, ARGUMENTS[request.param](*BIG)


def test_the_bits_do_not_depend_on_the_number_of_threads(big: tuple[str, Arguments]) -> None:
    kernel, arguments = big
    alone = call(kernel, arguments, threads=1)
    for threads in (0, 2, 3, 4, 7, 64, 1000):
        np.testing.assert_array_equal(call(kernel, arguments, threads), alone)


def test_the_bits_do_not_depend_on_the_batch(big: tuple[str, Arguments]) -> None:
    kernel, arguments = big
    together = call(kernel, arguments, threads=3)
    for n in range(BIG[0]):
        np.testing.assert_array_equal(call(kernel, image(arguments, n), threads=3)[0], together[n])


def test_many_python_threads_may_call_at_once() -> None:
    cases = {kernel: ARGUMENTS[kernel](2, 97, 131) for kernel in KERNELS}
    expected = {kernel: call(kernel, arguments, threads=1) for kernel, arguments in cases.items()}
    with ThreadPoolExecutor(8) as pool:
        results = [(kernel, pool.submit(call, kernel, cases[kernel], n % 4)) for n in range(12) for kernel in KERNELS]
    for kernel, result in results:
        np.testing.assert_array_equal(result.result(), expected[kernel])


def test_errors_of_all_threads_name_the_first_map() -> None:
    maps = floats(*BIG)
    maps[1:, 3, 4] = np.nan
    for threads in (1, 2, 5):
        with pytest.raises(ValueError, match=r"^maps\[1\] holds"):
            _core.minmax(maps, threads=threads)
        with pytest.raises(ValueError, match=r"^heatmaps\[1\] holds"):
            _core.overlay(pixels(*BIG, 3), maps, pixels(256, 3), 0.5, threads=threads)


def shares(work: Callable[[], object]) -> tuple[float, float]:
    """Return the processor time of the calling thread and that of all other threads during the work, in seconds."""
    process, thread = time.process_time(), time.thread_time()
    for _ in range(30):
        work()
    own = time.thread_time() - thread
    return own, time.process_time() - process - own


# These tests compare processor time instead of elapsed time, so the load of the machine does not matter.


@pytest.mark.parametrize("kernel", KERNELS)
def test_large_work_is_shared_among_threads(kernel: str) -> None:
    arguments = ARGUMENTS[kernel](*BIGGER)
    own, others = shares(lambda: call(kernel, arguments, threads=4))
    assert others > own / 2, f"the calling thread worked {own:.3g} s, the others {others:.3g} s"
    own, others = shares(lambda: call(kernel, arguments, threads=1))
    assert others < own / 4, f"the calling thread worked {own:.3g} s, others {others:.3g} s"


@pytest.mark.parametrize("kernel", KERNELS)
def test_small_work_stays_on_the_calling_thread(kernel: str) -> None:
    arguments = ARGUMENTS[kernel](1, 40, 40)
    own, others = shares(lambda: [call(kernel, arguments, threads=8) for _ in range(20)])
    assert others < own / 4, f"the calling thread worked {own:.3g} s, others {others:.3g} s"


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system cannot bind a process to processors")
def test_zero_threads_means_the_allowed_processors() -> None:
    allowed = os.sched_getaffinity(0)
    arguments = ARGUMENTS["minmax"](*BIGGER)
    try:
        os.sched_setaffinity(0, {min(allowed)})
        own, others = shares(lambda: call("minmax", arguments, threads=0))
        assert others < own / 4
    finally:
        os.sched_setaffinity(0, allowed)
    if len(allowed) > 1:
        own, others = shares(lambda: call("minmax", arguments, threads=0))
        assert others > own / 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_process_can_use_threads_too() -> None:
    arguments = ARGUMENTS["minmax"](*BIG)
    expected = call("minmax", arguments, threads=4)
    child = os.fork()
    if child == 0:
        os._exit(0 if np.array_equal(call("minmax", arguments, threads=4), expected) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_interpreter_lock_is_released(monkeypatch: pytest.MonkeyPatch) -> None:
    # With this interval, a thread keeps the lock until it waits or releases it. The main thread is woken just before
    # the kernel runs, so it can see the kernel running only if the kernel has released the lock.
    image, zero, one = pixels(1, 3000, 3000, 3), np.zeros(3, np.float32), np.ones(3, np.float32)

    def caught_running() -> bool:
        started, finished = threading.Event(), threading.Event()

        def work() -> None:
            started.set()
            _core.normalize(image, zero, one, threads=1)
            finished.set()

        worker = threading.Thread(target=work)
        worker.start()
        started.wait()
        caught = not finished.is_set()
        worker.join()
        return caught

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1000)
    try:
        assert any(caught_running() for _ in range(5))
    finally:
        sys.setswitchinterval(interval)
