"""Tests of `seewhy._shared.cpu_count`: affinity, hardware threads and quotas limit the number of cores."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from seewhy._shared.cpu_count import usable_cores

needs_affinity = pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="a system without affinity")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a machine with 8 cores of 2 hardware threads each (0 and 8, 1 and 9, ...), all of which are allowed."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)), raising=False)
    for cpu in range(16):
        write(tmp_path / f"sys/devices/system/cpu/cpu{cpu}/topology/core_cpus_list", f"{cpu % 8},{cpu % 8 + 8}\n")
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def test_hardware_threads_of_a_core_count_once(machine: Path) -> None:
    assert usable_cores(machine) == 8


def test_affinity(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 8, 3})
    assert usable_cores(machine) == 2


def test_unknown_topology(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {4, 5, 6}, raising=False)
    assert usable_cores(tmp_path) == 3


@pytest.mark.parametrize(
    ("limit", "cores"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("900000 100000", 8),
        ("nonsense", 8),
        ("100 0", 8),
        ("", 8),
    ],
)
def test_quota(machine: Path, limit: str, cores: int) -> None:
    write(machine / "proc/self/cgroup", "0::/\n")
    write(machine / "sys/fs/cgroup/cpu.max", limit + "\n")
    assert usable_cores(machine) == cores


def test_quota_of_a_parent_group(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/system.slice/job.service\n")
    write(machine / "sys/fs/cgroup/system.slice/cpu.max", "300000 100000\n")
    write(machine / "sys/fs/cgroup/system.slice/job.service/cpu.max", "500000 100000\n")
    assert usable_cores(machine) == 3


@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "cores"), [("400000", 4), ("-1", 8)])
def test_quota_of_version_1(machine: Path, mount: str, quota: str, cores: int) -> None:
    write(machine / "proc/self/cgroup", "4:memory:/a\n3:cpu,cpuacct:/docker/0123\n")
    # In a container, the group is the mount itself.
    write(machine / f"sys/fs/cgroup/{mount}/cpu.cfs_quota_us", quota + "\n")
    write(machine / f"sys/fs/cgroup/{mount}/cpu.cfs_period_us", "100000\n")
    assert usable_cores(machine) == cores


def test_group_with_a_path_outside_the_mount(machine: Path) -> None:
    write(machine / "proc/self/cgroup", "0::/../../elsewhere\n")
    write(machine / "elsewhere/cpu.max", "100000 100000\n")
    assert usable_cores(machine) == 8


def test_without_affinity(machine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(machine) == 1


@needs_affinity
def test_sessions_use_only_the_allowed_cores(model_path: Path) -> None:
    """onnxruntime's default would start a thread for each core of the machine and pin it there."""
    code = """if True:
        import os, sys
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        import numpy, onnxruntime, seewhy
        started = set(os.listdir("/proc/self/task"))
        explainer = seewhy.Explainer(sys.argv[1])
        explainer.explain(numpy.zeros((1, 3, 12, 16), numpy.float32))
        added = set(os.listdir("/proc/self/task")) - started
        print(len(added), all(os.sched_getaffinity(int(t)) == os.sched_getaffinity(0) for t in added))
    """
    done = subprocess.run([sys.executable, "-c", code, model_path], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["0", "True"]
