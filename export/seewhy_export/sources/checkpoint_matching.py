"""Load the weights of a checkpoint into a network, by name and completely, without running code from the file.

Training programs write the state dict at the top of the file or nested (`state_dict`, `model`, `model_ema`, ...), next
to optimiser state and settings. Wrappers add a prefix to every name (`module.`, `model.`, `_orig_mod.`). This module
does not need to know these keys and prefixes: a dict in the file matches if its names, without one common prefix, are
the names of the network.
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

from seewhy._shared.suggestions import did_you_mean
from seewhy.errors import ExportError
from seewhy_export._shared.messages import first_few, one_line
from seewhy_export.sources.checkpoint_reading import read_checkpoint

_DEPTH = 3
"""Maximum number of nested dicts in which to search for weights."""

_WRAPPERS = re.compile(r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
"""Name components that torch.compile, FSDP and activation checkpointing insert into the middle of a name."""

_OPTIMISER_KEYS = re.compile(r"optim(?!i[sz]ed|al)|momentum|exp_avg", re.IGNORECASE)
"""Beginnings of keys that hold the tensors of an optimiser, which have the names and shapes of weights."""

# A counter of batches for training. Evaluation never reads it, and old checkpoints lack it.
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class _Candidate:
    """A set of weights: the tensors of one dict in the file whose names have one prefix."""

    keys: tuple[str, ...]
    """Keys that lead to the dict."""
    prefix: str
    tensors: dict[str, Tensor]
    """Tensors by their names in the network. Tensors without the prefix are left out."""
    others: list[str]
    """Names in the same dict that do not have the prefix."""

    @property
    def key(self) -> str:
        """The name that `--weights-key` uses for this set."""
        return ".".join([*self.keys, *filter(None, [self.prefix.rstrip(".")])]) or "."


def load_checkpoint(module: nn.Module, path: Path, key: str | None = None) -> tuple[str, ...]:
    """Load the checkpoint at `path` into `module`.

    Args:
        module: Network to load into. The checkpoint must hold exactly the parameters and buffers of its state dict,
            in the same shapes. Other names with the same prefix are an error.
        path: File that `torch.save` wrote, or a safetensors file.
        key: Set of weights to load if several sets fit. The error for that case lists the keys.

    Returns:
        Notes for the user: where in the file the weights were. Empty if they were at the top and without a prefix.

    Raises:
        ExportError: If the file is missing, needs code to load, or does not fit the module.
        MissingExtraError: If it is a safetensors file, and safetensors is not installed.
    """
    content = read_checkpoint(path)
    expected = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    if not expected:
        raise ExportError(f"{path}: the network has no weights to load")
    candidates = [
        candidate for keys, tensors in _tensor_dicts(content) for candidate in _candidates(keys, tensors, expected)
    ]
    if not candidates:
        raise ExportError(f"{path}: holds no state dict (a dict of tensors by name); save model.state_dict()")
    chosen = _choose(path, candidates, expected, key)
    pairs = [(name, chosen.tensors[name], target) for name, target in expected.items() if name in chosen.tensors]
    unusable = [
        f"{name} as {_kind(value)} instead of {_kind(target)}"
        for name, value, target in pairs
        if not _is_usable(name, value, target)
    ]
    if unusable:
        raise ExportError(f"{path}: holds {first_few(unusable)}; save dense tensors of the network's own types")
    # Check in the type of the network, because float64 holds larger numbers than float32.
    not_finite = [
        name
        for name, value, target in pairs
        if value.is_floating_point() and not value.to(target.dtype).isfinite().all()
    ]
    if not_finite:
        raise ExportError(f"{path}: holds NaN or infinity in {first_few(not_finite)}; use an earlier checkpoint")
    try:
        module.load_state_dict(chosen.tensors, strict=False)
    except RuntimeError as error:
        raise ExportError(f"{path}: cannot be loaded: {one_line(error)}") from error
    return _notes(path, chosen)


def _tensor_dicts(content: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """Yield every dict in the file that has tensors by name, with the keys that lead to it."""
    if not isinstance(content, Mapping):
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    tensors = {key: value for key, value in named.items() if isinstance(value, Tensor)}
    if tensors:
        yield keys, tensors
    if len(keys) < _DEPTH:
        for key, value in named.items():
            yield from _tensor_dicts(value, (*keys, key))


def _candidates(
    keys: tuple[str, ...], tensors: dict[str, Tensor], expected: Mapping[str, Tensor]
) -> Iterator[_Candidate]:
    """Yield one candidate for each prefix that may be the right one, and at least one."""
    tensors = _without_wrappers(tensors)
    needed = sum(not _is_counter(name) for name in expected)
    seen = set()
    for added in _common_prefixes(list(expected)):
        inner = {name[len(added) :] for name in expected if not _is_counter(name)}
        counts = Counter(prefix for name in tensors for prefix in _prefixes(name, inner))
        closest = dict.fromkeys(["", *(prefix for prefix, _ in counts.most_common(1))])
        whole = [prefix for prefix, count in counts.items() if count == needed]
        for prefix in whole or closest:
            # {conv.weight, ema.conv.weight} are two sets of weights, not one set with an unknown name.
            longer = tuple(other for other in whole if other != prefix and other.startswith(prefix))
            renamed = {
                name: added + name[len(prefix) :]
                for name in tensors
                if name.startswith(prefix) and (name[len(prefix) :] in inner or not name.startswith(longer))
            }
            if frozenset(renamed.items()) in seen:
                continue
            seen.add(frozenset(renamed.items()))
            with_prefix = {new: tensors[name] for name, new in renamed.items()}
            yield _Candidate(keys, prefix, with_prefix, [name for name in tensors if name not in renamed])
        if whole:
            return


def _without_wrappers(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove wrapper components from the names, except where two different tensors would get the same name."""
    names: dict[str, list[str]] = {}
    for name in tensors:
        names.setdefault(_WRAPPERS.sub("", name), []).append(name)
    found = {}
    for bare, (first, *rest) in names.items():
        same = all(_is_equal(tensors[first], tensors[name]) for name in rest)
        found.update({bare: tensors[first]} if same else {name: tensors[name] for name in (first, *rest)})
    return found


def _prefixes(name: str, inner: set[str]) -> Iterator[str]:
    """Yield the prefixes without which `name` is one of `inner`."""
    components = name.split(".")
    for i in range(len(components)):
        if ".".join(components[i:]) in inner:
            yield "".join(component + "." for component in components[:i])


def _common_prefixes(names: list[str]) -> Iterator[str]:
    """Yield the common prefixes of all names, from the empty one on.

    The network may wrap the network that the checkpoint was saved from.
    """
    prefix = ""
    while True:
        yield prefix
        first, dot, _ = names[0][len(prefix) :].partition(".")
        prefix += first + dot
        if not dot or not all(name.startswith(prefix) for name in names):
            return


def _is_counter(name: str) -> bool:
    """Return True if the name is that of a batch counter."""
    return name.rpartition(".")[2] == _COUNTER


def _is_plain(tensor: Tensor) -> bool:
    """Return True if the tensor is dense and has data: not sparse, nested, quantised or on the meta device."""
    return tensor.layout == torch.strided and not (tensor.is_nested or tensor.is_quantized or tensor.is_meta)


def _is_usable(name: str, value: Tensor, target: Tensor) -> bool:
    """Return True if the value has the kind of numbers that the network's tensor has."""
    same = value.is_floating_point() == target.is_floating_point() and value.is_complex() == target.is_complex()
    return _is_plain(value) and (same or _is_counter(name))


def _is_equal(one: Tensor, other: Tensor) -> bool:
    """Return True if both tensors are dense and hold the same bits."""
    return _is_plain(one) and _is_plain(other) and one.dtype == other.dtype and torch.equal(one, other)


def _kind(tensor: Tensor) -> str:
    """Return the tensor's dtype, or the property that makes it unusable."""
    kinds = {"nested": tensor.is_nested, "quantised": tensor.is_quantized, "without data": tensor.is_meta}
    special = [kind for kind, holds in kinds.items() if holds]
    return next(iter(special), str(tensor.layout if tensor.layout != torch.strided else tensor.dtype)[6:])


def _difference(candidate: _Candidate, expected: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """Return the names that are missing, the unknown ones, and those whose shape differs."""
    missing = [name for name in expected if name not in candidate.tensors and not _is_counter(name)]
    unknown = [name for name in candidate.tensors if name not in expected and not _is_counter(name)]
    shared = [name for name in expected if name in candidate.tensors and _is_plain(candidate.tensors[name])]
    return missing, unknown, [name for name in shared if candidate.tensors[name].shape != expected[name].shape]


def _choose(path: Path, candidates: list[_Candidate], expected: Mapping[str, Tensor], key: str | None) -> _Candidate:
    """Return the candidate that fits, if the choice is unambiguous.

    A set with additional names does not fit. It still makes the choice ambiguous, because the user may mean it when
    an average of it or a teacher network fits.
    """
    if key is None:
        eligible = [
            candidate for candidate in candidates if not any(_OPTIMISER_KEYS.match(name) for name in candidate.keys)
        ]
        if not eligible:
            raise ExportError(
                f"{path}: seems to hold only tensors of an optimiser: "
                f"{first_few([candidate.key for candidate in candidates])}; use --weights-key to load them anyway"
            )
    else:
        eligible = [one for one in candidates if key in (one.key, ".".join(one.keys))]
    complete = [candidate for candidate in eligible or candidates if _distance(candidate, expected)[0] == 0]
    if not eligible:
        keys = [candidate.key for candidate in complete or candidates]
        raise ExportError(
            f"{path}: unknown weights key {key!r}.{did_you_mean(key or '', keys)} "
            f"The file has {first_few(keys, most=5)}"
        )
    if not all(_is_same(complete[0], other, expected) for other in complete[1:]):
        raise ExportError(
            f"{path}: several sets of weights fit: {first_few([candidate.key for candidate in complete], most=5)}; "
            f"choose one with --weights-key {complete[0].key}"
        )
    closest = min(eligible, key=lambda candidate: _distance(candidate, expected))
    if any(_difference(closest, expected)):
        raise ExportError(_misfit(path, closest, expected))
    return closest


def _distance(candidate: _Candidate, expected: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return how far a candidate is from fitting: the number of tensors it lacks, then of additional ones."""
    missing, unknown, reshaped = _difference(candidate, expected)
    return len(missing) + len(reshaped), len(unknown)


def _is_same(one: _Candidate, other: _Candidate, expected: Mapping[str, Tensor]) -> bool:
    """Return True if both candidates hold the same weights."""
    return all(_is_equal(one.tensors[name], other.tensors[name]) for name in expected if not _is_counter(name))


def _misfit(path: Path, candidate: _Candidate, expected: Mapping[str, Tensor]) -> str:
    """Return the error message for weights that do not fit."""
    missing, unknown, reshaped = _difference(candidate, expected)
    where = f" ({_where(candidate)})" if candidate.keys or candidate.prefix else ""
    reasons = []
    if missing:
        reasons.append(f"lacks {first_few(missing)}")
    if unknown:
        reasons.append(f"has unknown {first_few(unknown)}")
    if reshaped:
        shapes = [f"{name} {_shape(candidate.tensors[name])} instead of {_shape(expected[name])}" for name in reshaped]
        reasons.append(f"has {first_few(shapes)}")
    text = f"{path}{where}: does not fit the network: it {' and '.join(reasons)}"
    if reshaped and not missing and not unknown:
        text += "; if the number of classes differs, set it with --classes, or in the function that builds the network"
    if path.suffix == ".safetensors" and (path.parent / "config.json").is_file():
        text += f"; if transformers saved it, export its whole folder: seewhy export transformers:{path.parent}"
    return text


def _where(candidate: _Candidate) -> str:
    """Return where in the file the weights are."""
    prefix = f"with the prefix {candidate.prefix!r}" if candidate.prefix else ""
    return ", ".join(filter(None, [".".join(candidate.keys), prefix]))


def _shape(tensor: Tensor) -> str:
    """Return the shape as text, such as 64x3x7x7."""
    return "x".join(str(size) for size in tensor.shape) or "scalar"


def _notes(path: Path, candidate: _Candidate) -> tuple[str, ...]:
    """Return the note that says where in the file the weights were."""
    if not candidate.keys and not candidate.prefix:
        return ()
    others = (
        f"; ignored other tensors ({len(candidate.others)}): {first_few(candidate.others)}" if candidate.others else ""
    )
    return (f"{path.name}: weights loaded from {_where(candidate)}{others}",)
