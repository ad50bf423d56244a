"""Tests of `stability` and `max-sensitivity`; tests/against_libraries compares the latter with Captum."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from seewhy import Explainer
from seewhy.metrics.base import NotMeasurable, Scope
from seewhy.metrics.robustness import ROBUSTNESS, perturbations
from support.evaluated import evaluated, measure
from support.tiny_model import Tiny
from support.tiny_model_files import pixels

STABILITY, MAX_SENSITIVITY = ROBUSTNESS


def noisy(image: np.ndarray, noise: float, samples: int, seed_of: object) -> np.ndarray:
    """Return the noisy images of the docstring, drawn again."""
    drawn = seed_of.rng("stability").standard_normal((samples, *image.shape), np.float32)  # type: ignore[attr-defined]
    return (image + np.float32(noise) * (image.max() - image.min()) * drawn).astype(np.float32)


@pytest.fixture
def undecided(tmp_path: Path) -> Explainer:
    """Return an explainer of a model that predicts either of two classes for noise."""
    return Explainer(Tiny(seed=4).save(tmp_path / "undecided.onnx"), threads=1)


@pytest.mark.parametrize("method", ["gradcam", "backprop"])
def test_stability_is_the_mean_distance_of_ranks(undecided: Explainer, method: str) -> None:
    explainer, image = undecided, pixels(1)[0]
    one = evaluated(explainer, image, [method])[method]
    found = measure(STABILITY, one, noise=0.1, samples=12)
    copies = noisy(image, 0.1, 12, one.image)
    assert np.std((copies - image) / (image.max() - image.min())) == pytest.approx(0.1, rel=0.05)
    predicted = explainer.predict(image[None]).logits.argmax()
    kept = copies[explainer.predict(copies).logits.argmax(axis=1) == predicted]
    assert 0 < len(kept) < 12  # otherwise, this test would not see that some do not count

    def values(raw: np.ndarray) -> np.ndarray:
        return (raw if raw.ndim == 2 else np.abs(raw).max(axis=0)).ravel()

    first = values(explainer.explain(image[None], method).attributions[0])
    maps = explainer.explain(kept, method, target=int(predicted)).attributions
    expected = np.mean([1 - stats.spearmanr(first, values(one)).statistic for one in maps])
    assert found.value == pytest.approx(expected, abs=1e-6)
    assert found.details == {"changed": 12 - len(kept)}


def test_more_noise_is_less_stable(explainer: Explainer) -> None:
    found = evaluated(explainer, pixels(1)[0], ["backprop", "gradcam"])
    for method in ("backprop", "gradcam"):
        weak, strong = (measure(STABILITY, found[method], noise=noise).value for noise in (0.001, 0.05))
        assert 0 <= weak < strong
    assert measure(STABILITY, found["centre"]).value == 0
    assert measure(STABILITY, found["random"]).value == pytest.approx(1, abs=0.2)


def test_stability_without_a_value(explainer: Explainer, undecided: Explainer) -> None:
    constant = evaluated(explainer, np.ones((3, 12, 16), np.float32), ["backprop"])["backprop"]
    with pytest.raises(NotMeasurable, match="the image is constant"):
        measure(STABILITY, constant)
    image = pixels(1)[0]
    predicted = undecided.predict(image[None]).logits.argmax()
    found = [evaluated(undecided, image, ["backprop"], seed=seed)["backprop"] for seed in range(20)]
    changed = [undecided.predict(noisy(image, 0.1, 1, one.image)).logits.argmax() != predicted for one in found]
    assert any(changed) and not all(changed)
    for one, has_changed in zip(found, changed, strict=True):
        if has_changed:
            with pytest.raises(NotMeasurable, match="the noise changes the prediction of every sample"):
                measure(STABILITY, one, noise=0.1, samples=1)
        else:
            assert measure(STABILITY, one, noise=0.1, samples=1).value > 0
    flat = evaluated(explainer, image, maps={"flat": np.ones((12, 16), np.float32)})["flat"]
    with pytest.raises(NotMeasurable, match="the map is constant"):
        measure(STABILITY, flat)


def test_a_model_of_one_class_has_a_prediction(tmp_path: Path) -> None:
    """The prediction of a sigmoid is its yes or no, although the predicted class is always 0."""
    explainer = Explainer(Tiny(seed=2, classes=1, labels=None, score="sigmoid").save(tmp_path / "one.onnx"), threads=1)
    image = pixels(1)[0]
    one = evaluated(explainer, image, ["backprop"])["backprop"]
    yes = explainer.predict(np.concatenate([image[None], noisy(image, 0.1, 20, one.image)])).logits[:, 0] > 0
    changed = int((yes[1:] != yes[0]).sum())
    assert 0 < changed < 20
    assert measure(STABILITY, one, noise=0.1, samples=20).details == {"changed": changed}


def test_max_sensitivity(explainer: Explainer) -> None:
    image = pixels(1)[0]
    for method in ("gradcam", "inputxgradient"):
        one = evaluated(explainer, image, [method], target=3)[method]
        found = measure(MAX_SENSITIVITY, one, radius=0.1, samples=7).value
        changes = perturbations(one.image, 0.1, 7)
        assert changes.shape == (7, 3, 12, 16) and 0.09 < np.abs(changes).max() <= 0.1
        original, *others = (
            explainer.explain(each[None], method, target=3).attributions[0].astype(np.float64)
            for each in (image, *(image + changes))
        )
        distances = [np.sqrt(((other - original) ** 2).sum()) for other in others]
        assert found == pytest.approx(max(distances) / np.sqrt((original**2).sum()), rel=1e-4)
        assert found > measure(MAX_SENSITIVITY, one, radius=0.001).value > 0
    assert measure(MAX_SENSITIVITY, evaluated(explainer, image, ["gradcam"])["centre"]).value == 0


def test_attributions_of_zero_have_no_sensitivity(explainer: Explainer) -> None:
    one = evaluated(explainer, pixels(1)[0], maps={"zero": np.zeros((12, 16), np.float32)})["zero"]
    with pytest.raises(NotMeasurable, match="the attributions are zero everywhere"):
        measure(MAX_SENSITIVITY, one)


@pytest.mark.parametrize("metric", ROBUSTNESS, ids=lambda one: one.name)
def test_files_have_no_maps_of_noisy_images(explainer: Explainer, metric: object) -> None:
    one = evaluated(explainer, pixels(1)[0], ["backprop"], {"mine": np.ones((12, 16), np.float32)})
    scope = Scope(explainer.metadata)
    assert "maps are files" in metric.unsuitable(one["mine"].method, scope, {})  # type: ignore[attr-defined]
    assert metric.unsuitable(one["backprop"].method, scope, {}) is None  # type: ignore[attr-defined]


def test_all_methods_explain_the_same_noisy_images(explainer: Explainer) -> None:
    """One call explains for all methods."""
    one = evaluated(explainer, pixels(1)[0], ["backprop", "gradcam"])
    measure(STABILITY, one["backprop"])
    before = dict(one["gradcam"].image._explained)
    measure(STABILITY, one["gradcam"])
    assert one["gradcam"].image._explained == before
