"""Remove what tests registered."""

from __future__ import annotations

from seewhy.methods.registry_base import registries


def unregister_all() -> None:
    """Remove all methods and metrics that are not built in."""
    for registry in registries():
        registry.unregister(list(registry.origins))
