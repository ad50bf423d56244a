"""Registry of named entries: the part that methods and metrics have in common.

A user's own method or metric is one file that registers it, or a package that names it as an entry point. Entry points
are loaded if a name is unknown or if all names are listed.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from seewhy._shared.suggestions import did_you_mean
from seewhy._shared.text import brief, first_line
from seewhy.errors import ArgumentError
from seewhy.methods.options import Option

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

_MODULES = ("seewhy.methods.registry", "seewhy.metrics.registry")
"""Modules whose registries share their names. They are above this one, and therefore imported by name when needed."""

NAME = re.compile(r"[a-z0-9]([a-z0-9+-]{0,38}[a-z0-9+])?")
"""Pattern of names."""

_registries: list[Registry[Any]] = []


class Named(Protocol):
    """Fields that a method and a metric have in common."""

    @property
    def name(self) -> str:
        """Name in Python and on the command line."""

    @property
    def title(self) -> str:
        """Name in figures and tables."""

    @property
    def reference(self) -> str:
        """Paper and equation."""

    @property
    def options(self) -> tuple[Option, ...]:
        """Options that a user can set."""


Entry = TypeVar("Entry", bound=Named)


class Registry(Generic[Entry]):
    """Methods or metrics by name: built-in ones, those of plugins and those of installed packages.

    Args:
        kind: `method` or `metric`, for messages.
        type_: Type of the entries.
        error: Class of the errors about unknown names.
        validate: Function that raises an `ArgumentError` if the further fields of an entry are not valid.
        reserved: Names that no entry can have.
        built_in: The built-in entries.
    """

    def __init__(
        self,
        kind: str,
        type_: type[Entry],
        error: type[ArgumentError],
        validate: Callable[[Entry], None],
        reserved: Sequence[str],
        built_in: Iterable[Entry],
    ) -> None:
        self.kind = kind
        self.entries: dict[str, Entry] = {}
        """All entries that are registered in this process, by name."""
        self.origins: dict[str, Mapping[str, Any]] = {}
        """Origin of each entry that is not built in, as `run.json` records it."""
        self._type, self._error, self._validate, self._reserved = type_, error, validate, reserved
        self._loaded: set[tuple[str, str]] = set()
        for entry in built_in:
            self._check(entry)
            self.entries[entry.name] = entry
        _registries.append(self)

    def register(self, entry: Entry, replace: bool) -> Entry:
        """Register an entry of the module that calls.

        Args:
            entry: The method or metric.
            replace: Whether an entry of the same name that was registered before is replaced.

        Returns:
            The same entry.

        Raises:
            ArgumentError: If the entry is not valid, or its name is taken by a method or a metric.
        """
        function = getattr(entry, "rule", getattr(entry, "measure", None))
        return self._register(entry, {"module": getattr(function, "__module__", None)}, replace)

    def _register(self, entry: Entry, origin: Mapping[str, Any], replace: bool = False) -> Entry:
        self._check(entry)
        name = entry.name
        for other in registries():
            if name in other.entries and (other is not self or not replace or name not in self.origins):
                replaceable = other is self and name in self.origins
                hint = "choose another name" + (", or register with replace=True" if replaceable else "")
                raise ArgumentError(f"a {other.kind} named {name} exists already; {hint}")
        self.entries[name] = entry
        self.origins[name] = origin
        return entry

    def _check(self, entry: Entry) -> None:
        kind = self.kind
        if not isinstance(entry, self._type):
            raise ArgumentError(f"register_{kind} takes a seewhy.{self._type.__name__}, not {brief(entry)}")
        name = entry.name
        if not isinstance(name, str) or not NAME.fullmatch(name) or name in self._reserved:
            raise ArgumentError(
                f"the name of a {kind} consists of at most 40 lower-case letters, digits, + and -, such as "
                f"'my-{kind}', and is not {' or '.join(map(repr, self._reserved))}; it is {brief(name)}"
            )
        if not isinstance(entry.title, str) or not entry.title.isprintable():
            raise ArgumentError(f"the title of {kind} {name} must be a printable text, not {brief(entry.title)}")
        if not isinstance(entry.reference, str):
            raise ArgumentError(f"the reference of {kind} {name} must be a text, not {brief(entry.reference)}")
        if not isinstance(entry.options, tuple) or not all(isinstance(option, Option) for option in entry.options):
            raise ArgumentError(
                f"the options of {kind} {name} must be a tuple of seewhy.Option, not {brief(entry.options)}"
            )
        self._validate(entry)

    def unregister(self, names: Iterable[str]) -> None:
        """Remove entries, except built-in ones."""
        for name in names:
            if name in self.origins:
                del self.entries[name], self.origins[name]

    def restore(self, entries: Mapping[str, Entry], origins: Mapping[str, Mapping[str, Any]]) -> None:
        """Put back entries and origins that were copied before."""
        self.entries.clear()
        self.entries.update(entries)
        self.origins.clear()
        self.origins.update(origins)

    def names(self) -> list[str]:
        """Return all names, for `list_methods` and `list_metrics`.

        Returns:
            Names of the built-in entries, then the others in the order of their registration.

        Raises:
            ArgumentError: If the entry points of an installed package cannot be loaded.
        """
        self._load_entry_points()
        return list(self.entries)

    def find(self, name: Any) -> Entry:
        """Find an entry by its name.

        Args:
            name: What the user gave.

        Returns:
            The entry.

        Raises:
            ArgumentError: If there is none, or the entry points of an installed package cannot be loaded.
        """
        if not isinstance(name, str) or name not in self.entries:
            known = self.names()
            if not isinstance(name, str) or name not in self.entries:
                raise self._error(self._unknown(name, known))
        return self.entries[name]

    def list_of_names(self, names: Any) -> Sequence[Any]:
        """Return one name, or a list of names, as a list."""
        given = [names] if isinstance(names, str) else names
        if not isinstance(given, (list, tuple)):
            raise self._error(f"{self.kind} must be a name or a list of names, not {brief(names)}")
        return given

    def options_by_name(self, names: Sequence[str], options: Any) -> Mapping[str, Any]:
        """Return the options by entry, all of which must be for one of `names`.

        Args:
            names: Names of the entries that are used.
            options: What the user gave: a mapping, or None for no options.

        Returns:
            The mapping.

        Raises:
            ArgumentError: If the options are no mapping, or are for an entry that is unknown or not used.
        """
        given = {} if options is None else options
        if not isinstance(given, Mapping):
            raise self._error(f"options must be a dict of {self.kind}s and their options, not {brief(given)}")
        for name in given:
            if name not in self.entries:
                unknown = self._unknown(name, self.names())
                raise self._error(f"options are given for a {self.kind} that does not exist. {unknown}")
            if name not in names:
                raise self._error(f"options are given for {name}, but the {self.kind}s are {', '.join(names)}")
        return given

    def _unknown(self, name: Any, known: Collection[str]) -> str:
        kind, text = self.kind, brief(name)
        if isinstance(name, str) and "," in name and all(part.strip() in known for part in name.split(",")):
            return f"Unknown {kind} {text}: give each {kind} by itself, as a list or with --{kind} once for each"
        hint = did_you_mean(name, known)
        return f"Unknown {kind} {text}.{hint or f' Known {kind}s: ' + ', '.join(known)}"

    def _load_entry_points(self) -> None:
        """Register the entries of installed packages, each once."""
        from importlib.metadata import entry_points  # takes long to import, and built-in names need none

        for point in entry_points(group=f"seewhy.{self.kind}s"):
            key = (point.name, point.value)
            if key not in self._loaded:
                self._load(point)
                self._loaded.add(key)

    def _load(self, point: EntryPoint) -> None:
        package = "unknown" if point.dist is None else f"{point.dist.name} {point.dist.version}"
        try:
            loaded = point.load()
            for entry in loaded if isinstance(loaded, (list, tuple)) else [loaded]:
                # A module that registers its entries itself has already done so during its import.
                if not isinstance(entry, self._type) or self.entries.get(entry.name) is not entry:
                    self._register(entry, {"package": package})
                else:
                    self.origins[entry.name] = {"package": package}
        except Exception as error:
            raise self._error(
                f"the {self.kind}s of the installed package {package} (entry point {point.name}) cannot be loaded: "
                f"{type(error).__name__}: {first_line(error)}; repair or uninstall the package"
            ) from error


def registries() -> Sequence[Registry[Any]]:
    """Return the registries of methods and of metrics, importing both.

    `METHOD.NAME` and `METRIC.NAME` name options alike, so an entry of a user is compared with both.
    """
    for module in _MODULES:
        importlib.import_module(module)
    return _registries
