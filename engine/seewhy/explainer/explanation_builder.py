"""Join the results of batches into one `Explanation` for each method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seewhy.contract.metadata import Metadata
from seewhy.explainer.batch_explainer import BatchRequest, BatchResult
from seewhy.explainer.explanation import Explanation

if TYPE_CHECKING:
    from seewhy.images.preprocessing import ModelView


@dataclass
class ExplanationBuilder:
    """Collects the results of batches."""

    request: BatchRequest
    metadata: Metadata
    nested: bool
    """True if the arrays of the explanations have an axis for the classes."""
    parts: list[BatchResult] = field(default_factory=list)
    images: list[ModelView] = field(default_factory=list)

    def add(self, part: BatchResult, images: Sequence[ModelView]) -> None:
        """Add the result of the next batch, and its images."""
        self.parts.append(part)
        self.images += images

    def explanations(self) -> dict[str, Explanation]:
        """Return the explanation of each method by its name."""
        logits = _concatenate([part.logits for part in self.parts])
        targets = _concatenate([part.targets for part in self.parts])
        results = {}
        for one in self.request.methods:
            found = [part.methods[one.name] for part in self.parts]
            values = self._join([result.values for result in found])
            results[one.name] = Explanation(
                request=one,
                logits=logits,
                targets=targets if self.nested else targets[:, 0],
                maps=values if one.method.is_map else None,
                input_attributions=None if one.method.is_map else values,
                context=self.request.context,
                class_labels=self.metadata.labels,
                score_kind=self.metadata.score_kind,
                images=tuple(self.images),
                model_name=self.metadata.model.name,
                completeness=self._join([result.completeness for result in found]),
            )
        return results

    def _join(self, parts: Sequence[Any]) -> Any:
        """Join (K,n,...) of each batch to (N,K,...), or to (N,...) if results are not nested; None stays None."""
        if parts[0] is None:
            return None
        if not self.nested:
            return _concatenate([part[0] for part in parts])
        each, _, *rest = parts[0].shape
        joined = np.empty((sum(part.shape[1] for part in parts), each, *rest), parts[0].dtype)
        start = 0
        for part in parts:
            joined[start : start + part.shape[1]] = np.moveaxis(part, 0, 1)
            start += part.shape[1]
        return joined


def _concatenate(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
