"""Registry of all methods: built-in ones, those of plugins and those of installed packages.

A user's own method is one file that calls `seewhy.register_method`, or a package that names `Method` objects as entry
points of the group `seewhy.methods`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from seewhy._shared import checks
from seewhy._shared.text import brief, short
from seewhy.contract.constants import (
    CLASS_WEIGHTS,
    GRADCAM_MAP,
    GRADIENTS_OF_THE_IMAGE,
    LOGITS,
    OPTIONAL_OUTPUTS,
    OUTPUTS,
)
from seewhy.contract.metadata import Metadata
from seewhy.errors import ArgumentError, MethodError
from seewhy.methods.built_in import BUILT_IN
from seewhy.methods.float32_files import use_float32_file
from seewhy.methods.method import REDUCTIONS, Method, MethodRequest
from seewhy.methods.multi_pass import MultiPass
from seewhy.methods.options import resolve_options
from seewhy.methods.registry_base import Registry


def _validate(method: Method) -> None:
    """Validate what a method has and a metric lacks."""
    name = method.name
    for field in ("is_map", "rectified"):
        checks.flag(f"{field} of method {name}", getattr(method, field))
    checks.one_of(f"reduction of method {name}", method.reduction, REDUCTIONS)
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


# Files are called NAME.sheet.png, and evaluations have the reference rows `random` and `centre`.
_registry = Registry("method", Method, MethodError, _validate, ("sheet", "random", "centre"), BUILT_IN)

METHODS = _registry.entries
"""All methods that are registered in this process, by name."""

origins = _registry.origins
"""Origin of each method that is not built in, as `run.json` records it."""


def register_method(method: Method, *, replace: bool = False) -> Method:
    """Register a method, so that it can be used by its name like the built-in ones.

    Args:
        method: The method.
        replace: Whether a method of the same name that was registered before is replaced, for instance when a cell of
            a notebook runs again. Built-in methods cannot be replaced.

    Returns:
        The same method, so that a module can keep it.

    Raises:
        ArgumentError: If the name, outputs, rule or options of the method are not valid, or a method or metric has the
            name already.
    """
    return _registry.register(method, replace)


def list_methods() -> list[str]:
    """Return the names of all methods: the built-in ones, those of entry points and those registered so far.

    Returns:
        Names in the order of the table, then in the order of registration.

    Raises:
        MethodError: If an installed package's methods cannot be loaded.
    """
    return _registry.names()


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


def find_method(name: str, outputs: Collection[str], file: str, metadata: Metadata | None = None) -> Method:
    """Return the method called `name` for a model file with these outputs.

    Args:
        name: Name of the method.
        outputs: Outputs that the file holds.
        file: Name of the file, for messages.
        metadata: Metadata of the file, which names the file that it was cut from or quantised from; None if unknown.

    Returns:
        The method.

    Raises:
        MethodError: If no method has this name, or the file lacks an output that the method needs.
    """
    method = _registry.find(name)
    missing = [output for output in method.outputs if output not in outputs]
    if not missing:
        return method
    finished = f"; it holds finished Grad-CAM maps for other programs ({GRADCAM_MAP})" if GRADCAM_MAP in outputs else ""
    quantization, cut_from = (None, None) if metadata is None else (metadata.quantization, metadata.cut_from)
    if quantization is not None and not GRADIENTS_OF_THE_IMAGE.isdisjoint(missing):
        raise MethodError(
            f"{file}: {name} needs a gradient of the image ({' and '.join(missing)}), which a quantised file cannot "
            f"hold; {use_float32_file(quantization)}"
        )
    if cut_from is not None:
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
    if quantization is not None:
        raise MethodError(
            f"{file}: {name} needs {' and '.join(missing)}, which this quantised file does not hold; "
            f"{use_float32_file(quantization)}"
        )
    wanted = {*outputs, *method.outputs} - {LOGITS}
    listed = ",".join(output for output in OUTPUTS if output in wanted)
    # The exporter writes optional outputs only if they are named.
    remedy = "with" if any(output in OPTIONAL_OUTPUTS for output in missing) else "without --outputs, or with"
    raise MethodError(
        f"{file}: {name} needs {' and '.join(missing)}, which the file does not hold{finished}; export it again "
        f"{remedy} --outputs {listed}"
    )


def resolve_methods(
    methods: str | Sequence[str],
    options: Mapping[str, Mapping[str, Any]] | None,
    outputs: Collection[str],
    file: str,
    metadata: Metadata | None = None,
) -> tuple[MethodRequest, ...]:
    """Resolve names of methods and their options into requests. Each method is kept once, in the given order.

    Args:
        methods: One name, or a list of names.
        options: Options by method and name; None leaves all at their defaults.
        outputs: Outputs that the model file holds.
        file: Name of the file, for messages.
        metadata: As in `find_method`.

    Returns:
        A request for each method.

    Raises:
        MethodError: If a method is unknown, the file lacks what it needs, or an option is unknown or wrong.
    """
    names = _registry.list_of_names(methods)
    if not names:
        raise MethodError(f"no method given; this file can serve {', '.join(available_methods(outputs))}")
    found = [find_method(name, outputs, file, metadata) for name in names]
    given = _registry.options_by_name(names, options)
    return tuple(
        MethodRequest(method, resolve_options(method.name, method.options, given.get(method.name)))
        for method in dict.fromkeys(found)
    )
