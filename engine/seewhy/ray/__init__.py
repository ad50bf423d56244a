"""Explanations on Ray: `ExplainBatch` for pipelines of Ray Data, and the job behind `seewhy explain --ray`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seewhy.ray.explain_batch import ExplainBatch

__all__ = ["ExplainBatch"]


# The supervisor of `seewhy explain --ray` starts before the engine is imported.
def __getattr__(name: str) -> Any:
    if name in __all__:
        from seewhy.ray import explain_batch

        return getattr(explain_batch, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
