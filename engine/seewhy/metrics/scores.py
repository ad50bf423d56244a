"""The score of a class that metrics read: its probability or its logit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from seewhy.contract.metadata import Metadata
from seewhy.methods.options import Option, Options, choice
from seewhy.metrics.base import LOGIT, PROBABILITY, EvaluatedMethod, Scope
from seewhy.metrics.metric import only_with_probabilities

AUTO = "auto"

SCORE = Option(
    "score",
    AUTO,
    choice((AUTO, PROBABILITY, LOGIT)),
    "Score of the class: probability, logit, or auto for the probability if the model has one.",
)
"""Option `score` of metrics that follow the score of a class."""


def resolve_score(option: str, metadata: Metadata) -> str:
    """Return the score that a value of the option `score` means for a model.

    Args:
        option: `auto`, `probability` or `logit`.
        metadata: Metadata of the model file.

    Returns:
        `probability` or `logit`.
    """
    if option != AUTO:
        return option
    return PROBABILITY if Scope(metadata).has_probabilities else LOGIT


def resolve_conventions(options: Options, metadata: Metadata) -> Mapping[str, Any]:
    """Return a metric's options with what `auto` means for a model, as results record them."""
    if "score" not in options:
        return options
    return {**options, "score": resolve_score(options["score"], metadata)}


def needs_score(method: EvaluatedMethod, scope: Scope, options: Options) -> str | None:
    """Return why the model has no such score."""
    return only_with_probabilities(method, scope, options) if options["score"] == PROBABILITY else None
