"""Registry of all methods: built-in ones, those of plugins and those of installed packages.

A user's own method is one file that calls `seewhy.register_method`, or a package that names `Method` objects as entry
points of the group `seewhy.methods`. Entry points are loaded if a name is unknown or if all methods are listed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from seewhy._shared import checks
from seewhy._shared.suggestions import did_you_mean
from seewhy._shared.text import brief, first_line, short
from seewhy.contract.constants import CLASS_WEIGHTS, GRADCAM_MAP, LOGITS, OPTIONAL_OUTPUTS, OUTPUTS
from seewhy.errors import ArgumentError, MethodError
from seewhy.methods.built_in import BUILT_IN
from seewhy.methods.method import Method, MethodRequest
from seewhy.methods.multi_pass import MultiPass
from seewhy.methods.options import Option, resolve_options

ENTRY_POINTS = "seewhy.methods"
"""Group of the entry points that name methods."""

METHODS: dict[str, Method] = {}
"""All methods that are registered in this process, by name."""

origins: dict[str, Mapping[str, Any]] = {}
"""Origin of each method that is not built in, as `run.json` records it."""

_NAME = re.compile(r"[a-z0-9]([a-z0-9+-]{0,38}[a-z0-9+])?")
# Names of results that are not of a method, such as NAME.sheet.png.
_RESERVED = frozenset({"sheet"})
_loaded: set[tuple[str, str]] = set()


def register_method(method: Method, *, replace: bool = False) -> Method:
    """Register a method, so that it can be used by its name like the built-in ones.

    Args:
        method: The method.
        replace: Whether a method of the same name that was registered before is replaced, for instance when a cell of
            a notebook runs again. Built-in methods cannot be replaced.

    Returns:
        The same method, so that a module can keep it.

    Raises:
        ArgumentError: If the name, outputs, rule or options of the method are not valid, or the name is taken.
    """
    return _register(method, {"module": getattr(getattr(method, "rule", None), "__module__", None)}, replace)


def _register(method: Method, origin: Mapping[str, Any] | None, replace: bool = False) -> Method:
    """Validate and register a method; `origin` is None for built-in ones."""
    if not isinstance(method, Method):
        raise ArgumentError(f"register_method takes a seewhy.Method, not {brief(method)}")
    name = method.name
    if not isinstance(name, str) or not _NAME.fullmatch(name) or name in _RESERVED:
        raise ArgumentError(
            f"the name of a method consists of at most 40 lower-case letters, digits, + and -, such as 'my-cam', and "
            f"is not 'sheet'; it is {brief(name)}"
        )
    if not isinstance(method.title, str) or not method.title.isprintable():
        raise ArgumentError(f"the title of method {name} must be a printable text, not {brief(method.title)}")
    for field in ("is_map", "rectified"):
        checks.flag(f"{field} of method {name}", getattr(method, field))
    if not isinstance(method.reference, str):
        raise ArgumentError(f"the reference of method {name} must be a text, not {brief(method.reference)}")
    if method.multi_pass is not None and not isinstance(method.multi_pass, MultiPass):
        raise ArgumentError(f"multi_pass of method {name} must be a MultiPass, not {brief(method.multi_pass)}")
    outputs = method.outputs
    if not isinstance(outputs, tuple) or any(
        not isinstance(one, str) or one not in OUTPUTS or one == LOGITS for one in outputs
    ):
        known = ", ".join(output for output in OUTPUTS if output != LOGITS)
        raise ArgumentError(
            f"the outputs of method {name} must be a tuple of names among {known}; {brief(outputs)} is not"
        )
    if not callable(method.rule):
        raise ArgumentError(
            f"the rule of method {name} must be a function of values and context, not {brief(method.rule)}"
        )
    if not isinstance(method.options, tuple) or not all(isinstance(option, Option) for option in method.options):
        raise ArgumentError(
            f"the options of method {name} must be a tuple of seewhy.Option, not {brief(method.options)}"
        )
    if name in METHODS and (not replace or name not in origins):
        hint = "choose another name" if name not in origins else "choose another name, or register with replace=True"
        raise ArgumentError(f"a method named {name} exists already; {hint}")
    METHODS[name] = method
    if origin is not None:
        origins[name] = origin
    return method


for _method in BUILT_IN:
    _register(_method, None)


def unregister_methods(names: Iterable[str]) -> None:
    """Remove methods from the registry, except built-in ones."""
    for name in names:
        if name in origins:
            del METHODS[name], origins[name]


def list_methods() -> list[str]:
    """Return the names of all methods: the built-in ones, those of entry points and those registered so far.

    Returns:
        Names in the order of the table, then in the order of registration.

    Raises:
        MethodError: If an installed package's methods cannot be loaded.
    """
    _load_entry_points()
    return list(METHODS)


def available_methods(outputs: Iterable[str]) -> tuple[str, ...]:
    """Return the names of the methods that a model file with these outputs can serve.

    Args:
        outputs: Outputs that the model file holds.

    Returns:
        Names of the methods.

    Raises:
        MethodError: If an installed package's methods cannot be loaded.
    """
    available = set(outputs)
    return tuple(name for name in list_methods() if available.issuperset(METHODS[name].outputs))


def find_method(name: str, outputs: Collection[str], file: str, cut_from: Mapping[str, Any] | None = None) -> Method:
    """Return the method called `name` for a model file with these outputs.

    Args:
        name: Name of the method.
        outputs: Outputs that the file holds.
        file: Name of the file, for messages.
        cut_from: Model file that the file was cut from, as the metadata describes it; None if it was not cut.

    Returns:
        The method.

    Raises:
        MethodError: If no method has this name, or the file lacks an output that the method needs.
    """
    method = METHODS.get(name) if isinstance(name, str) else None
    if method is None:
        known = list_methods()
        method = METHODS.get(name) if isinstance(name, str) else None
        if method is None:
            raise MethodError(_unknown(name, known))
    missing = [output for output in method.outputs if output not in outputs]
    finished = f"; it holds finished Grad-CAM maps for other programs ({GRADCAM_MAP})" if GRADCAM_MAP in outputs else ""
    if missing and cut_from is not None:
        raise MethodError(
            f"{file}: {name} needs {' and '.join(missing)}, and the file was cut from {short(cut_from['file'])} "
            f"(SHA-256 {cut_from['sha256'][:12]}...) without them{finished}; use that file, or cut it again with "
            f"--method {name}"
        )
    if CLASS_WEIGHTS in missing:
        raise MethodError(
            f"{file}: {name} needs a network that ends in global average pooling and one linear layer, and the file "
            f"holds no {CLASS_WEIGHTS}; use gradcam"
        )
    if missing:
        wanted = {*outputs, *method.outputs} - {LOGITS}
        listed = ",".join(output for output in OUTPUTS if output in wanted)
        # The exporter writes optional outputs only if they are named.
        remedy = "with" if any(output in OPTIONAL_OUTPUTS for output in missing) else "without --outputs, or with"
        raise MethodError(
            f"{file}: {name} needs {' and '.join(missing)}, which the file does not hold{finished}; export it again "
            f"{remedy} --outputs {listed}"
        )
    return method


def resolve_methods(
    methods: str | Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None,
    outputs: Collection[str],
    file: str,
    cut_from: Mapping[str, Any] | None = None,
) -> tuple[MethodRequest, ...]:
    """Resolve names of methods and their options into requests. Each method is kept once, in the given order.

    Args:
        methods: One name, or a list of names.
        options: Options by method and name; None leaves all at their defaults.
        outputs: Outputs that the model file holds.
        file: Name of the file, for messages.
        cut_from: As in `find_method`.

    Returns:
        A request for each method.

    Raises:
        MethodError: If a method is unknown, the file lacks what it needs, or an option is unknown or wrong.
    """
    names = [methods] if isinstance(methods, str) else methods
    if not isinstance(names, (list, tuple)):
        raise MethodError(f"method must be a name or a list of names, not {brief(methods)}")
    if not names:
        raise MethodError(f"no method given; this file can serve {', '.join(available_methods(outputs))}")
    found = [find_method(name, outputs, file, cut_from) for name in names]
    given = {} if options is None else options
    if not isinstance(given, Mapping):
        raise MethodError(f"options must be a dict of methods and their options, not {brief(given)}")
    for name in given:
        if name not in METHODS:
            raise MethodError(f"options are given for a method that does not exist. {_unknown(name, list_methods())}")
        if name not in names:
            raise MethodError(f"options are given for {name}, but the methods are {', '.join(names)}")
    return tuple(
        MethodRequest(method, resolve_options(method.name, method.options, given.get(method.name)))
        for method in dict.fromkeys(found)
    )


def _unknown(name: Any, known: Collection[str]) -> str:
    """Return the message about an unknown name."""
    if isinstance(name, str) and "," in name and all(part.strip() in known for part in name.split(",")):
        return f"Unknown method {brief(name)}: give each method by itself, as a list or with --method once for each"
    hint = did_you_mean(name, known)
    return f"Unknown method {brief(name)}.{hint or ' Known methods: ' + ', '.join(known)}"


def _load_entry_points() -> None:
    """Register the methods of installed packages, each once."""
    for point in entry_points(group=ENTRY_POINTS):
        key = (point.name, point.value)
        if key not in _loaded:
            _load(point)
            _loaded.add(key)


def _load(point: EntryPoint) -> None:
    package = "unknown" if point.dist is None else f"{point.dist.name} {point.dist.version}"
    try:
        loaded = point.load()
        methods = loaded if isinstance(loaded, (list, tuple)) else [loaded]
        for method in methods:
            # A module that registers its methods itself has already done so during its import.
            if not isinstance(method, Method) or METHODS.get(method.name) is not method:
                _register(method, {"package": package})
            else:
                origins[method.name] = {"package": package}
    except Exception as error:
        raise MethodError(
            f"the methods of the installed package {package} (entry point {point.name}) cannot be loaded: "
            f"{type(error).__name__}: {first_line(error)}; repair or uninstall the package"
        ) from error
