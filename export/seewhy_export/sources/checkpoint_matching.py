"""A checkpoint's weights into a network: exactly all of them, by name, and no code from the file.

Training programs write the state dict bare or nested (`state_dict`, `model`, `model_ema`, ...), beside optimiser state
and settings, and with prefixes that wrappers put before every name (`module.`, `model.`, `_orig_mod.`). Which these are
need not be known: a part of the file fits where, behind one prefix, its names are the network's names.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export._shared.messages import first_few, one_line
from seewhy_export.sources.checkpoint_reading import read_checkpoint

_DEPTH = 3
"""How deep in nested dicts weights are looked for."""

_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""What torch.compile, FSDP and activation checkpointing put into the middle of a name."""

_OPTIMISERS = re.compile(r"optim(?!i[sz]ed|al)|momentum|exp_avg", re.IGNORECASE)
"""How the keys begin that hold an optimiser's tensors, which have the weights' names and shapes."""

# Counts batches for a momentum in training; evaluation never reads it, and old checkpoints lack it.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class _Fit:
    """Tensors at one place of the file, behind one prefix, against the network's names."""

    place: tuple[str, ...]
    prefix: str
    tensors: dict[str, Tensor]
    """By the network's names. What does not lie behind the prefix is not among them."""
    outside: list[str]
    """Names at the same place that do not lie behind the prefix."""

    @property
    def key(self) -> str:
        """What `--weights-key` calls it."""
        return ".".join([*self.place, *filter(None, [self.prefix.rstrip(".")])]) or "."


def load_checkpoint(module: nn.Module, path: Path, key: str | None = None) -> tuple[str, ...]:
    """Load the checkpoint at `path` into `module`.

    Args:
        module: every parameter and buffer that its state dict names must be in the file, and nothing else behind the
            same prefix, in the same shape.
        path: what `torch.save` wrote, or a safetensors file.
        key: which weights to take where several fit, as the error that says so lists them.

    Returns:
        What the user should know: where in the file the weights were.

    Raises:
        ExportError: the file is missing, needs code to load, or does not fit the module.
        MissingExtraError: it is a safetensors file, and safetensors is not installed.
    """
    content = read_checkpoint(path)
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    if not expected:
        raise ExportError(f"{path}: the network has no weights to load")
    fits = [fit for place, tensors in _places(content) for fit in _fits(place, tensors, expected)]
    if not fits:
        raise ExportError(
            f"{path}: not a state dict (a name for each tensor), nor does it hold one; save model.state_dict()"
        )
    chosen = _choose(path, fits, expected, key)
    pairs = [(name, chosen.tensors[name], wanted) for name, wanted in expected.items() if name in chosen.tensors]
    others = [
        f"{name} as {_kind(value)} instead of {_kind(wanted)}"
        for name, value, wanted in pairs
        if not _is_usable(name, value, wanted)
    ]
    if others:
        raise ExportError(f"{path}: holds {first_few(others)}; save dense tensors of the network's own types")
    # In the network's type: float64 may hold more than float32 does.
    broken = [
        name
        for name, value, wanted in pairs
        if value.is_floating_point() and not value.to(wanted.dtype).isfinite().all()
    ]
    if broken:
        raise ExportError(f"{path}: holds NaN or infinity in {first_few(broken)}; take a checkpoint from before that")
    try:
        module.load_state_dict(chosen.tensors, strict=False)
    except RuntimeError as error:
        raise ExportError(f"{path}: cannot be loaded: {one_line(error)}") from error
    return _notes(path, chosen)


def _places(content: Any, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Every dict in the file that has tensors by name, and where it lies."""
    if not isinstance(content, Mapping):
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    if len(place) < _DEPTH:
        for key, value in named.items():
            yield from _places(value, (*place, key))


def _fits(place: tuple[str, ...], tensors: dict[str, Tensor], expected: Mapping[str, Tensor]) -> Iterator[_Fit]:
    """What lies behind each prefix that might be the right one; at least one."""
    tensors = _unwrapped(tensors)
    needed = sum(not _is_counter(name) for name in expected)
    seen = set()
    for added in _common_prefixes(list(expected)):
        inner = {name[len(added) :] for name in expected if not _is_counter(name)}
        counts = Counter(prefix for name in tensors for prefix in _prefixes(name, inner))
        closest = dict.fromkeys(["", *(prefix for prefix, _ in counts.most_common(1))])
        whole = [prefix for prefix, count in counts.items() if count == needed]
        for prefix in whole or closest:
            # {conv.weight, ema.conv.weight}: two sets of weights, and not one with names that nobody knows.
            inside = tuple(other for other in whole if other != prefix and other.startswith(prefix))
            renamed = {
                name: added + name[len(prefix) :]
                for name in tensors
                if name.startswith(prefix) and (name[len(prefix) :] in inner or not name.startswith(inside))
            }
            if frozenset(renamed.items()) in seen:
                continue
            seen.add(frozenset(renamed.items()))
            behind = {new: tensors[name] for name, new in renamed.items()}
            yield _Fit(place, prefix, behind, [name for name in tensors if name not in renamed])
        if whole:
            return


def _unwrapped(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without wrappers in the names, but for those that would then be the name of another tensor."""
    names: dict[str, list[str]] = {}
    for name in tensors:
        names.setdefault(_WRAPPERS.sub("", name), []).append(name)
    found = {}
    for bare, (first, *rest) in names.items():
        same = all(_is_equal(tensors[first], tensors[name]) for name in rest)
        found.update({bare: tensors[first]} if same else {name: tensors[name] for name in (first, *rest)})
    return found


def _prefixes(name: str, inner: set[str]) -> Iterator[str]:
    """The prefixes behind which `name` is one of `inner`."""
    parts = name.split(".")
    for i in range(len(parts)):
        if ".".join(parts[i:]) in inner:
            yield "".join(part + "." for part in parts[:i])


def _common_prefixes(names: list[str]) -> Iterator[str]:
    """What all names begin with, from nothing on: where the network wraps what the checkpoint was made of."""
    prefix = ""
    while True:
        yield prefix
        first, dot, _ = names[0][len(prefix) :].partition(".")
        prefix += first + dot
        if not dot or not all(name.startswith(prefix) for name in names):
            return


def _is_counter(name: str) -> bool:
    return name.rpartition(".")[2] == _COUNTER


def _is_plain(tensor: Tensor) -> bool:
    """Whether it is an array of numbers, and not sparse, nested, quantised or without data."""
    return tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)


def _is_usable(name: str, value: Tensor, wanted: Tensor) -> bool:
    same = value.is_floating_point() == wanted.is_floating_point() and value.is_complex() == wanted.is_complex()
    return _is_plain(value) and (same or _is_counter(name))


def _is_equal(one: Tensor, other: Tensor) -> bool:
    return _is_plain(one) and _is_plain(other) and one.dtype == other.dtype and torch.equal(one, other)


def _kind(tensor: Tensor) -> str:
    kinds = {"nested": tensor.is_nested, "quantised": tensor.is_quantized, "without data": tensor.is_meta}
    special = [kind for kind, holds in kinds.items() if holds]
    return next(iter(special), str(tensor.layout if tensor.layout != torch.strided else tensor.dtype)[6:])


def _difference(fit: _Fit, expected: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Names that are missing, unknown, and of another shape."""
    missing = [name for name in expected if name not in fit.tensors and not _is_counter(name)]
    unknown = [name for name in fit.tensors if name not in expected and not _is_counter(name)]
    shared = [name for name in expected if name in fit.tensors and _is_plain(fit.tensors[name])]
    return missing, unknown, [name for name in shared if fit.tensors[name].shape != expected[name].shape]


def _choose(path: Path, fits: list[_Fit], expected: Mapping[str, Tensor], key: str | None) -> _Fit:
    """The one that fits, where nothing else in the file could be meant.

    Weights beside which lie names that the network has not are no fit, but may be the ones that are meant, where an
    average of them or a teacher fits.
    """
    if key is None:
        among = [fit for fit in fits if not any(_OPTIMISERS.match(part) for part in fit.place)]
        if not among:
            raise ExportError(
                f"{path}: holds tensors of an optimiser alone, as it seems: {first_few([fit.key for fit in fits])}; "
                f"--weights-key takes them all the same"
            )
    else:
        among = [fit for fit in fits if fit.key == key]
    whole = [fit for fit in among or fits if _distance(fit, expected)[0] == 0]
    if not among:
        listed = first_few([fit.key for fit in whole or fits], most=5)
        raise ExportError(f"{path}: no weights that fit are called {key!r}; there are {listed}")
    if not all(_is_same(whole[0], other, expected) for other in whole[1:]):
        raise ExportError(
            f"{path}: several sets of weights fit: {first_few([fit.key for fit in whole], most=5)}; choose one with "
            f"--weights-key {whole[0].key}"
        )
    closest = min(among, key=lambda fit: _distance(fit, expected))
    if any(_difference(closest, expected)):
        raise ExportError(_misfit(path, closest, expected))
    return closest


def _distance(fit: _Fit, expected: Mapping[str, Tensor]) -> tuple[int, int]:
    """Smaller is closer: first what fits, then what does not."""
    missing, unknown, reshaped = _difference(fit, expected)
    return len(missing) + len(reshaped), len(unknown)


def _is_same(one: _Fit, other: _Fit, expected: Mapping[str, Tensor]) -> bool:
    return all(_is_equal(one.tensors[name], other.tensors[name]) for name in expected if not _is_counter(name))


def _misfit(path: Path, fit: _Fit, expected: Mapping[str, Tensor]) -> str:
    missing, unknown, reshaped = _difference(fit, expected)
    where = f" ({_where(fit)})" if fit.place or fit.prefix else ""
    parts = []
    if missing:
        parts.append(f"lacks {first_few(missing)}")
    if unknown:
        parts.append(f"has unknown {first_few(unknown)}")
    if reshaped:
        shapes = [f"{name} {_shape(fit.tensors[name])} instead of {_shape(expected[name])}" for name in reshaped]
        parts.append(f"has {first_few(shapes)}")
    text = f"{path}{where}: does not fit the network: it {' and '.join(parts)}"
    if reshaped and not missing and not unknown:
        text += "; is the network made for another number of classes? (--classes, for torchvision and timm)"
    return text


def _where(fit: _Fit) -> str:
    behind = f"behind the prefix {fit.prefix!r}" if fit.prefix else ""
    return ", ".join(filter(None, [".".join(fit.place), behind]))


def _shape(tensor: Tensor) -> str:
    return "x".join(str(size) for size in tensor.shape) or "scalar"


def _notes(path: Path, fit: _Fit) -> tuple[str, ...]:
    if not fit.place and not fit.prefix:
        return ()
    others = f"; {len(fit.outside)} others beside it left out: {first_few(fit.outside)}" if fit.outside else ""
    return (f"{path.name}: weights taken from {_where(fit)}{others}",)
