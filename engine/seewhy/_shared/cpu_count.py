"""Count the cores that this process may use.

onnxruntime's default counts all cores of the machine. It ignores limits by `taskset`, by a container's set of
processors and by CPU quotas, and pins each thread to its own core, even to one that the process must not use.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def usable_cores(root: Path = Path("/")) -> int:
    """Count the physical cores that this process may use.

    Two hardware threads of one core count once, because they share the arithmetic units that convolutions use.

    Args:
        root: Folder that contains /proc and /sys, for tests.

    Returns:
        Number of cores, limited by the CPU quota of the process and at least 1.
    """
    try:
        allowed = os.sched_getaffinity(0)
    except AttributeError:  # a system without CPU affinity
        return max(1, os.cpu_count() or 1)
    cores = {_core(root, cpu) for cpu in allowed}
    return max(1, min([len(cores), *map(math.ceil, _quotas(root))]))


def most_threads() -> int:
    """Return the maximum number of threads for one call: four per usable core, but at least 16.

    More threads are never faster, and thousands of threads can freeze a machine.
    """
    return max(16, 4 * usable_cores())


def _core(root: Path, cpu: int) -> str:
    """Return the list of hardware threads of a core, which identifies the core, or a unique name if it is unknown."""
    topology = root / f"sys/devices/system/cpu/cpu{cpu}/topology"
    return _read(topology / "core_cpus_list") or _read(topology / "thread_siblings_list") or f"cpu{cpu}"


def _quotas(root: Path) -> Iterator[float]:
    """Yield the CPU quotas of this process's control groups and their parents, in numbers of processors."""
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
    """Yield the folders of a control group and its parents. In a container, only the last one, the mount, may exist."""
    parts = [part for part in PurePosixPath(path).parts if part not in ("/", "..")]
    for depth in range(len(parts), -1, -1):
        yield mount.joinpath(*parts[:depth])


def _ratio(texts: list[str]) -> Iterator[float]:
    """Yield the quotient of quota and period in microseconds, unless they are "max", -1 or missing."""
    if len(texts) == 2 and all(text.isascii() and text.isdecimal() for text in texts) and int(texts[1]) > 0:
        yield int(texts[0]) / int(texts[1])


def _read(path: Path) -> str:
    """Return the text of a file, or an empty string if it cannot be read."""
    try:
        return path.read_bytes().decode("ascii", "replace").strip()
    except OSError:
        return ""
