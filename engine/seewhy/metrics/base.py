"""Types that metrics and evaluated images share."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from seewhy.contract.metadata import Metadata
from seewhy.methods.method import MethodRequest

HIGHER, LOWER, NEITHER = "higher", "lower", "neither"
"""Directions of metrics: which values are better."""

DIRECTIONS = {HIGHER: "higher is better", LOWER: "lower is better"}
"""Directions in words."""

PROBABILITY, LOGIT = "probability", "logit"
"""Scores of a class that a metric can read."""

Key: TypeAlias = tuple[Hashable, ...]
"""Name of a set of changed images or classes, such as ("noise", 0.02, 3)."""


class NotMeasurable(Exception):
    """A metric has no value for this explanation. The text says why, and is recorded in place of the value."""


@dataclass(frozen=True)
class Measured:
    """Value of a metric for one explanation, with what it was computed from."""

    value: float
    curve: Sequence[float] | None = None
    """Values along the steps of the metric, such as the score at each step of deletion."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """Further values for the record of the image, as JSON can hold them."""


@dataclass(frozen=True)
class EvaluatedMethod:
    """One row of the results: a method, a reference, or the maps of another tool."""

    name: str
    title: str
    is_map: bool
    """True for maps (H, W); False for signed attributions (Cin, H, W)."""
    reduction: str
    """Reduction of attributions (Cin, H, W) to a map: `sum` or `max-abs`."""
    request: MethodRequest | None = None
    """The method and its options, or None for references and for maps of other tools."""
    is_reference: bool = False
    """True for the rows `random` and `centre`."""

    @property
    def has_files(self) -> bool:
        """True if the attributions are read from files, so that there are none for changed images or other classes."""
        return self.request is None and not self.is_reference


@dataclass(frozen=True)
class Scope:
    """Facts that decide which metrics apply to an evaluation."""

    metadata: Metadata
    """Metadata of the model file."""
    has_regions: bool = False
    """True if boxes or masks of objects are given."""

    @property
    def has_probabilities(self) -> bool:
        """True if the model's logits have probabilities."""
        return self.metadata.score_kind != "none"
