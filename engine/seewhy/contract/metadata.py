"""The metadata of a model file, which the exporter writes and the engine reads.

`docs/concepts/file-format.md` describes it for third parties.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from seewhy.contract.constants import (
    ACTIVATIONS,
    CHANNEL_ORDERS,
    CLASS_WEIGHTS,
    DECONVNET_GRADIENTS,
    GRADCAM_MAP,
    GRADIENTS,
    GUIDED_GRADIENTS,
    IMAGES,
    INPUT_GRADIENTS,
    INTERPOLATIONS,
    KEY_PREFIX,
    LAYER_FORMS,
    LOGITS,
    RESIZE_MODES,
    SCHEMA,
    SCORES,
    TARGETS,
    Shape,
)
from seewhy.contract.json_values import (
    count,
    dict_of,
    fields,
    flag,
    image_size,
    number,
    object_without_repeats,
    one_of,
    optional,
    positive,
    require,
    sha256_digits,
    text,
    tuple_of,
)
from seewhy.errors import ModelFileError

# What float32 still holds, as a number that is not zero.
_SMALLEST, _LARGEST = 1e-37, 3e38


@dataclass(frozen=True)
class ModelInfo:
    """What was exported."""

    name: str
    source: str
    """Where the network came from, e.g. `torchvision:resnet50`."""
    weights_sha256: str
    """SHA-256 over name, dtype, shape and little-endian bytes of every weight, in file order."""


@dataclass(frozen=True)
class Preprocessing:
    """How a photograph becomes `images`: resize, centre crop, divide by 255, subtract `mean`, divide by `std`."""

    resize: str = "squash"
    """`shorter-side` (keep the aspect ratio), `squash` (to exactly the input size), or `none`."""
    size: int | None = None
    """Length of the shorter side after resizing, in pixels; for `shorter-side` only."""
    interpolation: str = "bilinear"
    """A Pillow resampling filter, with antialiasing, as Pillow does it."""
    crop: bool = True
    """Centre crop to the input size after resizing."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    channel_order: str = "RGB"


@dataclass(frozen=True)
class Layer:
    """The target layer, whose output is `activations`."""

    name: str
    """Module path, or the name of the operation where no module returns this value."""
    chosen: str
    """`automatic` or `named`."""
    separates: bool
    """Whether every path from `images` to `logits` passes through this layer, so that the head can run alone."""
    cut: str | None
    """The graph value to cut at for running the head alone; None where `separates` is false."""
    form: str = "map"
    """What the layer itself gives, before it is made (N, C, h, w): `map` (the same), `channels-last` (N, h, w, C), or
    `tokens` (N, T, C), one for each place in row-major order; the last two in whatever order of dimensions."""
    dropped_tokens: int = 0
    """How many tokens in front belong to no place (class, distillation, registers) and are not in `activations`."""


@dataclass(frozen=True)
class Rectifiers:
    """The rectifying activations that the guided rule met."""

    kinds: dict[str, int] = field(default_factory=dict)
    """How many rectifiers of each kind the network has, e.g. `{"relu": 17}`."""
    guided: int = 0
    """How many of them the guided rule changes (all, unless `guided_scope` restricts it)."""
    guided_scope: tuple[str, ...] | None = None
    """Module path prefixes inside which rectifiers are guided; None means everywhere."""
    smooth: dict[str, int] = field(default_factory=dict)
    """Smooth activations (SiLU, GELU, ...), which keep their own derivative under every rule."""


@dataclass(frozen=True)
class Metadata:
    """Everything that a SeeWhy model file says about itself."""

    model: ModelInfo
    image_size: tuple[int, int]
    """(H, W) of `images`, in pixels."""
    channels: int
    class_count: int
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    """None where the source gave none: then only preprocessed arrays can be explained."""
    layer: Layer | None
    """None in a file without `activations`."""
    score_kind: str
    rectifiers: Rectifiers
    parity: dict[str, dict[str, dict[str, float | None]]]
    """output -> input kind (`noise`, `picture`) -> `error` and `torch_float32`, relative L2 against float64 autograd,
    and `draw`, which input of that kind. `error` is None where the reference was zero, which tests nothing. Empty where
    verification was skipped."""
    versions: dict[str, str]
    external_data: dict[str, Any] | None = None
    """`{"file": ..., "sha256": ...}` of the sibling weights file, where there is one."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """The shape of every value in the contract; a letter stands for the same length wherever it is."""
        pixels: Shape = ("N", self.channels, *self.image_size)
        maps: Shape = ("N", "C", "h", "w")
        return {
            IMAGES: pixels,
            TARGETS: ("N",),
            LOGITS: ("N", self.class_count),
            ACTIVATIONS: maps,
            GRADIENTS: maps,
            INPUT_GRADIENTS: pixels,
            GUIDED_GRADIENTS: pixels,
            CLASS_WEIGHTS: ("N", "C"),
            DECONVNET_GRADIENTS: pixels,
            GRADCAM_MAP: ("N", "h", "w"),
        }

    def to_properties(self) -> dict[str, str]:
        """Return the `metadata_props` of a model file: key -> JSON text. The digest is not among them."""
        values: dict[str, Any] = {
            "schema": SCHEMA,
            "model": asdict(self.model),
            "input": {"image_size": self.image_size, "channels": self.channels, "classes": self.class_count},
            "labels": self.labels,
            "preprocessing": None if self.preprocessing is None else asdict(self.preprocessing),
            "layer": None if self.layer is None else asdict(self.layer),
            "score": self.score_kind,
            "rectifiers": asdict(self.rectifiers),
            "parity": self.parity,
            "versions": self.versions,
            "external_data": self.external_data,
        }
        return {
            KEY_PREFIX + key: json.dumps(value, ensure_ascii=False, allow_nan=False) for key, value in values.items()
        }

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], file: str) -> Metadata:
        """Read and check `metadata_props`; `file` is named in errors.

        Raises:
            ModelFileError: no SeeWhy metadata, a newer schema, or a value of the wrong kind.
        """
        read = _Reader(properties, file)
        read.check_schema()
        sizes = read("input", fields(image_size=image_size, channels=positive, classes=positive))
        return cls(
            model=ModelInfo(**read("model", fields(name=text, source=text, weights_sha256=text))),
            labels=read("labels", optional(tuple_of(text))),
            preprocessing=read("preprocessing", optional(_preprocessing)),
            layer=read("layer", optional(_layer)),
            score_kind=read("score", one_of(SCORES)),
            rectifiers=read("rectifiers", _rectifiers),
            parity=read("parity", dict_of(dict_of(dict_of(optional(number))))),
            versions=read("versions", dict_of(text)),
            external_data=read("external_data", optional(fields(file=text, sha256=sha256_digits))),
            class_count=sizes["classes"],
            image_size=sizes["image_size"],
            channels=sizes["channels"],
        )


class _Reader:
    """Decodes one key at a time, and says which one was wrong."""

    def __init__(self, properties: Mapping[str, str], file: str) -> None:
        self.properties = properties
        self.file = file

    def check_schema(self) -> None:
        if KEY_PREFIX + "schema" not in self.properties:
            raise ModelFileError(
                f"{self.file}: an ONNX file without SeeWhy's metadata; export the network with `seewhy export`"
            )
        schema = self("schema", positive)
        if schema > SCHEMA:
            raise ModelFileError(
                f"{self.file}: written in schema {schema}, but this version of SeeWhy reads schema {SCHEMA} and older; "
                f"upgrade seewhy, or export again with this version"
            )

    def __call__(self, key: str, convert: Callable[[Any], Any]) -> Any:
        name = KEY_PREFIX + key
        try:
            return convert(json.loads(self.properties[name], object_pairs_hook=object_without_repeats))
        except KeyError:
            raise ModelFileError(f"{self.file}: the metadata lacks {name}; export the network again") from None
        # RecursionError: JSON nested thousands deep. OverflowError: an integer that no float holds.
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise ModelFileError(f"{self.file}: {name} is not valid: {error}; export the network again") from None


# Converters: each takes a decoded JSON value and returns it checked, or raises ValueError.


def _preprocessing(value: Any) -> Preprocessing:
    converted = fields(
        resize=one_of(RESIZE_MODES),
        size=optional(positive),
        interpolation=one_of(INTERPOLATIONS),
        crop=flag,
        mean=tuple_of(number),
        std=tuple_of(number),
        channel_order=one_of(CHANNEL_ORDERS),
    )(value)
    require(all(abs(mean) <= _LARGEST for mean in converted["mean"]), "means that float32 holds", value["mean"])
    require(
        all(_SMALLEST <= std <= _LARGEST for std in converted["std"]), "positive stds that float32 holds", value["std"]
    )
    require(len(converted["mean"]) == len(converted["std"]), "as many means as stds", value)
    require(converted["resize"] != "shorter-side" or converted["size"] is not None, "a size to resize to", value)
    return Preprocessing(**converted)


def check_preprocessing(preprocessing: Preprocessing) -> None:
    """Hold a `Preprocessing` to the contract.

    Raises:
        ValueError: a value is of the wrong kind, or not one of those allowed.
    """
    _preprocessing(json.loads(json.dumps(asdict(preprocessing))))


def _layer(value: Any) -> Layer:
    return Layer(
        **fields(
            {"form": one_of(LAYER_FORMS), "dropped_tokens": count},
            name=text,
            chosen=one_of(("automatic", "named")),
            separates=flag,
            cut=optional(text),
        )(value)
    )


def _rectifiers(value: Any) -> Rectifiers:
    return Rectifiers(
        **fields(kinds=dict_of(count), guided=count, guided_scope=optional(tuple_of(text)), smooth=dict_of(count))(
            value
        )
    )
