"""Explanations on Ray: `ExplainBatch` for pipelines of Ray Data, and the job behind `seewhy explain --ray`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from seewhy._shared.lazy_names import lazy_names

if TYPE_CHECKING:
    from seewhy.ray.explain_batch import ExplainBatch

__all__ = ["ExplainBatch"]

# The supervisor of `seewhy explain --ray` starts before the engine is imported.
__getattr__ = lazy_names(__name__, dict.fromkeys(__all__, "seewhy.ray.explain_batch"))
