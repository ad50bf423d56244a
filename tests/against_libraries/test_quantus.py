"""Tests of metrics against Quantus, with the same conventions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import seewhy
from seewhy.metrics.built_in import BUILT_IN
from support.evaluated import evaluated, measure
from support.exporting.networks import live_weights
from support.quantus_library import import_quantus

quantus = import_quantus()

METRICS = {metric.name: metric for metric in BUILT_IN}
SIZE, TARGET, STEPS = (16, 10), 2, 8
Exported = Callable[..., Path]


def network() -> nn.Module:
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4)]
    return live_weights(nn.Sequential(*layers)).eval()


def image() -> np.ndarray:
    return torch.randn(1, *SIZE, generator=torch.Generator().manual_seed(1)).numpy()


def attribution(signed: bool = True) -> np.ndarray:
    values = np.random.default_rng(0).standard_normal(SIZE).astype(np.float32)
    return values if signed else np.maximum(0, values)


@pytest.fixture
def explainer(exported: Exported) -> seewhy.Explainer:
    return seewhy.Explainer(exported("quantus", network(), image_size=SIZE, preprocessing=None, score="softmax"))


def theirs(metric: object, values: np.ndarray) -> np.ndarray:
    found = metric(model=network(), x_batch=image()[None], y_batch=np.array([TARGET]), a_batch=values[None, None])
    return np.asarray(found[0])


def ours(explainer: seewhy.Explainer, name: str, values: np.ndarray, **options: object):
    row = evaluated(explainer, image(), ["backprop"], {"ours": values}, TARGET)["ours"]
    return measure(METRICS[name], row, **options)


QUIET = {"disable_warnings": True, "display_progressbar": False}


@pytest.mark.parametrize("signed", [True, False])
@pytest.mark.parametrize(("name", "library"), [("sparseness", "Sparseness"), ("entropy", "Complexity")])
def test_complexity_equals_quantus(explainer: seewhy.Explainer, name: str, library: str, signed: bool) -> None:
    """Quantus takes |map| as well, and adds 1e-7 to each pixel before it computes the Gini index."""
    expected = theirs(getattr(quantus, library)(**QUIET), attribution(signed))
    assert ours(explainer, name, attribution(signed)).value == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("score", ["probability", "logit"])
def test_deletion_equals_pixel_flipping(explainer: seewhy.Explainer, score: str) -> None:
    """The curve of Quantus begins after the first step. It is compared before the removal of the last pixels."""
    metric = quantus.PixelFlipping(features_in_step=160 // STEPS, perturb_baseline=0.0, **QUIET)
    found = metric(
        model=network(),
        x_batch=image()[None],
        y_batch=np.array([TARGET]),
        a_batch=attribution()[None, None],
        softmax=score == "probability",
    )
    expected = np.asarray(found[0])
    mine = ours(explainer, "deletion", attribution(), steps=STEPS, score=score)
    np.testing.assert_allclose(mine.curve[1:], expected, atol=1e-5)
    whole = network()(torch.from_numpy(image())[None])
    start = (torch.softmax(whole, 1) if score == "probability" else whole)[0, TARGET].item()
    curve = np.array([start, *expected])
    assert mine.value == pytest.approx(float((curve[1:] + curve[:-1]).sum() / 2 / STEPS), abs=1e-5)
