"""Weights that a source's library fetches."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from seewhy.errors import ExportError
from seewhy_export._shared.messages import one_line


def own_weights(spec: str, make: Callable[[], nn.Module]) -> nn.Module:
    """What `make` returns.

    Raises:
        ExportError: it failed, most often because a download did.
    """
    try:
        return make()
    except Exception as error:
        # Hubs raise their own kinds: URLError, HfHubHTTPError, RuntimeError for a wrong hash.
        raise ExportError(
            f"{spec} cannot be made: {one_line(error)}; give --weights FILE, or --weights none for random ones"
        ) from error
