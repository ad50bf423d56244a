"""Cut a model file down to the outputs that some methods need."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from seewhy._shared import checks
from seewhy._shared.text import brief
from seewhy.contract import constants as contract
from seewhy.errors import ArgumentError
from seewhy.explainer.derived_models import check_destination, derived_metadata, write_model
from seewhy.methods.registry import find_method
from seewhy.runtime.graph_pruning import prune
from seewhy.runtime.model_file import ModelFile


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
    found = [find_method(name, file.outputs, file.name, file.metadata) for name in named]
    needed = {contract.LOGITS, *extra, *(name for one in found for name in one.all_outputs)}
    kept = [name for name in file.outputs if name in needed]
    check_destination(path, file)
    pruned = prune(file.proto, kept)
    arrays = file.values(tensor.name for tensor in pruned.graph.initializer)
    origin = {**(file.metadata.cut_from or {"file": file.name, "sha256": file.sha256}), "methods": list(named)}
    write_model(path, pruned, replace(derived_metadata(file, kept, pruned.graph, arrays), cut_from=origin), arrays)
    return path


def _names(argument: str, value: Any) -> tuple[str, ...]:
    """Return one name or a list of names as a tuple without repetitions."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(name, str) for name in names):
        raise ArgumentError(f"{argument} must be a name or a list of names, not {brief(value)}")
    return tuple(dict.fromkeys(names))
