"""Errors of libraries that download weights, in our words."""

from __future__ import annotations

from collections.abc import Callable

from torch import nn

from seewhy.errors import ExportError, SeewhyError
from seewhy_export._shared.messages import one_line


def build_with_weights(spec: str, build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with a function of another library.

    Args:
        spec: Source to name in error messages.
        build: Function of a library that builds a network, and may download its weights.

    Returns:
        The network that `build` returns.

    Raises:
        ExportError: If `build` fails, most often because a download fails.
    """
    try:
        return build()
    except SeewhyError:
        raise
    except Exception as error:
        # Model hubs raise many types: URLError, HfHubHTTPError, RuntimeError for a wrong hash.
        raise ExportError(
            f"{spec}: cannot be built: {one_line(error)}; give --weights FILE, or --weights none for random weights"
        ) from error
