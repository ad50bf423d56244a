"""Measurements of latency and throughput, for `seewhy bench`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seewhy._shared.lazy_names import lazy_names

if TYPE_CHECKING:
    from seewhy.bench.measurement import Advice, Measurement, Operator, Report, measure

__all__ = ["Advice", "Measurement", "Operator", "Report", "measure"]

# A worker process runs a module of this package as its main program, so importing the package must not import it.
__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "seewhy.bench.measurement"))
