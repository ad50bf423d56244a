"""From a PyTorch module to a model file: the steps in order, nothing else."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seewhy.contract import constants as contract
from seewhy.contract import json_values
from seewhy.contract.metadata import Layer, Metadata, ModelInfo, Preprocessing, Rectifiers, check_preprocessing
from seewhy.errors import ExportError
from seewhy.runtime.model_file import ModelFile
from seewhy_export.backward.joint_graph import build_joint
from seewhy_export.backward.rectifiers import SMOOTH_ACTIVATIONS, in_scope, rectifier_of
from seewhy_export.capture.forward_graph import ForwardGraph, example_images, trace_forward
from seewhy_export.capture.module_preparation import find_output, prepare, returning, traceable
from seewhy_export.onnx_writer import model_file
from seewhy_export.onnx_writer.conversion import to_onnx
from seewhy_export.target_layer.selection import TargetLayer, target_layer
from seewhy_export.verification.parity import (
    Parity,
    check_traced_graph,
    measure_parity,
    redrawn_kinds,
    untested_outputs,
)


@dataclass(frozen=True)
class ExportReport:
    """What an export did."""

    path: Path
    layer: str | None
    """The target layer's name; None where no output needs one."""
    activations: tuple[int, int, int] | None
    """(C, h, w) of the target layer."""
    form: str | None
    """What the layer itself gives: `map`, `channels-last` or `tokens`; see the file contract."""
    outputs: tuple[str, ...]
    rectifiers: Rectifiers
    parity: Parity
    """output -> input kind -> `error` and `torch_float32`; empty where verification was skipped."""
    messages: tuple[str, ...]
    """What the user should know: a final softmax taken off, an output that no input could test, and the like."""
    seconds: float
    size: int
    """Bytes of the model file and its weights file together."""


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    image_size: tuple[int, int] = (224, 224),
    layer: str | None = None,
    outputs: Sequence[str] | None = None,
    guided_scope: Sequence[str] | None = None,
    labels: Sequence[str] | None = None,
    preprocessing: Preprocessing | None = None,
    score: str = "softmax",
    name: str | None = None,
    verify: bool = True,
    source: str | None = None,
    output: str | int | None = None,
    channels: int | None = None,
) -> ExportReport:
    """Write a classifier's forward and backward pass to one ONNX file.

    The module is copied first; it keeps its mode, gradients, hooks, in-place flags and device. The copy is exported in
    evaluation mode and float32; forward hooks run while it is traced and checked, as in any forward pass.

    Args:
        module: takes images (N, C, H, W), returns logits (N, classes), perhaps among other things; `torch.compile`d
            and TorchScript modules too.
        path: the file to write, whole or not at all.
        image_size: (H, W) in pixels, fixed in the file; the batch size is not.
        layer: module path of the target layer; a module called several times means its last call. None chooses the
            last map before pooling, or where there are class tokens the first norm of the last block.
        outputs: names from the file contract; None is all but the optional ones. Logits are always there.
        guided_scope: module path prefixes inside which rectifiers follow the guided rule; None is everywhere.
        labels: one for each class.
        preprocessing: how a photograph becomes the network's input, for the engine.
        score: `softmax`, `sigmoid` or `none`: what makes probabilities of the logits.
        name: the model's name in the file; None is the class of the module.
        verify: compare the written file with PyTorch autograd in float64, and keep nothing that disagrees.
        source: where the module came from, for the record.
        output: which tensor holds the logits, where the module returns several: an index, or a key, attribute or path
            of these ("head.0"). None takes the one called `logits`.
        channels: of the images; None is as many as the preprocessing normalises, else as the first convolution takes.

    Raises:
        ExportError: the module cannot be exported, the file disagrees with PyTorch, or it cannot be written.
    """
    started = time.perf_counter()
    if not os.fspath(path):
        raise ExportError("the path of the file to write is empty; give one, for example 'model.onnx'")
    destination = Path(path)
    _check_arguments(module, image_size, outputs, score, preprocessing)
    _check_texts({"name": name, "layer": layer, "source": source}, labels, guided_scope)
    model_file.check_destination(destination)
    messages: list[str] = []
    prepared = prepare(module)
    guessed = channels is None and preprocessing is None
    channels = channels or _channels(prepared, preprocessing)
    example = example_images(image_size, channels)
    try:
        chosen = find_output(prepared, example, output)
    except ExportError as error:
        if not guessed or error.__cause__ is None:  # the module ran, and what it returned is the matter
            raise
        hint = f"{channels} channels are a guess; `channels` (--channels) says how many there are"
        raise ExportError(f"{error}; {hint}") from error
    if chosen is not None:
        messages.append(f"of what the network returns, {chosen} is taken as its logits")
    converted = traceable(prepared, example)
    prepared = returning(prepared, chosen)
    forward = trace_forward(
        prepared if converted is prepared else returning(converted, chosen), image_size, channels, layer
    )
    if forward.mutated:
        messages.append(
            f"the forward pass changes {', '.join(forward.mutated)}; the file starts from the value at export each time"
        )
    if forward.stripped is not None:
        score = forward.stripped
        messages.append(f"the network ends in {score}; its input is exported as logits")
    if labels is not None and len(labels) != forward.class_count:
        raise ExportError(f"{len(labels)} labels for {forward.class_count} classes")
    target = target_layer(forward, layer) if layer is not None or _needs_layer(outputs) else None
    if target is not None:
        check_text("the target layer's name", target.name)
    names = _choose_outputs(outputs, target)
    if verify:
        check_traced_graph(prepared, forward)
    scope = None if guided_scope is None else _check_scope(guided_scope, forward)
    model = to_onnx(build_joint(forward, target, names, scope))
    metadata = Metadata(
        model=ModelInfo(name or type(module).__name__, source or "", model_file.weights_sha256(model)),
        image_size=forward.image_size,
        channels=forward.channels,
        class_count=forward.class_count,
        labels=None if labels is None else tuple(labels),
        preprocessing=preprocessing,
        layer=_layer_entry(target) if target is not None and contract.ACTIVATIONS in names else None,
        score_kind=score,
        rectifiers=count_rectifiers(forward, scope),
        parity={},
        versions=_versions(),
    )
    with model_file.staging(destination) as folder:
        staged = folder / destination.name
        model_file.write(model, metadata, staged)
        if verify:
            mean, std = ((0.5,), (0.25,)) if preprocessing is None else (preprocessing.mean, preprocessing.std)
            parity = measure_parity(staged, forward, target, names, scope, mean, std)
            messages += [
                f"{kind}: agrees on a later draw; rounding flipped a rectifier before" for kind in redrawn_kinds(parity)
            ]
            messages += [f"{output}: zero on every test input, so not tested" for output in untested_outputs(parity)]
            metadata = model_file.write(model, replace(metadata, parity=parity), staged)
        # The engine's own reader has the last word on what is published.
        held = ModelFile.read(staged).outputs
        if held != names:
            raise ExportError(f"the file holds the outputs {', '.join(held)} instead of {', '.join(names)}")
        size = sum(file.stat().st_size for file in folder.iterdir())
        model_file.publish(staged, destination)
    return ExportReport(
        path=destination,
        layer=None if target is None else target.name,
        activations=None if target is None else target.shape,
        form=None if target is None else target.layout.form,
        outputs=names,
        rectifiers=metadata.rectifiers,
        parity=metadata.parity,
        messages=tuple(messages),
        seconds=time.perf_counter() - started,
        size=size,
    )


def check_text(what: str, text: Any) -> None:
    """Check a string that the file will hold, before any work is done.

    Args:
        what: Name of the string in error messages.
        text: The string.

    Raises:
        ExportError: The file contract does not allow it.
    """
    try:
        json_values.text(text)
    except ValueError as error:
        raise ExportError(f"{what}: {error}") from None


def count_rectifiers(forward: ForwardGraph, scope: tuple[str, ...] | None) -> Rectifiers:
    """What the guided rule meets in this network."""
    nodes = forward.from_images_to_logits()
    rectifiers = [(node, found) for node in nodes if (found := rectifier_of(node)) is not None]
    smooth = [SMOOTH_ACTIVATIONS[node.target] for node in nodes if node.target in SMOOTH_ACTIVATIONS]
    return Rectifiers(
        kinds=dict(Counter(found.kind for _, found in rectifiers)),
        guided=sum(in_scope(node, scope) for node, _ in rectifiers),
        guided_scope=scope,
        smooth=dict(Counter(smooth)),
    )


def _check_arguments(
    module: Any,
    image_size: Any,
    outputs: Sequence[str] | None,
    score: str,
    preprocessing: Preprocessing | None,
) -> None:
    if not isinstance(module, nn.Module):
        raise ExportError(f"export takes a torch.nn.Module, not {type(module).__name__}")
    pair = isinstance(image_size, (tuple, list)) and len(image_size) == 2
    if not pair or not all(isinstance(size, int) and size > 0 for size in image_size):
        raise ExportError(f"image_size must be (height, width) in pixels, not {image_size!r}")
    if score not in contract.SCORES:
        raise ExportError(f"score must be one of {', '.join(contract.SCORES)}, not {score!r}")
    if preprocessing is not None:
        try:
            check_preprocessing(preprocessing)
        except ValueError as error:
            raise ExportError(f"preprocessing is not valid: {error}") from error
    unknown = [name for name in outputs or () if name not in contract.OUTPUTS]
    if unknown:
        raise ExportError(f"unknown output {unknown[0]!r}; there are {', '.join(contract.OUTPUTS)}")


def _check_texts(
    texts: Mapping[str, str | None], labels: Sequence[str] | None, guided_scope: Sequence[str] | None
) -> None:
    for what, text in texts.items():
        if text is not None:
            check_text(what, text)
    for index, label in enumerate(() if labels is None else labels):
        check_text(f"label {index}", label)
    for index, prefix in enumerate(guided_scope or ()):
        check_text(f"prefix {index} of guided_scope", prefix)


_OF_THE_LAYER = {contract.ACTIVATIONS, contract.GRADIENTS, contract.CLASS_WEIGHTS, contract.GRADCAM_MAP}


def _needs_layer(outputs: Sequence[str] | None) -> bool:
    return outputs is None or bool(_OF_THE_LAYER.intersection(outputs))


def _choose_outputs(outputs: Sequence[str] | None, target: TargetLayer | None) -> tuple[str, ...]:
    """The outputs asked for, in the contract's order; logits always, class weights where CAM applies."""
    if outputs is None:
        wanted = set(contract.OUTPUTS) - set(contract.OPTIONAL_OUTPUTS)
        if target is None or target.class_weights is None:
            wanted.discard(contract.CLASS_WEIGHTS)
    else:
        wanted = {contract.LOGITS, *outputs}
        if contract.CLASS_WEIGHTS in wanted and target is not None and target.class_weights is None:
            raise ExportError(
                f"class_weights: CAM needs global average pooling and one linear layer right behind {target.name!r}; "
                f"export gradients instead, for gradcam"
            )
    return tuple(name for name in contract.OUTPUTS if name in wanted)


def _check_scope(scope: Sequence[str], forward: ForwardGraph) -> tuple[str, ...]:
    if isinstance(scope, str):
        raise ExportError(f"guided_scope takes a list of module prefixes, not the string {scope!r}")
    for prefix in scope:
        if not any(in_scope(node, (prefix,)) for node in forward.nodes):
            raise ExportError(f"guided_scope: no module is named {prefix!r}, or it does nothing in the forward pass")
    return tuple(scope)


def _layer_entry(target: TargetLayer) -> Layer:
    return Layer(
        name=target.name,
        chosen=target.chosen,
        separates=target.separates,
        cut=contract.ACTIVATIONS if target.separates else None,
        form=target.layout.form,
        dropped_tokens=target.layout.extra_tokens,
    )


def _channels(module: nn.Module, preprocessing: Preprocessing | None) -> int:
    """As many as the preprocessing normalises; else as the first convolution takes; else three."""
    if preprocessing is not None:
        return len(preprocessing.mean)
    first = next((m for m in module.modules() if isinstance(m, nn.Conv2d)), None)
    return 3 if first is None else first.in_channels


def _versions() -> dict[str, str]:
    packages = ("seewhy", "torch", "onnxscript", "onnx", "onnxruntime")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    if package == "torch":
        return str(torch.__version__)
    return importlib.metadata.version(package)
