"""Facts about the machine and this process, and CPU times of the machine and of single processes."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

_KERNEL_FLAGS = ("avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "amx_int8", "amx_bf16")
KIND = ("processor", "cores", "instructions")
"""Facts that two machines must share before their times can be compared."""


def describe() -> dict[str, Any]:
    """Return processor, cores, memory, operating system, Python version and instruction sets."""
    return {
        "processor": processor_name(),
        "cores": available_cores(),
        "memory_gib": _memory(),
        "system": f"{platform.system()} {platform.release()}",
        "distribution": _distribution(),
        "python": platform.python_version(),
        "instructions": instructions(),
    }


def same_kind(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Return True if two machines, as `describe` describes them, have the same processor, cores and instructions."""
    return all(one.get(fact) == other.get(fact) for fact in KIND)


def kind_text(machine: Mapping[str, Any]) -> str:
    """Return processor, cores and instruction sets in one line."""
    return f"{machine['processor']}, {machine['cores']} cores ({', '.join(machine['instructions'])})"


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of installed packages."""
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def memory_of_process() -> dict[str, int]:
    """Return the memory of this process in bytes: VmRSS (now), VmHWM (peak) and RssAnon (now, without files)."""
    found = {}
    for line in _read("/proc/self/status").splitlines():
        key, _, value = line.partition(":")
        if key in ("VmHWM", "VmRSS", "RssAnon"):
            found[key] = int(value.split()[0]) * 1024
    return found


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Clock:
    """Reader of the CPU time of the machine and of single processes, in seconds, or None without /proc."""

    def __init__(self) -> None:
        self._tick = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100

    def machine(self) -> float | None:
        line = _read("/proc/stat").partition("\n")[0].split()
        # user, nice, system, irq, softirq, steal: everything except idle and iowait.
        return sum(float(line[i]) for i in (1, 2, 3, 6, 7, 8)) / self._tick if len(line) > 8 else None

    def process(self, pid: int) -> float | None:
        # The process name in parentheses may contain spaces.
        fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
        return (float(fields[11]) + float(fields[12])) / self._tick if len(fields) > 12 else None


def _read(path: str) -> str:
    try:
        return Path(path).read_text()
    except OSError:
        return ""


def processor_name() -> str:
    names = [line.partition(":")[2].strip() for line in _read("/proc/cpuinfo").splitlines() if "model name" in line]
    return names[0] if names else platform.processor() or platform.machine()


def instructions() -> list[str]:
    """Return the instruction sets by which the libraries choose their kernels."""
    flags = next((line.split() for line in _read("/proc/cpuinfo").splitlines() if line.startswith("flags")), [])
    return [flag for flag in _KERNEL_FLAGS if flag in flags]


def _memory() -> int | None:
    lines = [line.split() for line in _read("/proc/meminfo").splitlines() if line.startswith("MemTotal")]
    return round(int(lines[0][1]) / 2**20) if lines else None


def _distribution() -> str:
    lines = dict(line.partition("=")[::2] for line in _read("/etc/os-release").splitlines())
    return lines.get("PRETTY_NAME", "").strip('"')
