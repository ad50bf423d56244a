"""Choice of the logits among the tensors that a network returns, and refusal of networks that return none."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from seewhy._shared.suggestions import did_you_mean
from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export._shared.trial_run import trial_run
from seewhy_export.capture.forward_failures import run_failure

LOGITS_KEY = "logits"
"""Key or attribute that holds the logits if outputs have names, as in Hugging Face's models."""

_BOXES = {"boxes", "pred_boxes"}
"""Keys that only the outputs of detection networks have."""

_FEATURES = {"last_hidden_state", "pooler_output", "hidden_states", "attentions", "feature_maps", "image_embeds"}
"""Keys of the outputs of networks without a classifier, in Hugging Face's models."""

_WRAPPER = "export a module whose forward returns one score per class, for example"

_KINDS = {
    0: "one number for the whole batch; it must return one score per image and class",
    3: f"several vectors {{shape}} for each image, as networks for sequences or detection do, and is not a classifier; "
    f"{_WRAPPER} `return {{output}}.mean(1)`, or one of the vectors",
    4: f"a map {{shape}} for each image, as segmentation networks do, and is not a classifier; {_WRAPPER} the mean of "
    f"the map: `return {{output}}.mean((2, 3))`",
    5: f"a volume {{shape}} for each image, and is not a classifier; {_WRAPPER} the mean of the volume: "
    f"`return {{output}}.mean((2, 3, 4))`",
}
"""Number of dimensions of an output -> what the network returns and how to export it all the same."""


class LogitsOutput(NamedTuple):
    """Output of a network that holds the logits."""

    path: str | None
    """Key, attribute, index or a path of these; None if the network returns a single tensor."""
    is_vector: bool
    """True if the output has shape (N,), one logit for each image, and is used as (N, 1)."""


def find_output(
    module: nn.Module, channels: int, image_size: tuple[int, int], output: str | int | None, count: int = 2
) -> LogitsOutput:
    """Find the logits among the tensors that a prepared module returns.

    Args:
        module: Module that `prepare` returned; it is run once.
        channels: Number of image channels.
        image_size: (H, W) of the images in pixels.
        output: Which of several outputs holds the logits: an index, or a key, attribute or path of these ("head.0").
            None chooses the only tensor, or the one called `logits`.
        count: Number of images to run the module on.

    Returns:
        The chosen output.

    Raises:
        ExportError: If the module fails, has no such output, has several and none was chosen, or is not a classifier.
    """
    try:
        returned = trial_run(module, channels, image_size, count)
    except Exception as error:
        raise run_failure(module, channels, image_size, error) from error
    if isinstance(returned, Tensor):
        if output is not None:
            raise ExportArgumentError(f"head {output!r}: the network returns a single tensor; leave `head` out")
        path, value = None, returned
    else:
        found = dict(_tensors(returned))
        path = _choose(found, output)
        value = found[path]
    _check_logits(value, path, count)
    return LogitsOutput(path, value.dim() == 1)


def returning(module: nn.Module, output: LogitsOutput) -> nn.Module:
    """Make a module return only its logits, of shape (N, class count).

    Args:
        module: Prepared or traceable module. A plain module is changed, by a hook.
        output: Output that `find_output` returned.

    Returns:
        The module, or a wrapper around it.
    """
    if output == LogitsOutput(None, False):
        return module
    if isinstance(module, (torch.jit.ScriptModule, torch.fx.GraphModule)):  # Hooks are refused, or not traced.
        return _LogitsOnly(module, output)
    module.register_forward_hook(lambda _module, _inputs, value: _logits(value, output))
    return module


class _LogitsOnly(nn.Module):
    """Wrapper that returns the logits of a module."""

    def __init__(self, module: nn.Module, output: LogitsOutput) -> None:
        super().__init__()
        self.module, self.output = module, output

    def forward(self, images: Tensor) -> Tensor:
        return _logits(self.module(images), self.output)


def _logits(returned: Any, output: LogitsOutput) -> Tensor:
    """Return the logits among what a module returned."""
    value: Tensor = returned if output.path is None else dict(_tensors(returned))[output.path]
    return value.reshape(-1, 1) if output.is_vector else value


def _tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in nested tuples, dicts and dataclasses, with its path."""
    if isinstance(value, Tensor):
        yield path, value
        return
    for key, member in _items(value):
        yield from _tensors(member, f"{path}.{key}" if path else str(key))


def _items(value: Any) -> list[tuple[Any, Any]]:
    """Return the keys and values of a container; nothing for other objects."""
    if isinstance(value, Mapping):
        return list(value.items())
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (list, tuple)):
        return list(enumerate(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)]
    return []


def _choose(found: dict[str, Tensor], output: str | int | None) -> str:
    """Return the path of the tensor that `output` selects."""
    paths = list(found)
    if not paths:
        raise ExportError("the network returns no tensor; it must return logits (N, classes)")
    if output is None:
        return _only_logits(found)
    if isinstance(output, int) and not isinstance(output, bool) and str(output) not in found:
        chosen = paths[output : output + 1] if output >= 0 else []
    else:
        chosen = [path for path in paths if path == str(output)]
    if len(chosen) == 1:
        return chosen[0]
    raise ExportArgumentError(
        f"no output {output!r}.{did_you_mean(str(output), paths)} The network returns {_list(found)}"
    )


def _only_logits(found: dict[str, Tensor]) -> str:
    """Return the path of the only tensor, or of the only one called `logits`, unless no output can hold logits."""
    keys = {part for path in found for part in path.split(".")}
    if keys & _BOXES:
        raise ExportError(
            f"the network returns boxes ({_list(found)}), as detection networks do, and is not a classifier; "
            f"{_WRAPPER} the highest score of each class among all boxes"
        )
    named = [path for path in found if path == LOGITS_KEY or path.endswith("." + LOGITS_KEY)]
    candidates = named or list(found)
    if not named and all(_FEATURES & set(path.split(".")) for path in found):
        raise ExportError(
            f"the network returns features but no logits ({_list(found)}), so it has no classifier; load the class "
            "with a classifier, such as AutoModelForImageClassification, or choose one of the outputs with `head` "
            "(--head)"
        )
    possible = [path for path in candidates if found[path].dim() in (1, 2)]
    if len(candidates) == 1 or not possible:
        return candidates[0]
    raise ExportError(f"the network returns several tensors: {_list(found)}; choose the logits with `head` (--head)")


def _list(found: dict[str, Tensor]) -> str:
    """Return the paths and shapes of tensors as text."""
    shown = [f"{path} {_shape(value)}" for path, value in list(found.items())[:6]]
    return ", ".join(shown) + (f" and {len(found) - 6} more" if len(found) > 6 else "")


def _shape(value: Tensor) -> str:
    """Return the shape of an output for two images, with N for the number of images, such as `(N, 5)`."""
    sizes = [str(size) for size in value.shape]
    return f"({', '.join(['N', *sizes[1:]] if sizes[:1] == ['2'] else sizes)})"


def _check_logits(value: Tensor, path: str | None, count: int) -> None:
    """Check that an output for some images can be logits: floating point, of shape (N, class count) or (N,)."""
    if value.dim() in _KINDS:
        keys = [f"[{key if key.isdigit() else repr(key)}]" for key in (path.split(".") if path else ())]
        kind = _KINDS[value.dim()].format(shape=_shape(value), output=f"self.network(x){''.join(keys)}")
        raise ExportError(f"the network returns {kind}")
    if not value.is_floating_point():
        raise ExportError(
            f"the network returns {value.dtype} {_shape(value)}, such as the index of the highest score (argmax); it "
            f"must return the scores of all classes"
        )
    if value.dim() == 1 and value.shape[0] != count:
        raise ExportError(
            f"the network returns {value.shape[0]} numbers for {count} images instead of (N, classes); its code merges "
            f"images and classes, as flatten() without a start dimension does"
        )
