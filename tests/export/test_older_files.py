"""Test of a model file that an earlier exporter wrote: it is read for ever, with the numbers of PyTorch's autograd.

`tests/data/schema1.onnx` was written from `network()` by SeeWhy 0.1.0 before its first release, with all outputs. The
weights follow a formula, so that any PyTorch builds the same network again.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from seewhy import Explainer
from support.references import relative_error
from support.repository import ROOT

FILE = ROOT / "tests" / "data" / "schema1.onnx"
LABELS = ("cat", "dog", "moped", "espresso")
# float32 sums of some hundred products, against float64.
RELATIVE = 1e-5


def network() -> nn.Sequential:
    """Return a network of two convolutions, whose weights are sines."""
    module = nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(6, 8, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 4),
    )
    with torch.no_grad():
        for number, value in enumerate(module.parameters()):
            value.copy_(torch.sin(torch.arange(value.numel()) * (0.7 + number / 10)).reshape(value.shape) * 0.4)
    return module.eval()


def test_the_file_of_an_earlier_exporter_gives_pytorchs_numbers() -> None:
    explainer = Explainer(FILE, ["cpu"])
    assert explainer.labels == LABELS and explainer.metadata.class_count == 4
    assert explainer.metadata.score_kind == "softmax" and explainer.metadata.image_size == (16, 20)
    images = np.random.default_rng(0).standard_normal((3, 3, 16, 20)).astype(np.float32)
    results = explainer.explain(images, ["gradcam", "cam", "backprop", "guided-backprop"], target=["dog", 0, 3])

    module = network().double()
    pixels = torch.from_numpy(images).double().requires_grad_()
    activations = module[:4](pixels)
    logits = module[4:](activations)
    chosen = logits[torch.arange(3), torch.tensor([1, 0, 3])].sum()
    gradients, input_gradients = torch.autograd.grad(chosen, [activations, pixels])
    gradcam = (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1).detach().numpy()
    assert relative_error(results["gradcam"].logits, logits.detach().numpy()) <= RELATIVE
    assert relative_error(results["gradcam"].maps, gradcam) <= RELATIVE
    # Behind global average pooling CAM is Grad-CAM times the number of places.
    assert relative_error(results["cam"].maps, gradcam * activations[0, 0].numel()) <= RELATIVE
    assert relative_error(results["backprop"].attributions, input_gradients.numpy()) <= RELATIVE

    guided = gradients.relu()  # Springenberg et al. 2014: only positive gradients pass a rectifier backwards
    hidden = module[:2](pixels)
    guided = torch.autograd.grad(module[2](hidden), hidden, guided * (activations > 0), retain_graph=True)[0].relu()
    guided = torch.autograd.grad(module[0](pixels), pixels, guided * (hidden > 0))[0]
    assert relative_error(results["guided-backprop"].attributions, guided.numpy()) <= RELATIVE
