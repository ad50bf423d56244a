"""Export of a PyTorch module to a model file: the steps in their order."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seewhy._shared.suggestions import did_you_mean
from seewhy._shared.text import brief
from seewhy.contract import constants as contract
from seewhy.contract import json_values
from seewhy.contract.metadata import Layer, Metadata, ModelInfo, ParameterGroup, Preprocessing, Rectifiers
from seewhy.errors import ExportArgumentError, ExportError
from seewhy.runtime.model_file import ModelFile
from seewhy_export._shared.messages import size_text
from seewhy_export.backward.joint_graph import build_joint
from seewhy_export.backward.rectifiers import SMOOTH_ACTIVATIONS, in_scope, rectifier_of
from seewhy_export.capture.forward_failures import FixedBatchError
from seewhy_export.capture.forward_graph import ForwardGraph, example_images, trace_forward
from seewhy_export.capture.layer_names import layer_name
from seewhy_export.capture.module_preparation import prepare, traceable
from seewhy_export.capture.network_outputs import find_output, returning
from seewhy_export.capture.unsupported_networks import refuse_dependence
from seewhy_export.onnx_writer import model_file
from seewhy_export.onnx_writer.conversion import to_onnx
from seewhy_export.sources.argument_forms import as_labels, as_preprocessing
from seewhy_export.sources.image_channels import find_channels
from seewhy_export.sources.onnx_import.single_image_modules import for_any_batch
from seewhy_export.target_layer.selection import TargetLayer, target_layer
from seewhy_export.verification.parity import (
    Parity,
    check_traced_graph,
    measure_parity,
    redrawn_kinds,
    untested_outputs,
)

Labels = Sequence[str] | Mapping[int, str] | Mapping[str, str] | Mapping[str, int] | str | os.PathLike[str]
"""Labels in order, by class index, or in a file."""


@dataclass(frozen=True, repr=False)
class ExportReport:
    """Result of an export."""

    path: Path
    """The model file that was written."""
    layer: str | None
    """Module path of the target layer. None if no output needs one."""
    activations: tuple[int, int, int] | None
    """Shape (C, h, w) of the target layer's activations for one image. None if no output needs the layer."""
    form: str | None
    """Layout of the target layer's own output: `map`, `channels-last` or `tokens`, as in the file contract."""
    outputs: tuple[str, ...]
    """Names of the outputs in the file, in the order of the file contract."""
    rectifiers: Rectifiers
    """Kinds and counts of the rectifiers, and the number of those that follow the guided rule."""
    parity: Parity
    """Output name -> kind of test input -> `error` and `torch_float32`, relative L2 errors against float64 autograd.

    `error` is that of the file and `torch_float32` that of PyTorch in float32. Empty if verification was skipped.
    """
    messages: tuple[str, ...]
    """Facts that the user should know, for example that a final softmax was removed or an output was not tested."""
    seconds: float
    """Duration of the export in seconds."""
    size: int
    """Size in bytes of the model file and its weights file together."""

    def __repr__(self) -> str:
        """Return the facts that matter most on one line."""
        return (
            f"ExportReport(path={str(self.path)!r}, layer={self.layer!r}, outputs={self.outputs!r}, "
            f"verified={bool(self.parity)}, {size_text(self.size)})"
        )


def export(
    module: nn.Module,
    path: str | os.PathLike[str],
    image_size: int | tuple[int, int] = (224, 224),
    layer: str | nn.Module | None = None,
    outputs: Sequence[str] | None = None,
    guided_scope: Sequence[str] | None = None,
    labels: Labels | None = None,
    preprocessing: Preprocessing | Mapping[str, Any] | Callable[..., Any] | None = None,
    score: str = "softmax",
    name: str | None = None,
    verify: bool = True,
    source: str | None = None,
    head: str | int | None = None,
    channels: int | None = None,
    on_phase: Callable[[str], None] | None = None,
) -> ExportReport:
    """Write the forward and the backward pass of an image classifier to one ONNX file.

    The function works on a copy of the module, so the module keeps its mode, gradients, hooks, in-place flags and
    device. The copy runs in evaluation mode and float32. Forward hooks run while it is traced and verified, as in any
    forward pass.

    Args:
        module: Classifier that takes images (N, C, H, W), float32, and returns logits (N, class count). It may return
            other tensors too; see `head`. Compiled modules (`torch.compile`) and TorchScript modules are accepted.
        path: Model file to write. A failed export leaves it unchanged. Weights of more than 1.8 GiB go to a second
            file next to it, whose name ends in `.onnx.data`.
        image_size: (H, W) of the images in pixels, or one side of a square. The file fixes it; the batch size stays
            dynamic. A function as preprocessing replaces the default by its own size.
        layer: Target layer: a module path such as `layer4`, or a module of the network such as `model.layer4`. If the
            module is called several times, its last call counts. `list_layers` lists the layers. None chooses the
            last feature map before pooling, or the first norm of the last block if the network has class tokens.
        outputs: Names of outputs from the file contract. None writes all that the network supports, except the
            optional ones. Logits are always written.
        guided_scope: Prefixes of module paths. Only rectifiers in these modules follow the rule of guided
            backpropagation. None applies it to all rectifiers.
        labels: One label for each class, in the order of the logits; a dict from class indices to labels, such as
            `config.id2label` of Hugging Face's models; or the path of a label file.
        preprocessing: Preprocessing that turns an image file into the network's input, which the engine applies: a
            `Preprocessing`; a dict with its fields; or a function from an image to its array, such as a transform of
            torchvision or an image processor of transformers, which is run on test images to find what it does. None
            leaves it out, and then the file explains only arrays.
        score: Function that turns logits into probabilities: `softmax`, `sigmoid` or `none`. A softmax or sigmoid at
            the end of the network takes precedence: its input becomes the logits.
        name: Name of the model in the file. None uses the class name of the module.
        verify: Compare the outputs of the written file with PyTorch autograd in float64. If they disagree, nothing is
            written.
        source: Text that records in the file where the module came from.
        head: Output that holds the logits, if the module returns several tensors: an index, or a key, an attribute
            or a path of these ("head.0"). None uses the only tensor, or the one called `logits`.
        channels: Number of image channels. None uses the number of means in `preprocessing`. Without preprocessing,
            the input channels of the first convolution, 3 and 1 are tried.
        on_phase: Function that is called with the name of each phase of the export when the phase starts.

    Returns:
        What was written, and how well it agrees with PyTorch.

    Raises:
        ExportError: If an argument is invalid, the module cannot be exported, the file disagrees with PyTorch, or it
            cannot be written.

    Example:
        >>> report = export(model, "model.onnx", image_size=(224, 224), layer="layer4")  # doctest: +SKIP
        >>> report.layer, report.activations  # doctest: +SKIP
        ('layer4', (2048, 7, 7))
    """
    started = time.perf_counter()
    if not os.fspath(path):
        raise ExportArgumentError("path must not be empty; give the file to write, for example 'model.onnx'")
    start_phase = on_phase or (lambda _phase: None)
    destination = Path(path)
    _check_arguments(module, outputs, score, channels)
    preprocessing, image_size = as_preprocessing(preprocessing, image_size)
    labels = as_labels(labels)
    layer = layer_name(module, layer)
    _check_texts({"name": name, "layer": layer, "source": source}, labels, guided_scope)
    model_file.check_destination(destination)
    messages: list[str] = []
    if preprocessing is None:
        messages.append("no preprocessing is recorded, so the file explains only arrays that are already preprocessed")
    start_phase("tracing the forward pass")
    prepared = prepare(module)
    channels, preprocessing = _channels(prepared, image_size, channels, preprocessing)
    try:
        prepared, forward, notes = _traced(prepared, channels, image_size, layer, head)
    except FixedBatchError as error:
        start_phase("converting the network, which takes one image at a time")
        prepared, layer = _for_any_batch(module, channels, image_size, layer, head, error)
        if guided_scope is not None:
            raise ExportArgumentError(
                "guided_scope cannot be used, because the network's code fixes the batch size and conversion renames "
                "its modules"
            ) from None
        try:
            prepared, forward, notes = _traced(prepared, channels, image_size, layer, None)
        except FixedBatchError:  # the conversion left an operation that fixes the batch size
            raise error from None
        notes.append(
            "the network's code fixes the batch size, so it was converted for any number of images; layers have the "
            "names of ONNX nodes"
        )
    messages += notes
    refuse_dependence(prepared, channels, image_size)
    if forward.mutated:
        messages.append(
            f"the forward pass changes {', '.join(forward.mutated)}; the file uses the value at export in every call"
        )
    if forward.stripped is not None:
        score = forward.stripped
        messages.append(f"the network ends in {score}; its input is exported as logits")
    if forward.class_count == 1 and score == "softmax":
        raise ExportArgumentError(_softmax_of_one(forward.stripped))
    if labels is not None and len(labels) != forward.class_count:
        raise ExportArgumentError(f"{len(labels)} labels for {forward.class_count} classes; give one label per class")
    target = target_layer(forward, layer) if layer is not None or _needs_layer(outputs) else None
    if target is not None:
        check_text("the target layer's name", target.name)
        if target.shape[1:] == (1, 1):
            messages.append(
                f"the maps of {target.name} have one pixel, so maps cannot show a place; choose an earlier layer"
            )
    names = _choose_outputs(outputs, target)
    if verify:
        start_phase("comparing the traced network with the original")
        check_traced_graph(prepared, forward)
    start_phase("building the backward pass")
    scope = None if guided_scope is None else _check_scope(guided_scope, forward)
    joint = build_joint(forward, target, names, scope)
    start_phase("converting to ONNX")
    model = to_onnx(joint)
    metadata = Metadata(
        model=ModelInfo(name or type(module).__name__, source or "", model_file.weights_sha256(model)),
        image_size=forward.image_size,
        channels=forward.channels,
        class_count=forward.class_count,
        labels=labels,
        preprocessing=preprocessing,
        layer=_layer_entry(target) if target is not None and contract.ACTIVATIONS in names else None,
        score_kind=score,
        rectifiers=count_rectifiers(forward, scope),
        parity={},
        versions=_versions(),
        parameters=_stored(joint.parameters, model.graph.initializers),
    )
    with model_file.staging(destination) as folder:
        staged = folder / destination.name
        model_file.write(model, metadata, staged)
        if verify:
            start_phase("verifying the file against PyTorch")
            mean, std = ((0.5,), (0.25,)) if preprocessing is None else (preprocessing.mean, preprocessing.std)
            parity = measure_parity(staged, forward, target, names, scope, mean, std)
            messages += [
                f"{kind}: agrees on a later random input; rounding switched a rectifier on an earlier one"
                for kind in redrawn_kinds(parity)
            ]
            messages += [
                f"{output}: not tested, because it is zero on every test input" for output in untested_outputs(parity)
            ]
            metadata = model_file.write(model, replace(metadata, parity=parity), staged)
        # Publish the file only if the engine can read it.
        written = ModelFile.read(staged).outputs
        if written != names:
            raise ExportError(f"the file holds the outputs {', '.join(written)} instead of {', '.join(names)}")
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


def _channels(
    prepared: nn.Module, image_size: tuple[int, int], channels: int | None, preprocessing: Preprocessing | None
) -> tuple[int, Preprocessing | None]:
    """Return the number of image channels, and the preprocessing with one mean and std for each of them."""
    if preprocessing is None:
        return channels or find_channels(prepared, image_size), None
    count = len(preprocessing.mean)
    channels = channels or find_channels(prepared, image_size, first=count if count > 1 else None)
    if count == 1:
        return channels, replace(preprocessing, mean=preprocessing.mean * channels, std=preprocessing.std * channels)
    if count != channels:
        raise ExportArgumentError(
            f"mean and std have {count} values, but the network takes images of {channels} channels; give one value, "
            f"or one per channel"
        )
    return channels, preprocessing


def _traced(
    prepared: nn.Module, channels: int, image_size: tuple[int, int], layer: str | None, head: str | int | None
) -> tuple[nn.Module, ForwardGraph, list[str]]:
    """Return a prepared module that returns logits alone, its forward graph, and notes for the user."""
    output = find_output(prepared, channels, image_size, head)
    notes = []
    if output.is_vector:
        notes.append("the network returns one number per image, (N,); the file returns it as (N, 1), for one class")
    converted = traceable(prepared, example_images(image_size, channels))
    is_script = converted is not prepared
    prepared = returning(prepared, output)
    converted = returning(converted, output) if is_script else prepared
    try:
        return prepared, trace_forward(converted, image_size, channels, layer), notes
    except FixedBatchError:
        # Operations over the batch may look like a fixed batch size.
        refuse_dependence(prepared, channels, image_size)
        raise


def _for_any_batch(
    module: nn.Module,
    channels: int,
    image_size: tuple[int, int],
    layer: str | None,
    head: str | int | None,
    reason: FixedBatchError,
) -> tuple[nn.Module, str | None]:
    """Convert a module that takes one image at a time, and return it with the path of the target layer in it."""
    prepared = prepare(module)
    try:
        single = returning(prepared, find_output(prepared, channels, image_size, head, count=1))
        converted, ends = for_any_batch(single, channels, image_size)
    except ExportError as error:
        raise reason from error
    return converted, None if layer is None else ends.get(layer, layer)


def check_text(what: str, text: Any) -> None:
    """Check a string that the file will hold, before any work starts.

    Args:
        what: Name of the string in error messages.
        text: The string.

    Raises:
        ExportError: If the file contract does not allow the string.
    """
    try:
        json_values.text(text)
    except ValueError as error:
        raise ExportArgumentError(f"{what}: {error}") from None


def count_rectifiers(forward: ForwardGraph, scope: tuple[str, ...] | None) -> Rectifiers:
    """Count the rectifiers and the smooth activations of a network.

    Args:
        forward: Traced forward pass.
        scope: Module path prefixes that restrict the guided rule. None means all modules.

    Returns:
        Kinds and counts for the metadata of the file.
    """
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
    outputs: Sequence[str] | None,
    score: str,
    channels: Any,
) -> None:
    """Refuse invalid arguments before any work starts."""
    if not isinstance(module, nn.Module):
        raise ExportArgumentError(f"module must be a torch.nn.Module, not {type(module).__name__}")
    if score not in contract.SCORES:
        raise ExportArgumentError(f"score must be one of {', '.join(contract.SCORES)}, not {score!r}")
    if channels is not None and (not isinstance(channels, int) or isinstance(channels, bool) or channels < 1):
        raise ExportArgumentError(f"channels must be a number of image channels, at least 1, not {brief(channels)}")
    if outputs is not None and (isinstance(outputs, str) or not isinstance(outputs, Iterable)):
        raise ExportArgumentError(f"outputs must be a list of names such as ['gradients'], not {brief(outputs)}")
    unknown = [name for name in outputs or () if name not in contract.OUTPUTS]
    if unknown:
        hint = did_you_mean(unknown[0], contract.OUTPUTS) if isinstance(unknown[0], str) else ""
        raise ExportArgumentError(f"Unknown output {unknown[0]!r}.{hint} Outputs are {', '.join(contract.OUTPUTS)}")


def _check_texts(
    texts: Mapping[str, str | None], labels: Sequence[str] | None, guided_scope: Sequence[str] | None
) -> None:
    """Check all strings that the file will hold."""
    for what, text in texts.items():
        if text is not None:
            check_text(what, text)
    for index, label in enumerate(() if labels is None else labels):
        check_text(f"label {index}", label)
    for index, prefix in enumerate(guided_scope or ()):
        check_text(f"prefix {index} of guided_scope", prefix)


_OUTPUTS_OF_LAYER = {contract.ACTIVATIONS, contract.GRADIENTS, contract.CLASS_WEIGHTS, contract.GRADCAM_MAP}


def _needs_layer(outputs: Sequence[str] | None) -> bool:
    """Return True if an output belongs to the target layer."""
    return outputs is None or bool(_OUTPUTS_OF_LAYER.intersection(outputs))


def _choose_outputs(outputs: Sequence[str] | None, target: TargetLayer | None) -> tuple[str, ...]:
    """Return the outputs to write, with logits, in the order of the contract."""
    if outputs is None:
        chosen = set(contract.OUTPUTS) - set(contract.OPTIONAL_OUTPUTS)
        if target is None or target.class_weights is None:
            chosen.discard(contract.CLASS_WEIGHTS)
    else:
        chosen = {contract.LOGITS, *outputs}
        if contract.CLASS_WEIGHTS in chosen and target is not None and target.class_weights is None:
            raise ExportArgumentError(
                f"class_weights: CAM requires global average pooling and one linear layer directly after "
                f"{target.name!r}; export activations and gradients instead, and use gradcam"
            )
    return tuple(name for name in contract.OUTPUTS if name in chosen)


def _softmax_of_one(stripped: str | None) -> str:
    """Return the error message for a network with one output and the score softmax."""
    if stripped is not None:
        return "the network ends in a softmax over its only output, which is 100 % for every image; remove that softmax"
    return (
        "the network has one output, and a softmax over one class is 100 % for every image; choose the score sigmoid "
        "for a binary classifier, or none for a regression (`score`, --score)"
    )


def _check_scope(scope: Sequence[str], forward: ForwardGraph) -> tuple[str, ...]:
    """Return the prefixes if each of them names modules of the forward pass."""
    if isinstance(scope, str):
        raise ExportArgumentError(f"guided_scope must be a list of module path prefixes, not the string {scope!r}")
    for prefix in scope:
        if not any(in_scope(node, (prefix,)) for node in forward.nodes):
            raise ExportArgumentError(f"guided_scope: no module in the forward pass has the path prefix {prefix!r}")
    return tuple(scope)


def _layer_entry(target: TargetLayer) -> Layer:
    """Return the target layer as the metadata of the file describes it."""
    return Layer(
        name=target.name,
        chosen=target.chosen,
        separates=target.separates,
        cut=contract.ACTIVATIONS if target.separates else None,
        form=target.layout.form,
        dropped_tokens=target.layout.extra_tokens,
    )


def _stored(groups: Iterable[ParameterGroup], stored: Container[str]) -> tuple[ParameterGroup, ...]:
    """Return the parameters that the file holds; those that no output needs are left out."""
    found = (ParameterGroup(one.module, tuple(name for name in one.tensors if name in stored)) for one in groups)
    return tuple(group for group in found if group.tensors)


def _versions() -> dict[str, str]:
    """Return the versions of Python and the packages that wrote the file."""
    packages = ("seewhy", "torch", "onnxscript", "onnx", "onnxruntime")
    return {"python": platform.python_version(), **{name: _version(name) for name in packages}}


def _version(package: str) -> str:
    """Return the version of a package."""
    if package == "torch":
        return str(torch.__version__)
    return importlib.metadata.version(package)
