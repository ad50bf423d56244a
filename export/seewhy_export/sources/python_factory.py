"""`package.module:factory`: a function of the user that returns the network."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath
from types import ModuleType
from typing import Any

from torch import nn

from seewhy._shared.suggestions import did_you_mean
from seewhy.errors import ExportArgumentError, ExportError, MissingExtraError
from seewhy_export._shared.messages import one_line
from seewhy_export.sources.argument_forms import as_labels, as_preprocessing
from seewhy_export.sources.source import Source, SourceRequest


def load_factory(spec: str, request: SourceRequest) -> Source:
    """Import the module that `spec` names and call its function.

    Args:
        spec: `package.module:factory`. The function takes no arguments and returns a `Source` or a `torch.nn.Module`.
            A `Source` or a `torch.nn.Module` that the Python module itself defines is used as it is.
        request: What the user requests.

    Returns:
        The function's `Source`, or a `Source` with its module.

    Raises:
        ExportError: If the function does not exist, needs arguments, fails or returns something else.
    """
    module_name, _, attribute = spec.partition(":")
    if request.class_count is not None:
        raise ExportArgumentError(f"{spec}: the function defines the number of classes; leave --classes out")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    factory = _find(spec, _import(spec, module_name, attribute), attribute)
    result = factory if isinstance(factory, (nn.Module, Source)) else _call(spec, factory, attribute)
    source = result if isinstance(result, Source) else Source(result)
    if not isinstance(source.module, nn.Module):
        raise ExportError(
            f"{spec}: the function must return a torch.nn.Module or a seewhy_export.Source, not "
            f"{_describe(source.module)}"
        )
    notes = []
    if not isinstance(result, Source) and request.weights == "DEFAULT":
        notes.append(f"the weights are those that {spec} returned; load a checkpoint with --weights FILE")
    if not isinstance(result, Source) and request.image_size is None:
        height, width = source.image_size
        notes.append(
            f"{spec} does not define the input size; {height}x{width} pixels are assumed; set another with --size"
        )
    source = replace(source, notes=(*source.notes, *notes))
    preprocessing, image_size = as_preprocessing(source.preprocessing, source.image_size)
    source = replace(source, labels=as_labels(source.labels), preprocessing=preprocessing, image_size=image_size)
    source = source if request.channels is None else replace(source, channels=request.channels)
    return source if source.name is not None else replace(source, name=attribute)


def _import(spec: str, name: str, attribute: str) -> ModuleType:
    """Import a Python module by its name."""
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        raise ExportArgumentError(f"{spec}: {name!r} is not the name of a Python module; {_as_name(name, attribute)}")
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # a script may call sys.exit() while it is imported
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        if missing is not None and f"{name}.".startswith(f"{missing}."):
            raise ExportArgumentError(
                f"{spec}: no module named {missing!r} in the current folder or among the installed packages"
            ) from error
        raise ExportError(f"{spec}: importing {name} failed: {one_line(error)}") from error


def _as_name(path: str, attribute: str) -> str:
    """Return what to write for the path of a Python file, such as `models/pets.py`."""
    pure = PurePath(path.replace("\\", "/"))
    folder = pure.parent.as_posix()
    name = f"{pure.stem if pure.suffix == '.py' else pure.name}:{attribute}"
    inside = [part for part in pure.parent.parts if part != "."]
    if pure.is_absolute() or not all(part.isidentifier() for part in inside):
        return f"run the command in {folder} and write {name}"
    if not name.partition(":")[0].isidentifier():
        return "write package.module:factory, for example pets:network for the function network in pets.py"
    return f"write {'.'.join([*inside, name])}"


def _find(spec: str, module: ModuleType, attribute: str) -> Any:
    """Return what a Python module defines under a name, if it can be called."""
    found = getattr(module, attribute, None)
    if callable(found) or isinstance(found, Source):
        return found
    if isinstance(found, ModuleType) or _is_submodule(module, attribute):
        raise ExportArgumentError(
            f"{spec}: {attribute} is a module of the package {module.__name__}; name a function in it: "
            f"{module.__name__}.{attribute}:FUNCTION"
        )
    functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
    value = f"; {attribute} is {_describe(found)}" if found is not None else ""
    raise ExportArgumentError(
        f"{spec}: {module.__name__} has no function {attribute!r}{value}.{did_you_mean(attribute, functions)}"
    )


def _is_submodule(package: ModuleType, name: str) -> bool:
    """Tell whether a package has a module of this name, which is not imported yet."""
    return any(Path(folder, f"{name}.py").is_file() for folder in getattr(package, "__path__", ()))


def _call(spec: str, factory: Any, name: str) -> Any:
    """Call the user's function, which must need no arguments."""
    try:
        required = [
            parameter.name
            for parameter in inspect.signature(factory).parameters.values()
            if parameter.default is parameter.empty
            and parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
    except (TypeError, ValueError):  # some functions in C have no signature
        required = []
    if required:
        raise ExportArgumentError(
            f"{spec}: {name}() requires arguments ({', '.join(required)}), and is called without any; give them "
            f"default values, or name a function that calls {name} with its arguments"
        )
    try:
        return factory()
    except (ExportError, MissingExtraError):
        raise
    except (Exception, SystemExit) as error:
        raise ExportError(f"{spec}: calling {name}() failed: {one_line(error)}") from error


def _describe(value: Any) -> str:
    """Return the type of a value in the terms of an error message, with a remedy where one is known."""
    if isinstance(value, type):
        return f"the class {value.__name__}; return an instance, {value.__name__}(...)"
    if isinstance(value, Mapping):
        return f"{type(value).__name__}; weights alone are not enough, so load them into their network and return that"
    return "None; does it lack a return statement?" if value is None else type(value).__name__
