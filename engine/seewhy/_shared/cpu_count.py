"""Number of threads worth having: the cores that this process may really use.

onnxruntime's own default counts the machine's cores, whatever `taskset`, a container's set of processors or its CPU
quota leave of them, and it nails each thread to a core of its own, even to one that the process may not use.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """Physical cores that this process may run on, at most as many as its CPU quota pays for; at least 1.

    Two hardware threads of one core count once: they share the arithmetic units that convolutions keep busy. `root` is
    where /proc and /sys are looked for.
    """
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # systems without affinity
        return max(1, os.cpu_count() or 1)
    cores = {_core(root, cpu) for cpu in allowed}
    return max(1, min([len(cores), *map(math.ceil, _quotas(root))]))


def most_threads() -> int:
    """Return the largest number of threads that one call may be given: four for each usable core, and at least 16.

    More threads are never quicker, and some thousand of them bring a machine to a halt.
    """
    return max(16, 4 * usable_cores())


def _core(root: Path, cpu: int) -> str:
    """What the hardware threads of one core have in common: their list. Unknown ones are cores of their own."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list") or f"cpu{cpu}"


def _quotas(root: Path) -> Iterator[float]:
    """Processors' worth of time that this process's control groups, and those above them, may take."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            for folder in _groups(root / "sys/fs/cgroup", path):
                yield from _ratio(_read(folder / "cpu.max").split())
        elif "cpu" in controllers.split(","):
            for mount in ("cpu", "cpu,cpuacct"):
                for folder in _groups(root / "sys/fs/cgroup" / mount, path):
                    yield from _ratio([_read(folder / f"cpu.cfs_{name}_us") for name in ("quota", "period")])


def _groups(mount: Path, path: str) -> Iterator[Path]:
    """The folders of a control group and of those above it. In a container only the last, the mount, may be there."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _ratio(texts: list[str]) -> Iterator[float]:
    """Quota and period, in microseconds; "max", -1 and what is not there are no quota."""
    if len(texts) == 2 and all(text.isascii() and text.isdecimal() for text in texts) and int(texts[1]) > 0:
        yield int(texts[0]) / int(texts[1])


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("ascii", "replace").strip()
    except OSError:
        return ""
