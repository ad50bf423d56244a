"""The methods: which outputs of the graph each one needs, and the rule that combines them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from . import _core
from .contract import ACTIVATIONS, CLASS_WEIGHTS, GRADIENTS, GUIDED_GRADIENTS, INPUT_GRADIENTS
from .errors import MethodError

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True)
class Size:
    """What a rule needs to know besides the graph's outputs."""

    height: int
    width: int
    threads: int
    """Most threads that a kernel uses; 0 is one per core."""


@dataclass(frozen=True)
class Attribution:
    """What a rule returns for a batch of N."""

    maps: Floats | None
    """(N,h,w), before ReLU and upsampling; None for methods that have no such map."""
    values: Floats
    """(N,H,W) for CAM methods, (N,Cin,H,W) for gradient methods."""


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    title: str
    outputs: tuple[str, ...]
    """Graph outputs that it needs besides the logits."""
    is_map: bool
    """True: one map per image, drawn as an overlay. False: one value per pixel and channel, drawn as an RGB picture."""
    combine: Callable[[dict[str, Floats], Size], Attribution]
    source: str

    def heatmaps(self, values: Floats, size: Size) -> Floats:
        """(N,H,W) or (N,Cin,H,W) attributions -> (N,H,W) in [0,1]."""
        return _core.minmax(values if self.is_map else _core.max_abs(values, size.threads), size.threads)


def _backprop(outputs: dict[str, Floats], size: Size) -> Attribution:
    return Attribution(None, outputs[INPUT_GRADIENTS])


def _guided_backprop(outputs: dict[str, Floats], size: Size) -> Attribution:
    return Attribution(None, outputs[GUIDED_GRADIENTS])


def _cam(outputs: dict[str, Floats], size: Size) -> Attribution:
    maps = _core.weighted_sum(outputs[ACTIVATIONS], outputs[CLASS_WEIGHTS], False, size.threads)
    return Attribution(maps, _upsample(maps, size))


def _gradcam(outputs: dict[str, Floats], size: Size) -> Attribution:
    weights = _core.channel_means(outputs[GRADIENTS], size.threads)
    maps = _core.weighted_sum(outputs[ACTIVATIONS], weights, False, size.threads)
    return Attribution(maps, _upsample(np.maximum(maps, np.float32(0)), size))


def _guided_gradcam(outputs: dict[str, Floats], size: Size) -> Attribution:
    heat = _core.minmax(_gradcam(outputs, size).values, size.threads)
    return Attribution(None, _core.multiply_by_map(outputs[GUIDED_GRADIENTS], heat, size.threads))


def _upsample(maps: Floats, size: Size) -> Floats:
    return _core.upsample(maps, size.height, size.width, size.threads)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "backprop",
            "Backprop",
            (INPUT_GRADIENTS,),
            False,
            _backprop,
            "Simonyan et al. 2013, Deep inside convolutional networks, section 3",
        ),
        Method(
            "guided-backprop",
            "Guided backprop",
            (GUIDED_GRADIENTS,),
            False,
            _guided_backprop,
            "Springenberg et al. 2014, Striving for simplicity, section 3.4",
        ),
        Method(
            "cam",
            "CAM",
            (ACTIVATIONS, CLASS_WEIGHTS),
            True,
            _cam,
            "Zhou et al. 2016, Learning deep features for discriminative localization, equation 2",
        ),
        Method(
            "gradcam",
            "Grad-CAM",
            (ACTIVATIONS, GRADIENTS),
            True,
            _gradcam,
            "Selvaraju et al. 2017, Grad-CAM, equations 1 and 2",
        ),
        Method(
            "guided-gradcam",
            "Guided Grad-CAM",
            (ACTIVATIONS, GRADIENTS, GUIDED_GRADIENTS),
            False,
            _guided_gradcam,
            "Selvaraju et al. 2017, Grad-CAM, section 3.2",
        ),
    )
}


def available(outputs: Iterable[str]) -> tuple[str, ...]:
    """Names of the methods that a file with these outputs can serve."""
    held = set(outputs)
    return tuple(name for name, method in METHODS.items() if held.issuperset(method.outputs))


def find(name: str, outputs: Iterable[str], file: str) -> Method:
    """Return the method called `name`, for a file with these outputs.

    Raises:
        MethodError: there is no such method, or the file lacks an output that it needs.
    """
    method = METHODS.get(name) if isinstance(name, str) else None
    if method is None:
        raise MethodError(f"no method {name!r}; there are {', '.join(METHODS)}")
    missing = [output for output in method.outputs if output not in outputs]
    if CLASS_WEIGHTS in missing:
        raise MethodError(
            f"{file}: {name} needs a network that ends in global average pooling and one linear layer, and the file "
            f"holds no {CLASS_WEIGHTS}; use gradcam"
        )
    if missing:
        raise MethodError(
            f"{file}: {name} needs {' and '.join(missing)}, which the file does not hold; export it again without "
            f"--outputs, or with {','.join(method.outputs)} among them"
        )
    return method
