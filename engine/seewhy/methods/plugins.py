"""Plugins: Python files of a user that register methods."""

from __future__ import annotations

import hashlib
import os
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from seewhy._shared import checks
from seewhy._shared.regular_files import open_regular
from seewhy._shared.text import first_line, short
from seewhy.errors import MethodError, OutputError, SeewhyError
from seewhy.methods.registry import METHODS, forget, origins

_LARGEST = 16 * 2**20
"""Maximum size of a plugin, in bytes."""


@dataclass(frozen=True)
class Plugin:
    """A Python file that registers methods."""

    name: str
    """Name of the file, without folders."""
    content: bytes
    """The file's bytes."""

    @property
    def sha256(self) -> str:
        """SHA-256 of the file's bytes, as 64 hexadecimal digits."""
        return hashlib.sha256(self.content).hexdigest()

    def load(self) -> None:
        """Run the file, unless the same bytes ran in this process before; what it registered before is replaced.

        Raises:
            MethodError: If the file fails, or registers no method.
        """
        origin = {"plugin": self.name, "sha256": self.sha256}
        if origin in origins.values():
            return
        known = dict(METHODS)
        replaced = [name for name, other in origins.items() if other.get("plugin") == self.name]
        forget(replaced)
        module = ModuleType(f"seewhy_plugin_{Path(self.name).stem}")
        try:
            exec(compile(self.content, self.name, "exec"), module.__dict__)
        except BaseException as error:
            forget(set(METHODS) - set(known))
            if isinstance(error, (KeyboardInterrupt, SystemExit, MemoryError)) and not isinstance(error, SystemExit):
                raise
            raise MethodError(f"plugin {short(self.name)}{_line(error, self.name)}: {_reason(error)}") from error
        registered = [name for name, method in METHODS.items() if known.get(name) is not method]
        if not registered:
            raise MethodError(
                f"plugin {short(self.name)} registers no method; it must call seewhy.register_method(...)"
            )
        for name in registered:
            origins[name] = origin


def read_plugin(path: str | os.PathLike[str]) -> Plugin:
    """Read a plugin without running it.

    Raises:
        ArgumentError: If the path is not a path.
        OutputError: If the file cannot be read, or is larger than 16 MiB.
    """
    path = checks.path("a plugin", path)
    try:
        with open_regular(path) as file:
            content = file.read(_LARGEST + 1)
    except OSError as error:
        raise OutputError(f"{short(path)}: the plugin cannot be read: {error.strerror or error}") from None
    if len(content) > _LARGEST:
        raise OutputError(f"{short(path)}: the plugin is larger than {_LARGEST} bytes")
    return Plugin(Path(path).name, content)


def load_plugin(path: str | os.PathLike[str]) -> Plugin:
    """Read a plugin and run it, so that its methods are registered.

    A plugin is code with all rights of the user who runs it. Only load files that you trust.

    Args:
        path: A Python file that calls `seewhy.register_method`.

    Returns:
        The plugin.

    Raises:
        ArgumentError: If the path is not a path.
        MethodError: If the file fails, or registers no method.
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
