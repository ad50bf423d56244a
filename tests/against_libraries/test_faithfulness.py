"""Tests of the metrics of faithfulness against pytorch-grad-cam and Captum, with the conventions of each.

The libraries run the module in float64, the engine runs the exported file in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import captum.attr
import captum.metrics
import numpy as np
import pytest
import pytorch_grad_cam.metrics.road as road
import torch
from pytorch_grad_cam.metrics.cam_mult_image import DropInConfidence, IncreaseInConfidence
from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget
from torch import Tensor, nn

import seewhy
from seewhy.contract.metadata import Preprocessing
from seewhy.metrics.baselines import baseline
from seewhy.metrics.built_in import BUILT_IN
from seewhy.metrics.infidelity import perturbations
from support.evaluated import evaluated, measure
from support.exporting.networks import live_weights

# pytorch-grad-cam calls NumPy with tensors.
pytestmark = pytest.mark.filterwarnings("ignore:__array_wrap__:DeprecationWarning")

METRICS = {metric.name: metric for metric in BUILT_IN}
NORMALISATION = Preprocessing(mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3))
# A tenth of the pixels is a whole number.
SIZE = (20, 16)
TARGETS = [0, 2, 3]
Exported = Callable[..., Path]


def network() -> nn.Module:
    layers = [nn.Conv2d(3, 8, 3, padding=1), nn.Softplus(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3), nn.Softplus()]
    return live_weights(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))).eval()


def images() -> Tensor:
    return torch.randn(len(TARGETS), 3, *SIZE, generator=torch.Generator().manual_seed(1))


def maps() -> np.ndarray:
    """Return maps without ties, scaled to [0, 1]: one that follows the image, and two at random."""
    values = np.random.default_rng(0).random((len(TARGETS), *SIZE)) + 0.2 * np.abs(images().numpy()).sum(axis=1)
    ranks = values.reshape(len(TARGETS), -1).argsort(axis=1).argsort(axis=1)
    return (ranks.reshape(values.shape) / (values[0].size - 1)).astype(np.float32)


@pytest.fixture
def explainer(exported: Exported) -> seewhy.Explainer:
    path = exported("faithfulness", network(), image_size=SIZE, preprocessing=NORMALISATION, score="softmax")
    return seewhy.Explainer(path, threads=1)


def rows(explainer: seewhy.Explainer, methods: list[str]) -> list[dict]:
    """Return the explanations of each image; that by `ours` has the given map."""
    inputs = zip(images().numpy(), maps(), TARGETS, strict=True)
    return [evaluated(explainer, image, methods, {"ours": one}, target) for image, one, target in inputs]


def measured(explainer: seewhy.Explainer, name: str, **options: object) -> np.ndarray:
    return np.array([measure(METRICS[name], row["ours"], **options).value for row in rows(explainer, ["backprop"])])


def library_targets() -> list[ClassifierOutputSoftmaxTarget]:
    return [ClassifierOutputSoftmaxTarget(target) for target in TARGETS]


# pytorch-grad-cam.


def test_drop_and_increase_equal_pytorch_grad_cam(explainer: seewhy.Explainer) -> None:
    """Its drop is not divided by the probability."""
    arguments = (images().double(), maps(), library_targets(), network().double())
    drop, increase = (metric()(*arguments) for metric in (DropInConfidence, IncreaseInConfidence))
    np.testing.assert_allclose(measured(explainer, "average-drop", relative="no"), drop, atol=1e-6)
    np.testing.assert_array_equal(measured(explainer, "increase"), increase)
    assert 0 < increase.sum() < len(TARGETS)
    whole = torch.softmax(network().double()(images().double()), 1)[range(len(TARGETS)), TARGETS].detach().numpy()
    np.testing.assert_allclose(measured(explainer, "average-drop"), drop / whole, atol=1e-5)


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Switch off the noise of pytorch-grad-cam's imputation, which its classes do not let one do."""
    monkeypatch.setattr(road.torch, "randn_like", torch.zeros_like)


@pytest.mark.usefixtures("silent")
def test_road_equals_pytorch_grad_cam(explainer: seewhy.Explainer) -> None:
    """Its percentile p keeps p % of the pixels. Its scores are changes, so MoRF is negative where the score falls."""
    arguments = (images(), maps(), library_targets(), network())
    theirs = {
        "combined": road.ROADCombined()(*arguments),
        "lerf": road.ROADLeastRelevantFirstAverage()(*arguments),
        "morf": -road.ROADMostRelevantFirstAverage()(*arguments),
    }
    for order, expected in theirs.items():
        assert np.abs(expected).max() > 1e-3
        found = measured(explainer, "road", order=order, noise=0)
        np.testing.assert_allclose(found, expected, atol=2e-6, err_msg=order)


@pytest.mark.usefixtures("silent")
def test_percentiles_of_a_rectified_map_remove_other_shares(explainer: seewhy.Explainer) -> None:
    """If 60 % of the map is 0, pytorch-grad-cam removes the same pixels for all shares up to 60 %."""
    flat = np.maximum(0, maps()[0] - np.float32(0.6))
    image = images()[:1]
    removed = [
        road.RemoveLeastRelevantFirst(percentile, road.NoisyLinearImputer())(image[0], torch.from_numpy(flat))
        for percentile in (90, 50)
    ]
    assert torch.equal(*removed)
    row = evaluated(explainer, image[0].numpy(), ["backprop"], {"ours": flat}, TARGETS[0])["ours"]
    curve = measure(METRICS["road"], row, order="lerf", noise=0).details["curves"]["lerf"]
    assert len(set(curve)) == 9


# Captum.


@pytest.mark.parametrize("normalize", ["yes", "no"])
@pytest.mark.parametrize(("perturbation", "scale"), [("noise", 0.3), ("square", 0.4)])
@pytest.mark.parametrize("method", ["backprop", "inputxgradient", "integrated-gradients", "smoothgrad"])
def test_infidelity_equals_captum(
    explainer: seewhy.Explainer, method: str, perturbation: str, scale: float, normalize: str
) -> None:
    """Captum gets our perturbations, and divides by the image for methods that multiply by it."""
    module, options = network().double(), {"perturbation": perturbation, "samples": 40, "scale": scale}
    multiplied = method in ("inputxgradient", "integrated-gradients")
    for image, target, by_method in zip(images().double(), TARGETS, rows(explainer, [method]), strict=True):
        row = by_method[method]
        drawn = torch.from_numpy(np.concatenate(list(perturbations(row.image, options)))).double()

        @captum.metrics.infidelity_perturb_func_decorator(multiplied)
        def perturbed(inputs: Tensor, drawn: Tensor = drawn) -> Tensor:
            return inputs - drawn

        theirs = captum.metrics.infidelity(
            module,
            perturbed,
            image[None],
            torch.from_numpy(row.attribution)[None].double(),
            target=target,
            n_perturb_samples=40,
            normalize=normalize == "yes",
        )
        ours = measure(METRICS["infidelity"], row, normalize=normalize, **options).value
        assert ours == pytest.approx(float(theirs), rel=1e-3, abs=1e-9)


@pytest.mark.parametrize("start", ["zero", "black", "blur", "mean"])
def test_completeness_equals_the_convergence_delta_of_captum(explainer: seewhy.Explainer, start: str) -> None:
    library = captum.attr.IntegratedGradients(network().double())
    for image, target, by_method in zip(images().double(), TARGETS, rows(explainer, ["inputxgradient"]), strict=True):
        row = by_method["inputxgradient"]
        theirs = library.compute_convergence_delta(
            torch.from_numpy(row.attribution)[None].double(),
            torch.from_numpy(baseline(row.image, start))[None].double(),
            image[None],
            target=target,
        )
        assert abs(float(theirs)) > 1e-3
        ours = measure(METRICS["completeness"], row, baseline=start).value
        assert ours == pytest.approx(abs(float(theirs)), abs=1e-5)
