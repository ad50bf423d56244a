"""The file contract: graph value names, and the metadata that the exporter writes and the engine reads.

This is the one module that both halves share. It uses the standard library alone. `docs/file-format.md` describes the
same contract for third parties.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, TypeAlias

from seewhy.errors import ModelFileError

SCHEMA = 1
OPSET = 20
IR_VERSION = 10

IMAGES = "images"
TARGETS = "targets"
LOGITS = "logits"
ACTIVATIONS = "activations"
GRADIENTS = "gradients"
INPUT_GRADIENTS = "input_gradients"
GUIDED_GRADIENTS = "guided_gradients"
CLASS_WEIGHTS = "class_weights"
DECONVNET_GRADIENTS = "deconvnet_gradients"
GRADCAM_MAP = "gradcam_map"

INPUTS = (IMAGES, TARGETS)
OUTPUTS = (
    LOGITS,
    ACTIVATIONS,
    GRADIENTS,
    INPUT_GRADIENTS,
    GUIDED_GRADIENTS,
    CLASS_WEIGHTS,
    DECONVNET_GRADIENTS,
    GRADCAM_MAP,
)
OPTIONAL_OUTPUTS = (DECONVNET_GRADIENTS, GRADCAM_MAP)

PREDICTED = -1
"""The value of `targets` that asks for the class that the model predicts."""

EXTERNAL_DATA_THRESHOLD = int(1.8 * 2**30)
"""Bytes of weights beyond which they go to the sibling file `NAME.onnx.data` (protobuf stops at 2 GiB)."""

KEY_PREFIX = "seewhy."
DIGEST_KEY = "seewhy.sha256"
"""SHA-256 over every byte of the file, with the 64 digits of this value themselves read as zeros."""
DIGEST_PLACEHOLDER = "0" * 64

RESIZE_MODES = ("shorter-side", "squash", "none")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
CHANNEL_ORDERS = ("RGB", "BGR")
SCORES = ("softmax", "sigmoid", "none")
LAYER_FORMS = ("map", "channels-last", "tokens")

MAX_PIXELS = 178_956_970
"""Pixels beyond which a picture is refused as a decompression bomb: where Pillow draws its own line."""
LONGEST_TEXT = 8192
"""Length of the longest name, label or other string in bytes of UTF-8; no path of Linux is longer than 4096."""
# Of any count; the next number does not fit into 32 bits.
_MOST = 2**31 - 1
# What float32 still holds, as a number that is not zero.
_SMALLEST, _LARGEST = 1e-37, 3e38

Shape: TypeAlias = "tuple[int | str, ...]"


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
    classes: int
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None
    """None where the source gave none: then only preprocessed arrays can be explained."""
    layer: Layer | None
    """None in a file without `activations`."""
    score: str
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
            LOGITS: ("N", self.classes),
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
            "input": {"image_size": self.image_size, "channels": self.channels, "classes": self.classes},
            "labels": self.labels,
            "preprocessing": None if self.preprocessing is None else asdict(self.preprocessing),
            "layer": None if self.layer is None else asdict(self.layer),
            "score": self.score,
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
        sizes = read("input", _fields(image_size=_size, channels=_positive, classes=_positive))
        return cls(
            model=ModelInfo(**read("model", _fields(name=_text, source=_text, weights_sha256=_text))),
            labels=read("labels", _optional(_tuple(_text))),
            preprocessing=read("preprocessing", _optional(_preprocessing)),
            layer=read("layer", _optional(_layer)),
            score=read("score", _one_of(SCORES)),
            rectifiers=read("rectifiers", _rectifiers),
            parity=read("parity", _dict(_dict(_dict(_optional(_number))))),
            versions=read("versions", _dict(_text)),
            external_data=read("external_data", _optional(_fields(file=_text, sha256=_digest))),
            **sizes,
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
        schema = self("schema", _positive)
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


def object_without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object, for `json.loads`, in which no name may stand twice: readers would take different values.

    Raises:
        ValueError: A name stands there twice.
    """
    twice = first_repeated(name for name, _ in pairs)
    if twice is not None:
        raise ValueError(f"{twice[:60]!r} stands there twice")
    return dict(pairs)


def first_repeated(names: Iterable[str]) -> str | None:
    """Return the first name that stood there before, or None if all differ."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def _require(condition: bool, wanted: str, value: Any) -> None:
    if not condition:
        raise ValueError(f"expected {wanted}, not {json.dumps(value)[:60]}")


def _text(value: Any) -> str:
    # JSON may hold half of a character, which no file and no terminal takes.
    whole = isinstance(value, str) and value.encode(errors="replace").decode() == value
    _require(whole, "a string", value)
    _require(len(value.encode()) <= LONGEST_TEXT, f"a string of at most {LONGEST_TEXT} bytes", value)
    return str(value)


def _digest(value: Any) -> str:
    _require(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None, "64 hexadecimal digits", value)
    return str(value)


def _is_integer(value: Any, low: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= _MOST


def _flag(value: Any) -> bool:
    _require(isinstance(value, bool), "true or false", value)
    return bool(value)


def _count(value: Any) -> int:
    _require(_is_integer(value, 0), "a count", value)
    return int(value)


def _positive(value: Any) -> int:
    _require(_is_integer(value, 1), "a positive integer of 32 bits", value)
    return int(value)


def _number(value: Any) -> float:
    # json reads NaN and Infinity, which JSON does not have.
    number = isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    _require(number, "a finite number", value)
    return float(value)


def _one_of(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def convert(value: Any) -> str:
        _require(value in choices, "one of " + ", ".join(choices), value)
        return str(value)

    return convert


def _optional(convert: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda value: None if value is None else convert(value)


def _tuple(convert: Callable[[Any], Any]) -> Callable[[Any], tuple[Any, ...]]:
    def converted(value: Any) -> tuple[Any, ...]:
        _require(isinstance(value, list), "a list", value)
        return tuple(convert(item) for item in value)

    return converted


def _size(value: Any) -> tuple[int, int]:
    _require(isinstance(value, list) and len(value) == 2, "two integers", value)
    height, width = _positive(value[0]), _positive(value[1])
    _require(height * width <= MAX_PIXELS, f"at most {MAX_PIXELS} pixels", value)
    return height, width


def _dict(convert: Callable[[Any], Any]) -> Callable[[Any], dict[str, Any]]:
    def converted(value: Any) -> dict[str, Any]:
        _require(isinstance(value, dict), "an object", value)
        return {_text(key): convert(item) for key, item in value.items()}

    return converted


def _fields(
    added: Mapping[str, Callable[[Any], Any]] | None = None, **converters: Callable[[Any], Any]
) -> Callable[[Any], dict[str, Any]]:
    """An object with these keys, and perhaps those `added` to the schema later. Others are ignored."""

    def converted(value: Any) -> dict[str, Any]:
        _require(isinstance(value, dict), "an object", value)
        missing = [key for key in converters if key not in value]
        _require(not missing, f"an object with {', '.join(converters)}", value)
        late = {key: convert for key, convert in (added or {}).items() if key in value}
        return {key: convert(value[key]) for key, convert in {**converters, **late}.items()}

    return converted


def _preprocessing(value: Any) -> Preprocessing:
    converted = _fields(
        resize=_one_of(RESIZE_MODES),
        size=_optional(_positive),
        interpolation=_one_of(INTERPOLATIONS),
        crop=_flag,
        mean=_tuple(_number),
        std=_tuple(_number),
        channel_order=_one_of(CHANNEL_ORDERS),
    )(value)
    _require(all(abs(mean) <= _LARGEST for mean in converted["mean"]), "means that float32 holds", value["mean"])
    _require(
        all(_SMALLEST <= std <= _LARGEST for std in converted["std"]), "positive stds that float32 holds", value["std"]
    )
    _require(len(converted["mean"]) == len(converted["std"]), "as many means as stds", value)
    _require(converted["resize"] != "shorter-side" or converted["size"] is not None, "a size to resize to", value)
    return Preprocessing(**converted)


def check_preprocessing(preprocessing: Preprocessing) -> None:
    """Hold a `Preprocessing` to the contract.

    Raises:
        ValueError: a value is of the wrong kind, or not one of those allowed.
    """
    _preprocessing(json.loads(json.dumps(asdict(preprocessing))))


def check_text(value: Any) -> None:
    """Raise a ValueError unless `value` is a string of UTF-8 of at most `LONGEST_TEXT` bytes."""
    _text(value)


def _layer(value: Any) -> Layer:
    return Layer(
        **_fields(
            {"form": _one_of(LAYER_FORMS), "dropped_tokens": _count},
            name=_text,
            chosen=_one_of(("automatic", "named")),
            separates=_flag,
            cut=_optional(_text),
        )(value)
    )


def _rectifiers(value: Any) -> Rectifiers:
    return Rectifiers(
        **_fields(kinds=_dict(_count), guided=_count, guided_scope=_optional(_tuple(_text)), smooth=_dict(_count))(
            value
        )
    )
