"""Result of every loader: a network with its labels and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from seewhy.contract.metadata import Preprocessing


@dataclass(frozen=True)
class Source:
    """A network and what it takes to use it. A `package.module:factory` may return one, or just the module."""

    module: nn.Module
    name: str | None = None
    labels: tuple[str, ...] | None = None
    preprocessing: Preprocessing | None = None
    image_size: tuple[int, int] = (224, 224)
    """(H, W) in pixels."""
    score: str = "softmax"
    channels: int | None = None
    """Of the images; None leaves it to the exporter to find out."""
    notes: tuple[str, ...] = ()
    """What the user should know about how it was loaded."""
    layer_names: Mapping[str, str] = field(default_factory=dict)
    """Other names for modules, which `--layer` takes as well."""


@dataclass(frozen=True)
class Wanted:
    """What the user asks of a source, besides its name."""

    weights: str = "DEFAULT"
    """`DEFAULT` (the source's own, perhaps downloaded), `none` (random) or a checkpoint's path."""
    size: tuple[int, int] | None = None
    """(H, W) of the input in place of the source's own."""
    channels: int | None = None
    class_count: int | None = None
    """How many the network is made for, where that can be chosen."""
    head: str | int | None = None
    """Which of an ONNX file's outputs holds the logits."""
    resize_given: bool = False
    """Whether the user says how photographs are resized, so that the source need not be able to."""
