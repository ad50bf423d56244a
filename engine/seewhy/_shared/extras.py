"""Errors about optional dependencies that are not installed."""

from __future__ import annotations

from seewhy.errors import MissingExtraError


def missing_extra(problem: str, extra: str) -> MissingExtraError:
    """Build the error for an optional dependency that is not installed.

    SeeWhy is not on a package index, so an extra is installed from its sources.

    Args:
        problem: What cannot be done, or which package is missing.
        extra: Name of the extra in pyproject.toml that installs it.

    Returns:
        The error to raise. Its message says how to install the extra.
    """
    return MissingExtraError(f'{problem}; run: pip install ".[{extra}]" (in a checkout of SeeWhy)')
