"""Measurements of latency and throughput, for `seewhy bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seewhy._shared.lazy_names import lazy_names

if TYPE_CHECKING:
    from seewhy.bench.measurement import Advice, Measurement, Operator, Report, measure

__all__ = ["Advice", "Measurement", "Operator", "Report", "measure"]

# The worker processes run a module of this package, which must not be imported before it runs.
__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "seewhy.bench.measurement"))
