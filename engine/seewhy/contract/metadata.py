"""Metadata of a model file: the exporter writes it, and the engine reads it.

`docs/concepts/file-format.md` describes the format.
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
    CROP_ROUNDINGS,
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
    first_repeated,
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
from seewhy.contract.quantization import Quantization, quantization
from seewhy.errors import ModelFileError

# Range of the positive numbers that float32 can represent.
_SMALLEST, _LARGEST = 1e-37, 3e38


@dataclass(frozen=True)
class ModelInfo:
    """Name and origin of the exported network."""

    name: str
    source: str
    """Source of the network, e.g. `torchvision:resnet50`."""
    weights_sha256: str
    """SHA-256 of the name, dtype, shape and little-endian bytes of all weights, in the order of the file."""


@dataclass(frozen=True)
class Preprocessing:
    """Preprocessing of an image: resize, centre crop, divide by 255, subtract `mean`, divide by `std`."""

    resize: str = "squash"
    """`shorter-side` (keep the aspect ratio), `squash` (change it to that of the input), or `none`."""
    size: int | None = None
    """Length in pixels after resizing: of the shorter side, or of both sides of a square for `squash`, for which None
    means the input size."""
    interpolation: str = "bilinear"
    """Name of a Pillow resampling filter. Pillow applies it with antialiasing."""
    crop: bool = True
    """True to crop the centre to the input size after resizing."""
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    """Mean of each channel of `images`, for pixels from 0 to 1."""
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    """Standard deviation of each channel of `images`, for pixels from 0 to 1."""
    channel_order: str = "RGB"
    """Order of the channels of `images`: `RGB` or `BGR`."""
    crop_rounding: str = "half-even"
    """Rounding of the crop's first pixel, (length - input size) / 2, if it lies between two pixels.

    `half-even` takes the even one, as torchvision does; `down` the smaller one, as transformers does.
    """


@dataclass(frozen=True)
class Layer:
    """Target layer: the layer whose output is `activations`."""

    name: str
    """Path of the module, or name of the operation if no module returns this value."""
    chosen: str
    """`automatic` if the exporter chose the layer, `named` if the user did."""
    separates: bool
    """True if every path from `images` to `logits` passes through this layer, so that the head can run alone."""
    cut: str | None
    """Graph value at which to cut the graph to run the head alone; None if `separates` is False."""
    form: str = "map"
    """Form of the layer's own output, before it is converted to (N, C, h, w).

    `map` is (N, C, h, w), `channels-last` (N, h, w, C), and `tokens` (N, T, C) with one token for each position in
    row-major order. The dimensions of the last two may be in any order.
    """
    dropped_tokens: int = 0
    """Number of leading tokens without a position (class, distillation, registers), which `activations` leaves out."""


@dataclass(frozen=True)
class Rectifiers:
    """Rectifiers of the network, and how many of them guided backpropagation changes."""

    kinds: dict[str, int] = field(default_factory=dict)
    """Number of rectifiers of each kind, e.g. `{"relu": 17}`."""
    guided: int = 0
    """Number of rectifiers that the guided rule changes: all, unless `guided_scope` restricts it."""
    guided_scope: tuple[str, ...] | None = None
    """Prefixes of the module paths in which rectifiers are guided; None means everywhere."""
    smooth: dict[str, int] = field(default_factory=dict)
    """Number of smooth activations of each kind (SiLU, GELU, ...), which keep their own derivative in every rule."""


@dataclass(frozen=True)
class ParameterGroup:
    """Tensors of the graph that come from the parameters of one module."""

    module: str
    """Path of the module that uses the tensors first; empty for the network itself."""
    tensors: tuple[str, ...]
    """Names of initializers. Each is a parameter, or is computed from parameters, such as a kernel into which a batch
    norm is folded."""


@dataclass(frozen=True)
class Metadata:
    """All metadata of a model file."""

    model: ModelInfo
    image_size: tuple[int, int]
    """(H, W) of `images`, in pixels."""
    channels: int
    """Number of channels of `images`."""
    class_count: int
    """Number of classes."""
    labels: tuple[str, ...] | None = field(repr=False)
    """Label of each class, or None if the source has none."""
    preprocessing: Preprocessing | None
    """Preprocessing of images, or None if the source has none. Then only preprocessed arrays can be explained."""
    layer: Layer | None
    """Target layer, or None in a file without `activations`."""
    score_kind: str
    """Function that turns logits into probabilities: `softmax`, `sigmoid` or `none`."""
    rectifiers: Rectifiers
    """Rectifiers of the network."""
    parity: dict[str, dict[str, dict[str, float | None]]] = field(repr=False)
    """Result of the verification, by output and kind of input (`noise`, `picture`).

    `error` and `torch_float32` are the relative L2 errors of the file and of PyTorch in float32 against float64
    autograd; `draw` is the number of the input of that kind. `error` is None if the reference was zero, which tests
    nothing. The dict is empty if verification was skipped.
    """
    versions: dict[str, str]
    """Versions of the software that exported the file, by name."""
    external_data: dict[str, Any] | None = None
    """`{"file": ..., "sha256": ...}` of the weights file beside the model file, or None if there is none."""
    cut_from: dict[str, Any] | None = None
    """`{"file": ..., "sha256": ..., "methods": [...]}` of the model file that this one was cut from, and the methods
    that it was cut for; None for a file as the exporter wrote it."""
    parameters: tuple[ParameterGroup, ...] | None = field(default=None, repr=False)
    """Tensors that come from parameters, by module, from the output down to the stem; None in older files.

    Everything that the graph computes from a parameter, it computes from these tensors.
    """
    quantization: Quantization | None = None
    """Quantisation and drift of a file with an 8-bit backbone; None for a float32 file."""

    @property
    def shapes(self) -> dict[str, Shape]:
        """Shape of every value in the contract. A letter stands for the same length in all shapes."""
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

    @property
    def schema(self) -> int:
        """Oldest version of the file format that can describe the file.

        It is 3 for a quantised file, which older readers run with wrong numbers on CPUs without VNNI; 2 if the
        preprocessing is one that readers of version 1 do not know; else 1.
        """
        how = self.preprocessing
        if self.quantization is not None:
            return 3
        return 2 if how and (how.crop_rounding != "half-even" or (how.resize == "squash" and how.size)) else 1

    def to_properties(self) -> dict[str, str]:
        """Return the metadata as JSON texts by key, as in `metadata_props`, without the digest."""
        values: dict[str, Any] = {
            "schema": self.schema,
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
        if self.cut_from is not None:
            values["cut_from"] = self.cut_from
        if self.parameters is not None:
            values["parameters"] = [asdict(group) for group in self.parameters]
        if self.quantization is not None:
            values["quantization"] = asdict(self.quantization)
        return {
            KEY_PREFIX + key: json.dumps(value, ensure_ascii=False, allow_nan=False) for key, value in values.items()
        }

    @classmethod
    def from_properties(cls, properties: Mapping[str, str], file: str) -> Metadata:
        """Read and validate the metadata of a model file.

        Args:
            properties: JSON texts by key, as in `metadata_props`.
            file: Name of the file in error messages.

        Returns:
            The metadata.

        Raises:
            ModelFileError: If the metadata is missing, has a newer schema, or contains an invalid value.
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
            cut_from=read("cut_from", optional(_cut_from), default=None),
            parameters=read("parameters", optional(_parameters), default=None),
            quantization=read("quantization", optional(quantization), default=None),
            class_count=sizes["classes"],
            image_size=sizes["image_size"],
            channels=sizes["channels"],
        )


class _Reader:
    """Reader of single metadata values, whose errors name the key."""

    def __init__(self, properties: Mapping[str, str], file: str) -> None:
        self.properties = properties
        self.file = file

    def check_schema(self) -> None:
        """Raise a ModelFileError if there is no SeeWhy metadata, or its schema is newer than this version's."""
        if KEY_PREFIX + "schema" not in self.properties:
            raise ModelFileError(
                f"{self.file}: this ONNX file has no SeeWhy metadata; export the network with `seewhy export`"
            )
        schema = self("schema", positive)
        if schema > SCHEMA:
            raise ModelFileError(
                f"{self.file}: the file has schema {schema}, but this version of SeeWhy reads schema {SCHEMA} and "
                f"older; upgrade seewhy, or export the network again with this version"
            )

    def __call__(self, key: str, convert: Callable[[Any], Any], **default: Any) -> Any:
        """Return the converted value of a key, or the keyword argument `default` if the key is missing."""
        name = KEY_PREFIX + key
        if default and name not in self.properties:
            return default["default"]
        try:
            return convert(json.loads(self.properties[name], object_pairs_hook=object_without_repeats))
        except KeyError:
            raise ModelFileError(f"{self.file}: the metadata lacks {name}; export the network again") from None
        # RecursionError: deeply nested JSON. OverflowError: an integer too large for a float.
        except (ValueError, TypeError, RecursionError, OverflowError) as error:
            raise ModelFileError(f"{self.file}: {name} is not valid: {error}; export the network again") from None


# Converters: each returns the converted value of a decoded JSON value, or raises a ValueError.


def _preprocessing(value: Any) -> Preprocessing:
    """Convert the value of `seewhy.preprocessing`."""
    converted = fields(
        {"crop_rounding": one_of(CROP_ROUNDINGS)},
        resize=one_of(RESIZE_MODES),
        size=optional(positive),
        interpolation=one_of(INTERPOLATIONS),
        crop=flag,
        mean=tuple_of(number),
        std=tuple_of(number),
        channel_order=one_of(CHANNEL_ORDERS),
    )(value)
    require(all(abs(mean) <= _LARGEST for mean in converted["mean"]), "means that fit into float32", value["mean"])
    require(
        all(_SMALLEST <= std <= _LARGEST for std in converted["std"]),
        "positive stds that fit into float32",
        value["std"],
    )
    require(len(converted["mean"]) == len(converted["std"]), "as many means as stds", value)
    require(converted["resize"] != "shorter-side" or converted["size"] is not None, "a size to resize to", value)
    return Preprocessing(**converted)


def _cut_from(value: Any) -> dict[str, Any]:
    """Convert the value of `seewhy.cut_from`."""
    converted = fields(file=text, sha256=sha256_digits, methods=tuple_of(text))(value)
    return {**converted, "methods": list(converted["methods"])}


def _parameters(value: Any) -> tuple[ParameterGroup, ...]:
    """Convert the value of `seewhy.parameters`."""
    groups = tuple_of(fields(module=text, tensors=tuple_of(text)))(value)
    require(all(group["tensors"] for group in groups), "at least one tensor in each group", value)
    for what, names in (
        ("module", [group["module"] for group in groups]),
        ("tensor", [name for group in groups for name in group["tensors"]]),
    ):
        repeated = first_repeated(names)
        if repeated is not None:
            raise ValueError(f"the {what} {repeated[:60]!r} is listed twice")
    return tuple(ParameterGroup(**group) for group in groups)


def check_preprocessing(preprocessing: Preprocessing) -> None:
    """Validate a `Preprocessing` against the contract.

    Args:
        preprocessing: The preprocessing to validate.

    Raises:
        ValueError: If a value has the wrong type or is not allowed.
    """
    _preprocessing(json.loads(json.dumps(asdict(preprocessing))))


def _layer(value: Any) -> Layer:
    """Convert the value of `seewhy.layer`."""
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
    """Convert the value of `seewhy.rectifiers`."""
    return Rectifiers(
        **fields(kinds=dict_of(count), guided=count, guided_scope=optional(tuple_of(text)), smooth=dict_of(count))(
            value
        )
    )
