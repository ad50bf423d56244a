"""Plugins: Python files that register methods of a user."""

from __future__ import annotations

import hashlib
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from seewhy._shared import checks
from seewhy._shared.regular_files import open_regular
from seewhy._shared.text import first_line, short
from seewhy.errors import MethodError, OutputError, SeewhyError
from seewhy.methods.registry import METHODS, origins, unregister_methods

_MAX_BYTES = 16 * 2**20
"""Maximum size of a plugin, in bytes."""

_registered: dict[str, list[str]] = {}
"""Methods that each plugin registered, by its path."""


@dataclass(frozen=True)
class Plugin:
    """A Python file that registers methods."""

    path: str
    """Path of the file. Loading it again replaces the methods that it registered before."""
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

        Methods that an earlier version of the file registered are replaced.

        Raises:
            MethodError: If the file fails, or registers no method.
        """
        origin = {"plugin": self.name, "sha256": self.sha256}
        if origin in origins.values():
            return
        with _restored_on_failure():
            unregister_methods(_registered.get(self.path, ()))
            known = dict(METHODS)
            self._run()
            names = [name for name, method in METHODS.items() if known.get(name) is not method]
            if not names:
                raise MethodError(
                    f"plugin {short(self.name)} registers no method; it must call seewhy.register_method(...)"
                )
        origins.update(dict.fromkeys(names, origin))
        _registered[self.path] = names

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
    """Put the registry back as it was if the body fails, so that no method is lost or half replaced."""
    methods, known_origins = dict(METHODS), dict(origins)
    try:
        yield
    except BaseException:
        METHODS.clear()
        METHODS.update(methods)
        origins.clear()
        origins.update(known_origins)
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
