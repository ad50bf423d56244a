"""The methods: which outputs of the graph each one needs, and the rule that combines them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass

from seewhy._core import max_abs, minmax
from seewhy._shared.arrays import Floats
from seewhy._shared.text import brief
from seewhy.contract.constants import (
    ACTIVATIONS,
    CLASS_WEIGHTS,
    DECONVNET_GRADIENTS,
    GRADIENTS,
    GUIDED_GRADIENTS,
    INPUT_GRADIENTS,
    LOGITS,
    OPTIONAL_OUTPUTS,
    OUTPUTS,
)
from seewhy.errors import MethodError
from seewhy.methods import cam_rules, gradient_rules
from seewhy.methods.ablationcam import ABLATIONCAM
from seewhy.methods.base import RuleContext, RuleResult, Values
from seewhy.methods.integrated_gradients import INTEGRATED_GRADIENTS
from seewhy.methods.multi_pass import MultiPass
from seewhy.methods.options import Option
from seewhy.methods.scorecam import SCORECAM
from seewhy.methods.smoothgrad import SMOOTHGRAD

__all__ = ["METHODS", "Method", "RuleContext", "RuleResult", "available_methods", "find_method"]


@dataclass(frozen=True)
class Method:
    """One row of the table."""

    name: str
    title: str
    outputs: tuple[str, ...]
    """Graph outputs that it needs besides the logits."""
    is_map: bool
    """True: one map per image, drawn as an overlay. False: one value per pixel and channel, drawn as an RGB picture."""
    rule: Callable[[Values, RuleContext], RuleResult]
    reference: str
    multi_pass: MultiPass | None = None
    """How it runs the graph many times; None for methods of one run."""
    rectified: bool = True
    """Whether a map's positive part alone is shown."""

    @property
    def options(self) -> tuple[Option, ...]:
        return () if self.multi_pass is None else self.multi_pass.options

    def heatmaps(self, attributions: Floats, size: RuleContext) -> Floats:
        """(N,H,W) or (N,Cin,H,W) -> (N,H,W) in [0,1]."""
        strength = attributions if self.is_map else max_abs(attributions, size.threads)
        return minmax(strength, size.threads)


METHODS: dict[str, Method] = {
    method.name: method
    for method in (
        Method(
            "backprop",
            "Backprop",
            (INPUT_GRADIENTS,),
            False,
            gradient_rules.backprop,
            "Simonyan et al. 2013, Deep inside convolutional networks, section 3",
        ),
        Method(
            "guided-backprop",
            "Guided backprop",
            (GUIDED_GRADIENTS,),
            False,
            gradient_rules.guided_backprop,
            "Springenberg et al. 2014, Striving for simplicity, section 3.4",
        ),
        Method(
            "deconvnet",
            "Deconvnet",
            (DECONVNET_GRADIENTS,),
            False,
            gradient_rules.deconvnet,
            "Zeiler and Fergus 2013, Visualizing and understanding convolutional networks, section 2.1",
        ),
        Method(
            "inputxgradient",
            "Input x gradient",
            (INPUT_GRADIENTS,),
            False,
            gradient_rules.input_x_gradient,
            "Shrikumar et al. 2016, Not just a black box",
        ),
        Method(
            "cam",
            "CAM",
            (ACTIVATIONS, CLASS_WEIGHTS),
            True,
            cam_rules.cam,
            "Zhou et al. 2016, Learning deep features for discriminative localization, equation 2",
            rectified=False,
        ),
        Method(
            "gradcam",
            "Grad-CAM",
            (ACTIVATIONS, GRADIENTS),
            True,
            cam_rules.gradcam,
            "Selvaraju et al. 2017, Grad-CAM, equations 1 and 2",
        ),
        Method(
            "guided-gradcam",
            "Guided Grad-CAM",
            (ACTIVATIONS, GRADIENTS, GUIDED_GRADIENTS),
            False,
            cam_rules.guided_gradcam,
            "Selvaraju et al. 2017, Grad-CAM, section 3.2",
        ),
        Method(
            "gradcam++",
            "Grad-CAM++",
            (ACTIVATIONS, GRADIENTS),
            True,
            cam_rules.gradcam_plus_plus,
            "Chattopadhay et al. 2018, Grad-CAM++, equations 7 and 19",
        ),
        Method(
            "hirescam",
            "HiResCAM",
            (ACTIVATIONS, GRADIENTS),
            True,
            cam_rules.hirescam,
            "Draelos and Carin 2020, Use HiResCAM instead of Grad-CAM",
        ),
        Method(
            "layercam",
            "LayerCAM",
            (ACTIVATIONS, GRADIENTS),
            True,
            cam_rules.layercam,
            "Jiang et al. 2021, LayerCAM, equations 7 and 8",
        ),
        Method(
            "xgradcam",
            "XGrad-CAM",
            (ACTIVATIONS, GRADIENTS),
            True,
            cam_rules.xgradcam,
            "Fu et al. 2020, Axiom-based Grad-CAM",
        ),
        Method(
            "eigencam",
            "Eigen-CAM",
            (ACTIVATIONS,),
            True,
            cam_rules.eigencam,
            "Muhammad and Yeasin 2020, Eigen-CAM",
        ),
        Method(
            "smoothgrad",
            "SmoothGrad",
            (INPUT_GRADIENTS,),
            False,
            gradient_rules.finished,
            "Smilkov et al. 2017, SmoothGrad, section 2",
            SMOOTHGRAD,
        ),
        Method(
            "integrated-gradients",
            "Integrated gradients",
            (INPUT_GRADIENTS,),
            False,
            gradient_rules.finished,
            "Sundararajan et al. 2017, Axiomatic attribution for deep networks, equations 1 and 3",
            INTEGRATED_GRADIENTS,
        ),
        Method(
            "scorecam",
            "Score-CAM",
            (ACTIVATIONS,),
            True,
            cam_rules.channel_weighted,
            "Wang et al. 2020, Score-CAM, section 3 and algorithm 1",
            SCORECAM,
        ),
        Method(
            "ablationcam",
            "Ablation-CAM",
            (ACTIVATIONS,),
            True,
            cam_rules.channel_weighted,
            "Desai and Ramaswamy 2020, Ablation-CAM, equations 2 and 3",
            ABLATIONCAM,
        ),
    )
}


def available_methods(outputs: Iterable[str]) -> tuple[str, ...]:
    """Names of the methods that a file with these outputs can serve."""
    held = set(outputs)
    return tuple(name for name, method in METHODS.items() if held.issuperset(method.outputs))


def find_method(name: str, outputs: Collection[str], file: str) -> Method:
    """Return the method called `name`, for a file with these outputs.

    Raises:
        MethodError: there is no such method, or the file lacks an output that it needs.
    """
    method = METHODS.get(name) if isinstance(name, str) else None
    if method is None:
        raise MethodError(f"no method {brief(name)}; there are {', '.join(METHODS)}")
    missing = [output for output in method.outputs if output not in outputs]
    if CLASS_WEIGHTS in missing:
        raise MethodError(
            f"{file}: {name} needs a network that ends in global average pooling and one linear layer, and the file "
            f"holds no {CLASS_WEIGHTS}; use gradcam"
        )
    if missing:
        wanted = {*outputs, *method.outputs} - {LOGITS}
        listed = ",".join(output for output in OUTPUTS if output in wanted)
        # The exporter writes optional outputs only where they are named.
        remedy = "with" if any(output in OPTIONAL_OUTPUTS for output in missing) else "without --outputs, or with"
        raise MethodError(
            f"{file}: {name} needs {' and '.join(missing)}, which the file does not hold; export it again {remedy} "
            f"--outputs {listed}"
        )
    return method
