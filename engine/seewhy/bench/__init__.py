"""Measurements of latency and throughput, for `seewhy bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy.bench.measurement import Advice, Operator, Report, Row, measure

__all__ = ["Advice", "Operator", "Report", "Row", "measure"]


# The worker processes run a module of this package, which must not be imported before it runs.
def __getattr__(name: str) -> Any:
    if name in __all__:
        from seewhy.bench import measurement

        return getattr(measurement, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
