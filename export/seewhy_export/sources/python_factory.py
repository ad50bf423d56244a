"""`package.module:factory`: a function of the user that returns the network."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import replace

from torch import nn

from seewhy._shared.suggestions import did_you_mean
from seewhy.errors import ExportArgumentError, ExportError, MissingExtraError
from seewhy_export._shared.messages import one_line
from seewhy_export.sources.source import Source, SourceRequest


def load_factory(spec: str, request: SourceRequest) -> Source:
    """Import the module that `spec` names and call its function.

    Args:
        spec: `package.module:factory`. The function takes no arguments and returns a `Source` or a `torch.nn.Module`.
        request: What the user requests.

    Returns:
        The function's `Source`, or a `Source` with its module.

    Raises:
        ExportError: If the function does not exist, fails or returns something else.
    """
    module_name, _, attribute = spec.partition(":")
    if request.class_count is not None:
        raise ExportArgumentError(f"{spec}: the function defines the number of classes; leave --classes out")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise ExportArgumentError(f"{spec}: no module named {error.name!r}") from error
    except (Exception, SystemExit) as error:  # a script may call sys.exit() while it is imported
        raise ExportError(f"{spec}: importing {module_name} failed: {one_line(error)}") from error
    factory = getattr(module, attribute, None)
    if not callable(factory):
        functions = [name for name, value in vars(module).items() if callable(value) and not name.startswith("_")]
        raise ExportArgumentError(
            f"{spec}: {module_name} has no function {attribute!r}.{did_you_mean(attribute, functions)}"
        )
    try:
        result = factory()
    except (ExportError, MissingExtraError):
        raise
    except (Exception, SystemExit) as error:
        raise ExportError(f"{spec}: calling {attribute}() failed: {one_line(error)}") from error
    source = result if isinstance(result, Source) else Source(result)
    if not isinstance(source.module, nn.Module):
        raise ExportError(
            f"{spec}: the function must return a torch.nn.Module or a seewhy_export.Source, not {type(result).__name__}"
        )
    source = source if request.channels is None else replace(source, channels=request.channels)
    return source if source.name is not None else replace(source, name=attribute)
