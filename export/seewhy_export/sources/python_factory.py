"""`package.module:factory`: a function of the user's that makes the network."""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import replace

from torch import nn

from seewhy.errors import ExportError, MissingExtraError
from seewhy_export._shared.messages import one_line
from seewhy_export.sources.source import Source, Wanted


def load_factory(spec: str, wanted: Wanted) -> Source:
    """Import the module that `spec` names, and call its function, which gives a `Source` or an `nn.Module`.

    Raises:
        ExportError: there is no such function, it failed, or it gave something else.
    """
    module_name, _, attribute = spec.partition(":")
    if wanted.class_count is not None:
        raise ExportError(f"{spec}: the function itself says how many classes there are; leave --classes out")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        factory = getattr(importlib.import_module(module_name), attribute, None)
    except ModuleNotFoundError as error:
        raise ExportError(f"{spec}: no module named {error.name!r}") from error
    except (Exception, SystemExit) as error:  # a script that parses its arguments as it is imported
        raise ExportError(f"{spec}: importing {module_name} failed: {one_line(error)}") from error
    if not callable(factory):
        raise ExportError(f"{spec}: {module_name} has no function {attribute!r}")
    try:
        made = factory()
    except (ExportError, MissingExtraError):
        raise
    except (Exception, SystemExit) as error:
        raise ExportError(f"{spec}: calling {attribute}() failed: {one_line(error)}") from error
    source = made if isinstance(made, Source) else Source(made)
    if not isinstance(source.module, nn.Module):
        raise ExportError(
            f"{spec}: it gave {type(made).__name__}; a torch.nn.Module or a seewhy_export.Source is needed"
        )
    source = source if wanted.channels is None else replace(source, channels=wanted.channels)
    return source if source.name is not None else replace(source, name=attribute)
