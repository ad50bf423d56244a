"""Cut a model file down to the outputs that some methods need."""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from seewhy._shared import checks
from seewhy._shared.text import brief
from seewhy.contract import constants as contract
from seewhy.contract.checksum import seal
from seewhy.contract.metadata import Layer, Metadata, ParameterGroup
from seewhy.contract.weights import data_path, hashed_header
from seewhy.errors import ArgumentError, OutputError
from seewhy.methods.registry import find_method
from seewhy.runtime.graph_pruning import prune
from seewhy.runtime.model_file import ModelFile
from seewhy.storage.model_publishing import owns_weights, publish
from seewhy.storage.output_folder import Folder

# Position of each tensor in the file of weights, in bytes, so that it can be read without a copy.
_ALIGNMENT = 64


def cut(
    model: str | os.PathLike[str],
    output: str | os.PathLike[str],
    methods: str | Sequence[str] = (),
    outputs: str | Sequence[str] = (),
) -> Path:
    """Write a model file that holds only what some methods need, with metadata that describes it.

    It computes the same numbers as the original, and programs that run it directly with onnxruntime are faster, because
    onnxruntime computes every node of a graph.

    Args:
        model: Path of the model file. It is not changed.
        output: Path of the new model file. Large weights go to the file `OUTPUT.data` beside it.
        methods: Name of a method, or a list of names.
        outputs: Further outputs of the graph to keep, such as `gradcam_map`; `logits` is always kept.

    Returns:
        Path of the new file.

    Raises:
        ArgumentError: If neither methods nor outputs are given, or the file lacks an output.
        MethodError: If a method is unknown, or the file lacks an output that it needs.
        ModelFileError: If the model file is missing, damaged or not valid.
        OutputError: If the new file cannot be written, or would replace the original.
    """
    path = Path(checks.path("output", output))
    file = ModelFile.read(checks.path("model", model))
    named, extra = _names("methods", methods), _names("outputs", outputs)
    if not named and not extra:
        raise ArgumentError("give the methods that the new file must serve, or the outputs that it must keep")
    for name in extra:
        checks.one_of("outputs", name, contract.OUTPUTS)
        if name not in file.outputs:
            raise ArgumentError(
                f"{file.name} has no output {name}, only {', '.join(file.outputs)}; export the network again and list "
                f"it in --outputs"
            )
    found = [find_method(name, file.outputs, file.name, file.metadata.cut_from) for name in named]
    needed = {contract.LOGITS, *extra, *(name for method in found for name in method.outputs)}
    kept = [name for name in file.outputs if name in needed]
    _check_destination(path, file)
    pruned = prune(file.proto, kept)
    arrays = {tensor.name: _values(tensor, file.weights) for tensor in pruned.graph.initializer}
    metadata = _metadata(file, kept, named, pruned.graph, arrays)
    parts, external = _store(pruned.graph, arrays, f"{path.name}.data")
    _write(path, pruned, replace(metadata, external_data=external), parts)
    return path


def _names(argument: str, value: Any) -> tuple[str, ...]:
    """Return one name or a list of names as a tuple without repetitions."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"{argument} must be a name or a list of names, not {brief(value)}")
    return tuple(dict.fromkeys(names))


def _check_destination(path: Path, file: ModelFile) -> None:
    """Raise an OutputError if the new file would replace the original, its weights, or something other than a file."""
    if not path.name:
        raise OutputError(f"{path}: is not the name of a file; give the output a name")
    weights = (file.metadata.external_data or {}).get("file")
    for original in (file.path, *([] if weights is None else [file.path.with_name(weights)])):
        for own in (path, data_path(path)):
            if own.exists() and own.samefile(original):
                raise OutputError(f"{own}: would replace the original model file; give the output another name")
    if os.path.lexists(path) and not path.is_file():
        raise OutputError(f"{path}: is not a file; give the output another name")
    if os.path.lexists(data := data_path(path)) and not owns_weights(path):
        raise OutputError(
            f"{data}: would be replaced, but is not the weights file of a SeeWhy model {path.name}; move it, or give "
            f"the output another name"
        )


def _values(tensor: TensorProto, weights: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return the values of an initializer, which may be stored beside the model file."""
    return weights[tensor.name] if tensor.name in weights else numpy_helper.to_array(tensor)


def _metadata(
    file: ModelFile,
    kept: Collection[str],
    methods: Sequence[str],
    graph: onnx.GraphProto,
    arrays: Mapping[str, NDArray[Any]],
) -> Metadata:
    """Return the metadata of the new file: that of the original, without what is no longer true."""
    old = file.metadata
    original = old.cut_from or {"file": file.name, "sha256": file.sha256}
    return replace(
        old,
        model=replace(old.model, weights_sha256=_weights_sha256(graph, arrays)),
        layer=_layer(old.layer, kept, {name for node in graph.node for name in node.output}),
        parity={name: errors for name, errors in old.parity.items() if name in kept},
        cut_from={**original, "methods": list(methods)},
        parameters=_parameters(old.parameters, arrays),
    )


def _parameters(groups: Sequence[ParameterGroup] | None, weights: Collection[str]) -> tuple[ParameterGroup, ...] | None:
    """Return the parameters that the new graph still has; None if the original file lists none."""
    if groups is None:
        return None
    found = (replace(one, tensors=tuple(name for name in one.tensors if name in weights)) for one in groups)
    return tuple(group for group in found if group.tensors)


def _layer(layer: Layer | None, kept: Collection[str], values: Collection[str]) -> Layer | None:
    """Return the target layer of the new graph, or None if no output depends on it."""
    if layer is None or not {contract.ACTIVATIONS, contract.GRADIENTS, contract.GRADCAM_MAP} & set(kept):
        return None
    return layer if layer.cut in values else replace(layer, separates=False, cut=None)


def _weights_sha256(graph: onnx.GraphProto, arrays: Mapping[str, NDArray[Any]]) -> str:
    """Return the SHA-256 of name, type, shape and little-endian values of every initializer, in order."""
    digest = hashlib.sha256()
    for tensor in graph.initializer:
        array = arrays[tensor.name]
        kind = TensorProto.DataType.Name(tensor.data_type)
        digest.update(hashed_header(tensor.name, kind, array.shape))
        digest.update(_little_endian(array))
    return digest.hexdigest()


def _little_endian(array: NDArray[Any]) -> memoryview:
    """Return the bytes of an array in row-major order, without a copy if possible."""
    plain = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
    return plain.reshape(-1).view(np.uint8).data


def _store(
    graph: onnx.GraphProto, arrays: Mapping[str, NDArray[Any]], name: str
) -> tuple[list[bytes | memoryview], dict[str, str] | None]:
    """Move weights into the graph, or large ones to a second file if the model would be too large for one.

    Args:
        graph: The graph, whose initializers are changed.
        arrays: Values of its initializers by name.
        name: Name of the second file.

    Returns:
        The parts of the second file and its entry in the metadata, or an empty list and None if there is none.
    """
    outside = sum(array.nbytes for array in arrays.values()) > contract.EXTERNAL_DATA_THRESHOLD
    parts: list[bytes | memoryview] = []
    position, digest = 0, hashlib.sha256()
    for tensor in graph.initializer:
        array = arrays[tensor.name]
        if outside and array.nbytes >= contract.SMALLEST_EXTERNAL_TENSOR:
            padding = bytes(-position % _ALIGNMENT)
            data = _little_endian(array)
            _clear(tensor)
            tensor.data_location = TensorProto.EXTERNAL
            entries = {"location": name, "offset": position + len(padding), "length": len(data)}
            for key, value in entries.items():
                tensor.external_data.add(key=key, value=str(value))
            for part in (padding, data):
                parts.append(part)
                digest.update(part)
                position += len(part)
        elif tensor.data_location == TensorProto.EXTERNAL:
            _clear(tensor)
            tensor.raw_data = bytes(_little_endian(array))
    return parts, {"file": name, "sha256": digest.hexdigest()} if parts else None


def _clear(tensor: TensorProto) -> None:
    """Remove the values of a tensor; name, type and shape stay."""
    name, kind, shape = tensor.name, tensor.data_type, list(tensor.dims)
    tensor.Clear()
    tensor.name, tensor.data_type = name, kind
    tensor.dims.extend(shape)


def _write(path: Path, model: onnx.ModelProto, metadata: Metadata, parts: Sequence[bytes | memoryview]) -> None:
    """Write a model file and its weights file, both or neither."""
    helper.set_model_props(model, {**metadata.to_properties(), contract.DIGEST_KEY: contract.DIGEST_PLACEHOLDER})
    content = seal(model.SerializeToString())
    Folder(path.parent)
    try:
        with tempfile.TemporaryDirectory(prefix=".seewhy-", dir=path.parent) as staging:
            folder = Folder(staging)
            if parts:
                folder.rewrite(PurePath(data_path(path).name), parts)
            folder.rewrite(PurePath(path.name), [content])
            publish(folder.path / path.name, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror or error}") from None
