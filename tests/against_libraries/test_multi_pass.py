"""Tests of the multi-pass methods against Captum and pytorch-grad-cam.

The numbers are equal where the definitions are equal. Where docs/concepts/semantics.md says that a library differs, the
tests show how. The libraries compute in float64; the engine computes in float32 from an exported file.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import captum.attr
import numpy as np
import pytest
import torch
from pytorch_grad_cam import AblationCAM, ScoreCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

import seewhy
from seewhy.contract.metadata import Preprocessing
from seewhy.methods.smoothgrad import add_noise
from support.exporting.networks import live_weights, stacked
from support.references import relative_error

pytestmark = pytest.mark.filterwarnings("ignore:Setting backward hooks:UserWarning")

# Compares float32 with float64, over sums of a few hundred products.
RELATIVE = 1e-5
# With rectifiers, about one input in ten thousand is so close to zero that rounding changes its sign in some pass.
RECTIFIED = 1e-3
NORMALISATION = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
Exported = Callable[..., Path]


def network(rectifier: Callable[[], nn.Module] = nn.ReLU, seed: int = 0) -> nn.Module:
    module = stacked(rectifier, nn.AvgPool2d(2))
    return live_weights(module, seed).eval()


def explainer(exported: Exported, name: str, module: nn.Module, layer: str = "second_act") -> seewhy.Explainer:
    options = {"image_size": (16, 16), "layer": layer, "preprocessing": NORMALISATION}
    return seewhy.Explainer(exported(f"passes-{name}-{layer}", module, **options))


def images(seed: int = 0) -> Tensor:
    return torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))


# Captum.

TARGETS = [1, 4]


@pytest.mark.parametrize(("rectifier", "tolerance"), [(nn.Softplus, RELATIVE), (nn.ReLU, RECTIFIED)])
@pytest.mark.parametrize(("rule", "method"), [("gauss-legendre", "gausslegendre"), ("midpoint", "riemann_middle")])
@pytest.mark.parametrize("baseline", ["zero", "black", "white"])
def test_integrated_gradients_equal_captum(
    exported: Exported, rectifier: type[nn.Module], tolerance: float, rule: str, method: str, baseline: str
) -> None:
    module = network(rectifier)
    options = {"integrated-gradients": {"steps": 20, "rule": rule, "baseline": baseline}}
    ours = explainer(exported, rectifier.__name__, module).explain(
        images().numpy(), "integrated-gradients", target=TARGETS, options=options
    )
    color = {"zero": NORMALISATION.mean, "black": (0.0,) * 3, "white": (1.0,) * 3}[baseline]
    values = [(c - m) / s for c, m, s in zip(color, NORMALISATION.mean, NORMALISATION.std, strict=True)]
    start = torch.tensor(values).view(1, 3, 1, 1).expand(1, 3, 16, 16)
    theirs, delta = captum.attr.IntegratedGradients(module.double()).attribute(
        images().double(),
        start.double(),
        TARGETS,
        n_steps=20,
        method=method,
        return_convergence_delta=True,
    )
    assert relative_error(ours.attributions, theirs.detach().numpy()) <= tolerance
    assert ours.completeness is not None
    scale = float(theirs.abs().sum(dim=(1, 2, 3)).max())
    np.testing.assert_allclose(ours.completeness, delta.abs().detach().numpy(), atol=tolerance * scale)


def test_default_integrated_gradients_equal_captum(exported: Exported) -> None:
    """The defaults are 50 steps, the Gauss-Legendre rule and a baseline of zeros."""
    module = network(nn.Softplus)
    ours = explainer(exported, "Softplus", module).explain(images().numpy(), "integrated-gradients", target=TARGETS)
    theirs = captum.attr.IntegratedGradients(module.double()).attribute(images().double(), target=TARGETS)
    assert relative_error(ours.attributions, theirs.detach().numpy()) <= RELATIVE


@pytest.mark.parametrize(("rectifier", "tolerance"), [(nn.Softplus, RELATIVE), (nn.ReLU, RECTIFIED)])
def test_smoothgrad_equals_captum_with_the_same_noise(
    exported: Exported, rectifier: type[nn.Module], tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Captum takes the deviation in units of the pixels and draws from PyTorch's generator, which is replaced here."""
    module, samples, noise = network(rectifier), 9, 0.2
    ours = explainer(exported, rectifier.__name__, module).explain(
        images().numpy(), "smoothgrad", target=TARGETS, options={"smoothgrad": {"samples": samples, "noise": noise}}
    )
    zeros = np.zeros((3, 16, 16), np.float32)
    drawn = torch.from_numpy(np.stack([add_noise(zeros, 1, 0, sample) for sample in range(samples)]))
    monkeypatch.setattr(torch, "normal", lambda mean, deviation: deviation * drawn)
    for i, target in enumerate(TARGETS):
        image = images()[i : i + 1].double()
        deviation = noise * float(image.max() - image.min())
        theirs = captum.attr.NoiseTunnel(captum.attr.Saliency(module.double())).attribute(
            image, nt_type="smoothgrad", nt_samples=samples, stdevs=deviation, target=target, abs=False
        )
        assert relative_error(ours.attributions[i], theirs[0].numpy()) <= tolerance


# pytorch-grad-cam.


def signed_targets(module: nn.Module, sign: int) -> list[int]:
    """Return for each image the class with the highest (sign 1) or lowest (sign -1) logit, which has that sign."""
    with torch.no_grad():
        logits = sign * module.double()(images().double())
    assert (logits.max(dim=1).values > 0).all()
    return logits.argmax(dim=1).tolist()


def activations(module: nn.Module, layer: str) -> np.ndarray:
    kept = []
    handle = module.get_submodule(layer).register_forward_hook(lambda _m, _i, output: kept.append(output))
    with torch.no_grad():
        module.double()(images().double())
    handle.remove()
    return kept[0].numpy()


def library_map(cam: type, module: nn.Module, layer: str, targets: list[int]) -> np.ndarray:
    """Return a map of pytorch-grad-cam before its ReLU, resizing and scaling."""
    library_targets = [ClassifierOutputTarget(target) for target in targets]
    maps = activations(module, layer)
    target_layer = module.get_submodule(layer)
    with cam(model=module.double(), target_layers=[target_layer]) as method:
        return np.asarray(method.get_cam_image(images().double(), target_layer, library_targets, maps, None, False))


def our_map(
    exported: Exported, name: str, module: nn.Module, layer: str, method: str, targets: list[int]
) -> np.ndarray:
    found = explainer(exported, name, module.float(), layer).explain(images().numpy(), method, target=targets).maps
    assert found is not None
    return found


# pytorch-grad-cam keeps scores in float32. The weights of Ablation-CAM are differences of scores, at most a
# tenth as large.
ABLATED = 1e-4


@pytest.mark.parametrize("layer", ["second_act", "first_act"])
def test_ablationcam_equals_pytorch_grad_cam(exported: Exported, layer: str) -> None:
    module = network()
    targets = signed_targets(module, 1)
    assert activations(module, layer).min() == 0
    theirs = library_map(AblationCAM, module, layer, targets)
    assert relative_error(our_map(exported, "relu", module, layer, "ablationcam", targets), theirs) <= ABLATED


def test_ablationcam_differs_for_negative_logits(exported: Exported) -> None:
    """pytorch-grad-cam divides by the logit, SeeWhy by its magnitude, so the maps have opposite signs."""
    module = network()
    targets = signed_targets(module, -1)
    theirs = library_map(AblationCAM, module, "second_act", targets)
    ours = our_map(exported, "relu", module, "second_act", "ablationcam", targets)
    assert relative_error(ours, -theirs) <= ABLATED


def test_ablationcam_differs_for_negative_activations(exported: Exported) -> None:
    """pytorch-grad-cam replaces such channels with -1e7 instead of zero as in the paper."""
    module = network(nn.Tanh)
    targets = signed_targets(module, 1)
    assert activations(module, "third_act").min() < 0
    theirs = library_map(AblationCAM, module, "third_act", targets)
    ours = our_map(exported, "tanh", module, "third_act", "ablationcam", targets)
    assert np.abs(theirs).max() > 1e4 * np.abs(ours).max()


class HalfPixel(nn.Upsample):
    """Bilinear upsampling with half-pixel centers, instead of the library's upsampling with aligned corners."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__(size=size, mode="bilinear", align_corners=False)


@pytest.mark.parametrize("layer", ["second", "second_act"])
def test_scorecam_equals_pytorch_grad_cam_except_for_upsampling(
    exported: Exported, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = network()
    targets = signed_targets(module, 1)
    ours = our_map(exported, "relu", module, layer, "scorecam", targets)
    aligned = library_map(ScoreCAM, module, layer, targets)
    assert relative_error(ours, aligned) > 100 * RELATIVE
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", HalfPixel)
    assert relative_error(ours, library_map(ScoreCAM, module, layer, targets)) <= RELATIVE


def test_scorecam_gives_dead_channels_no_weight(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pytorch-grad-cam, a channel of zeros masks everything but still has a share of the softmax.

    Its map is therefore smaller by a constant factor and the same after scaling.
    """
    module = network()
    with torch.no_grad():
        module.get_submodule("second").weight[3] = 0
        module.get_submodule("second").bias[3] = -1
    targets = signed_targets(module, 1)
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", HalfPixel)
    theirs = library_map(ScoreCAM, module, "second_act", targets)
    ours = our_map(exported, "dead", module, "second_act", "scorecam", targets)
    for our_image, their_image in zip(ours, theirs, strict=True):
        factor = our_image.sum() / their_image.sum()
        assert factor > 1 + 100 * RELATIVE
        assert relative_error(our_image, factor * their_image) <= RELATIVE
