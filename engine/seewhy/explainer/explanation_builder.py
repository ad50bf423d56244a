"""Batches' answers put together: one `Explanation` a method."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy.contract.metadata import Metadata
from seewhy.explainer.batch_explainer import BatchRequest, BatchResult
from seewhy.explainer.explanation import Explanation
from seewhy.images.preprocessing import ModelView


@dataclass
class ExplanationBuilder:
    """Collects answers batch by batch."""

    request: BatchRequest
    metadata: Metadata
    nested: bool
    """Whether the arrays have an axis for the classes."""
    parts: list[BatchResult] = field(default_factory=list)
    images: list[ModelView] = field(default_factory=list)

    def add(self, part: BatchResult, images: Sequence[ModelView]) -> None:
        self.parts.append(part)
        self.images += images

    def explanations(self) -> dict[str, Explanation]:
        logits = _concatenate([part.logits for part in self.parts])
        targets = _concatenate([part.targets for part in self.parts])
        results = {}
        for method in self.request.methods:
            answers = [part.methods[method.name] for part in self.parts]
            results[method.name] = Explanation(
                method=method.name,
                logits=logits,
                targets=targets if self.nested else targets[:, 0],
                maps=self._join([answer.maps for answer in answers]),
                input_attributions=self._join([answer.attributions for answer in answers]),
                context=self.request.size,
                class_labels=self.metadata.labels,
                score_kind=self.metadata.score_kind,
                images=tuple(self.images),
                options=dict(self.request.options[method.name]),
                completeness=self._join([answer.completeness for answer in answers]),
            )
        return results

    def _join(self, parts: Sequence[Any]) -> Any:
        """(K,n,...) of each batch -> (N,K,...), or (N,...) where results are not nested; None stays None."""
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
