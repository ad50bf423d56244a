"""Report of `seewhy inspect` about a model file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from onnx import TensorProto, ValueInfoProto

from seewhy._shared.text import printable
from seewhy.cli.quantization_report import drift_table, precision
from seewhy.contract.constants import GRADCAM_MAP
from seewhy.contract.metadata import Layer, ParameterGroup, Preprocessing, Rectifiers
from seewhy.methods import registry
from seewhy.runtime.model_file import ModelFile, repeat_reason

SIDECAR_SCHEMA = 1
"""Version of the JSON that `facts` returns. It increases if a key is removed or changes its meaning or type."""

_WIDTH = 15
"""Width of the column of names, in characters."""


def facts(model: ModelFile) -> dict[str, Any]:
    """Return all facts about a model file, as values that JSON can hold; see docs/concepts/file-format.md."""
    graph = model.proto.graph
    initialized = {tensor.name for tensor in graph.initializer}
    return {
        "sidecar": SIDECAR_SCHEMA,
        "file": model.path.name,
        "sha256": model.sha256,
        "schema": model.metadata.schema,
        **asdict(model.metadata),
        "inputs": {value.name: _tensor(value) for value in graph.input if value.name not in initialized},
        "outputs": {value.name: _tensor(value) for value in graph.output if value.name in model.outputs},
        "methods": list(registry.available_methods(model.outputs)),
        "image_repeated_for_each_class": repeat_reason(model) is not None,
        "damage": model.damage,
    }


def _tensor(value: ValueInfoProto) -> dict[str, Any]:
    """Return type and shape of an input or output; a length that the file leaves free is its name, such as N."""
    tensor = value.type.tensor_type
    return {
        "type": TensorProto.DataType.Name(tensor.elem_type).replace("FLOAT", "float32").lower(),
        "shape": [dim.dim_value if dim.HasField("dim_value") else dim.dim_param for dim in tensor.shape.dim],
    }


def served_methods(model: ModelFile) -> str:
    """Return the methods that a model file can serve, as text."""
    finished = f"; its output {GRADCAM_MAP} holds finished Grad-CAM maps for other programs"
    methods = ", ".join(registry.available_methods(model.outputs)) or "none"
    return methods + (finished if GRADCAM_MAP in model.outputs else "")


def megabytes(model: ModelFile) -> str:
    """Return the size of a model file and its weights file as text."""
    weights = model.metadata.external_data
    files = [model.path] if weights is None else [model.path, model.path.with_name(weights["file"])]
    return f"{sum(file.stat().st_size for file in files) / 1e6:.2f} MB"


def report(model: ModelFile) -> str:
    """Return the facts about a model file as text: lines of a name and a value, and a table of the parity check."""
    data = model.metadata
    height, width = data.image_size
    rows = [
        ("file", str(model.path)),
        ("model", data.model.name),
        ("source", data.model.source),
        ("weights", f"SHA-256 {data.model.weights_sha256}"),
        ("input", f"{width}x{height} pixels, {data.channels} channels"),
        ("classes", _classes(data.class_count, data.labels)),
        ("score", data.score_kind),
        ("layer", "none" if data.layer is None else _layer(data.layer)),
        ("outputs", ", ".join(model.outputs)),
        ("methods", served_methods(model)),
        ("several classes", _several_classes(model)),
        ("rectifiers", _rectifiers(data.rectifiers)),
        *([] if data.quantization else [("parameters", _parameters(data.parameters))]),
        ("preprocessing", _preprocessing(data.preprocessing, (width, height))),
        ("versions", ", ".join(f"{name} {version}" for name, version in data.versions.items())),
    ]
    if data.cut_from is not None:
        methods = ", ".join(data.cut_from["methods"]) or "no method"
        rows.append(("cut from", f"{data.cut_from['file']}, SHA-256 {data.cut_from['sha256']}, for {methods}"))
    if data.quantization is not None:
        original = data.quantization
        rows.append(("quantised", precision(original)))
        rows.append(("float32 file", f"{original.float32_file}, SHA-256 {original.float32_sha256}"))
    if data.external_data is not None:
        rows.append(("weights file", data.external_data["file"]))
    rows.append(("integrity", "damaged" if model.damage else "intact: the SHA-256 equals the one recorded at export"))
    lines = [f"{name:<{_WIDTH}} {printable(value)}" for name, value in rows]
    if data.quantization is not None:
        return "\n".join([*lines, "", *drift_table(data.quantization)])
    return "\n".join(lines + _parity(data.parity))


def _classes(count: int, labels: tuple[str, ...] | None) -> str:
    if labels is None:
        return f"{count}, without labels"
    shown = "; ".join(labels[:3])
    return f"{count}: {shown}{'; ...' if count > 3 else ''}"


def _several_classes(model: ModelFile) -> str:
    reason = repeat_reason(model)
    if reason is not None:
        return f"the image is repeated for each class, because {reason}"
    return "one run of the image serves all classes, except for methods that need a gradient of the image"


def _layer(layer: Layer) -> str:
    dropped = f", {layer.dropped_tokens} without a position dropped" if layer.dropped_tokens else ""
    form = "" if layer.form == "map" else f", converted to a map from {layer.form}{dropped}"
    return f"{layer.name} ({layer.chosen}){form}"


def _rectifiers(rectifiers: Rectifiers) -> str:
    def counted(kinds: dict[str, int]) -> str:
        return ", ".join(f"{count} {kind}" for kind, count in kinds.items()) or "none"

    scope = (
        "" if rectifiers.guided_scope is None else f", only inside {', '.join(rectifiers.guided_scope) or 'nothing'}"
    )
    smooth = f"; smooth, never guided: {counted(rectifiers.smooth)}" if rectifiers.smooth else ""
    return f"{counted(rectifiers.kinds)}; guided: {rectifiers.guided}{scope}{smooth}"


def _parameters(groups: Sequence[ParameterGroup] | None) -> str:
    if groups is None:
        return "not listed: an older export, whose parameters cannot be shuffled"
    return f"{sum(len(group.tensors) for group in groups)} tensors of {len(groups)} modules"


def _preprocessing(how: Preprocessing | None, size: tuple[int, int]) -> str:
    if how is None:
        return "not recorded: takes preprocessed arrays only"
    wanted = f"{size[0]}x{size[1]}"
    resize = {
        "squash": f"squash to {f'{how.size}x{how.size}' if how.size else wanted}, {how.interpolation}",
        "shorter-side": f"shorter side to {how.size}, {how.interpolation}",
        "none": "no resizing",
    }[how.resize]
    crop = f", center crop {wanted}" if how.crop and (how.resize, how.size) != ("squash", None) else ""
    mean, std = (" ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    return f"{resize}{crop}; {how.channel_order}, mean {mean}, std {std}"


def _parity(parity: dict[str, dict[str, dict[str, float | None]]]) -> list[str]:
    if not parity:
        return [f"{'parity':<{_WIDTH}} not checked at export"]
    lines = [
        "",
        "Parity with PyTorch float64 autograd (relative L2 error):",
        f"  {'output':<20} {'input':<10} {'this file':>12} {'PyTorch float32':>16}",
    ]
    for output, inputs in parity.items():
        for kind, errors in inputs.items():
            ours, theirs = (_error(errors.get(key)) for key in ("error", "torch_float32"))
            lines.append(f"  {printable(output):<20} {printable(kind):<10} {ours:>12} {theirs:>16}")
    return lines


def _error(value: float | None) -> str:
    return "not tested" if value is None else f"{value:.1e}"
