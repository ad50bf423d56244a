"""Plugins: Python files that register methods and metrics of a user."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from seewhy._shared import checks
from seewhy._shared.regular_files import open_regular
from seewhy._shared.text import first_line, short
from seewhy.errors import MethodError, OutputError, SeewhyError
from seewhy.methods.registry_base import Registry, registries

_MAX_BYTES = 16 * 2**20
"""Maximum size of a plugin, in bytes."""

_registered: dict[str, list[tuple[Registry[Any], str]]] = {}
"""Methods and metrics that each plugin registered, by its path."""


@dataclass(frozen=True)
class Plugin:
    """A Python file that registers methods or metrics."""

    path: str
    """Path of the file. Loading it again replaces what it registered before."""
    content: bytes
    """The file's bytes."""

    @property
    def name(self) -> str:
        """Name of the file without its folder."""
        return Path(self.path).name

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, as 64 hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()

    def load(self) -> None:
        """Run the file, unless the same content has run in this process before.

        Methods and metrics that an earlier version of the file registered are replaced.

        Raises:
            MethodError: If the file fails, or registers no method or metric.
        """
        origin = {"plugin": self.name, "sha256": self.sha256}
        if any(origin in one.origins.values() for one in registries()):
            return
        with _restored_on_failure():
            for registry, name in _registered.get(self.path, ()):
                registry.unregister([name])
            known = [(one, dict(one.entries)) for one in registries()]
            self._run()
            found = [
                (registry, name)
                for registry, before in known
                for name, entry in registry.entries.items()
                if before.get(name) is not entry
            ]
            if not found:
                raise MethodError(
                    f"plugin {short(self.name)} registers no method or metric; it must call "
                    f"seewhy.register_method(...) or seewhy.register_metric(...)"
                )
        for registry, name in found:
            registry.origins[name] = origin
        _registered[self.path] = found

    def _run(self) -> None:
        module = ModuleType(f"seewhy_plugin_{Path(self.name).stem}")
        try:
            exec(compile(self.content, self.name, "exec"), module.__dict__)
        except (KeyboardInterrupt, MemoryError):
            raise
        except BaseException as error:  # SystemExit is a mistake of the plugin, too
            raise MethodError(f"plugin {short(self.name)}{_line(error, self.name)}: {_reason(error)}") from error


@contextmanager
def _restored_on_failure() -> Iterator[None]:
    """Put the registries back as they were if the body fails, so that nothing is lost or half replaced."""
    before = [(one, dict(one.entries), dict(one.origins)) for one in registries()]
    try:
        yield
    except BaseException:
        for registry, entries, origins in before:
            registry.restore(entries, origins)
        raise


def read_plugin(path: str | os.PathLike[str]) -> Plugin:
    """Read a plugin without running it.

    Args:
        path: Path of the file.

    Returns:
        The plugin.

    Raises:
        ArgumentError: If the path is not a path.
        OutputError: If the file cannot be read, or is larger than 16 MiB.
    """
    path = checks.path("a plugin", path)
    try:
        with open_regular(path) as file:
            content = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise OutputError(f"{short(path)}: the plugin cannot be read: {error.strerror or error}") from None
    if len(content) > _MAX_BYTES:
        raise OutputError(f"{short(path)}: the plugin has more than {_MAX_BYTES} bytes, the maximum")
    return Plugin(os.path.abspath(path), content)


def load_plugin(path: str | os.PathLike[str]) -> Plugin:
    """Read a plugin and run it, so that its methods and metrics are registered.

    A plugin is code with all rights of the user who runs it. Only load files that you trust.

    Args:
        path: A Python file that calls `seewhy.register_method` or `seewhy.register_metric`.

    Returns:
        The plugin.

    Raises:
        ArgumentError: If the path is not a path.
        MethodError: If the file fails, or registers no method or metric.
        OutputError: If the file cannot be read.
    """
    plugin = read_plugin(path)
    plugin.load()
    return plugin


def _reason(error: BaseException) -> str:
    return str(error) if isinstance(error, SeewhyError) else f"{type(error).__name__}: {first_line(error)}"


def _line(error: BaseException, name: str) -> str:
    """Return the line of the plugin in which the error was raised, for messages."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == name]
    return f", line {lines[-1]}" if lines else ""
