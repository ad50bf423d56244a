"""Tests of `Explainer.predict`, `preprocess` and `warm_up`, and of the repr of explanations and predictions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy import ArgumentError, Explainer, ImageError
from seewhy.explainer.prediction import percent_text, probabilities, score_text
from support.session_calls import StartedSessions
from support.tiny_model_files import pixels

MakeImage = Callable[..., Image.Image]


def test_a_prediction_equals_the_forward_pass(explainer: Explainer, make_image: MakeImage) -> None:
    images = [make_image(seed=i) for i in range(3)]
    prediction, explanation = explainer.predict(images, batch_size=2), explainer.explain(images, top=3)
    assert len(prediction) == 3
    np.testing.assert_array_equal(prediction.logits, explanation.logits)
    assert prediction.probabilities is not None and explanation.probabilities is not None
    np.testing.assert_array_equal(prediction.probabilities, explanation.probabilities)
    assert prediction.top(3).tolist() == explanation.targets.tolist()
    assert prediction.classes.tolist() == explanation.targets[:, 0].tolist()
    assert prediction.labels == [labels[0] for labels in explanation.labels]


def test_preprocessed_images_give_the_same_numbers(explainer: Explainer, make_image: MakeImage) -> None:
    images = [make_image(seed=i) for i in range(2)]
    preprocessed = explainer.preprocess(images)
    assert preprocessed.dtype == np.float32 and preprocessed.shape == (2, 3, 12, 16)
    assert np.array_equal(explainer.predict(preprocessed).logits, explainer.predict(images).logits)
    assert np.array_equal(explainer.explain(preprocessed).heatmaps, explainer.explain(images).heatmaps)


def test_a_warm_explainer_starts_no_session(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(model_path, ["cpu"], threads=1)
    explainer.warm_up(["gradcam", "backprop"], classes=2)
    started = StartedSessions(monkeypatch)
    explainer.explain(pixels(1), ["gradcam", "backprop"], top=2)
    assert started.count == 0
    explainer.explain(pixels(1), "guided-backprop")
    assert started.count == 1


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "< 0.1 %"),
        (0.00099, "< 0.1 %"),
        (0.001, "0.1 %"),
        (0.6312, "63.1 %"),
        (0.999, "99.9 %"),
        (0.9991, "> 99.9 %"),
        (0.9999999, "> 99.9 %"),
        (1.0, "100.0 %"),
    ],
)
def test_probabilities_are_not_rounded_to_certainty(share: float, text: str) -> None:
    assert percent_text(share) == text
    if share not in (0, 0.001, 0.999, 1):  # float32 may lie on either side of the bounds
        logits = np.array([[np.log(share / (1 - share)), 0]], np.float32)
        for kind in ("sigmoid", "softmax"):
            shares = probabilities(logits, kind)
            assert shares is not None and score_text(logits[0], shares[0], 0) == text
    assert score_text(np.array([1.234, 0], np.float32), None, 0) == "logit 1.23"


def test_wrong_arguments(explainer: Explainer) -> None:
    for wrong in (0, 1.5, "2", True):
        with pytest.raises(ArgumentError, match="batch_size must be a positive integer"):
            explainer.predict(pixels(), batch_size=wrong)  # type: ignore[arg-type]
        with pytest.raises(ArgumentError, match="batch_size must be a positive integer"):
            explainer.warm_up(batch_size=wrong)  # type: ignore[arg-type]
    with pytest.raises(ArgumentError, match="top must be an integer from 1 to 6, not 7"):
        explainer.predict(pixels()).top(7)
    with pytest.raises(ImageError, match="no images given"):
        explainer.predict([])
    with pytest.raises(ArgumentError, match="the model file must be a path .str or Path., not 3"):
        Explainer(3)  # type: ignore[arg-type]


def test_results_print_few_lines(explainer: Explainer, make_image: MakeImage) -> None:
    images = [make_image(seed=i) for i in range(7)]
    for text in (repr(explainer.predict(images)), repr(explainer.explain(images, top=2))):
        lines = text.splitlines()
        assert len(lines) == 7 and "7 images" in lines[0] and lines[-1] == "  ... and 2 more>"
        assert all(len(line) <= 160 for line in lines) and "%" in lines[1]
    assert "1 image, maps 1x" in repr(explainer.explain(images[0]))
    assert "input attributions 1x3x12x16" in repr(explainer.explain(images[0], "backprop"))
