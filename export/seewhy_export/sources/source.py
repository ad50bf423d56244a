"""Result of every loader: a network with its labels and preprocessing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import nn

from seewhy.contract.metadata import Preprocessing


@dataclass(frozen=True)
class Source:
    """A network and what is needed to use it.

    A function that `package.module:factory` names may return a `Source`, or just the module.
    """

    module: nn.Module
    """Classifier from images (N, C, H, W), float32, to logits (N, class count)."""
    name: str | None = None
    """Name of the model. None takes the name of the function."""
    labels: tuple[str, ...] | None = None
    """One label for each class, in the order of the logits."""
    preprocessing: Preprocessing | None = None
    """Preprocessing that the network expects. None leaves it out of the model file."""
    image_size: tuple[int, int] = (224, 224)
    """(H, W) of the input in pixels."""
    score: str = "softmax"
    """Function that turns logits into probabilities: `softmax`, `sigmoid` or `none`."""
    channels: int | None = None
    """Number of image channels. None lets the exporter derive it."""
    notes: tuple[str, ...] = ()
    """Facts about the loading that the user should know, for example where in a checkpoint the weights were."""
    layer_names: Mapping[str, str] = field(default_factory=dict)
    """Alternative layer name -> module path. `--layer` and `--guided-scope` accept both."""


@dataclass(frozen=True)
class SourceRequest:
    """Request of the user to a source, besides its name."""

    weights: str = "DEFAULT"
    """`DEFAULT` (the source's own weights, which may be downloaded), `none` (random) or the path of a checkpoint."""
    image_size: tuple[int, int] | None = None
    """(H, W) of the input in pixels. None keeps the size of the source."""
    channels: int | None = None
    """Number of image channels. None keeps the number of the source."""
    class_count: int | None = None
    """Number of classes to build the network for. None keeps the number of the source."""
    head: str | int | None = None
    """Output of an ONNX file that holds the logits: a name or an index. None takes the only output."""
    resize_given: bool = False
    """True if the user chooses the resize mode, so that the source's own may be one that a model file cannot record."""
