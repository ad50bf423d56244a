"""Tests of `class-sensitivity`."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from seewhy import Explainer
from seewhy.metrics.base import EvaluatedMethod, NotMeasurable, Scope
from seewhy.metrics.class_sensitivity import CLASS_SENSITIVITY
from support.color_network import color_image
from support.evaluated import evaluated, measure
from support.tiny_model_files import pixels


@pytest.mark.parametrize("method", ["gradcam", "backprop", "inputxgradient", "smoothgrad"])
@pytest.mark.parametrize("rank", [0, 1, 5])
def test_it_is_the_rank_correlation_of_two_classes(explainer: Explainer, method: str, rank: int) -> None:
    image = pixels(1, seed=11)[0]
    order = np.argsort(-explainer.predict(image[None]).logits[0])
    target = int(order[rank])
    other = int(order[0] if rank else order[1])
    one = evaluated(explainer, image, [method], target=target)[method]
    found = measure(CLASS_SENSITIVITY, one)

    def values(index: int) -> np.ndarray:
        raw = explainer.explain(image[None], method, target=index).attributions[0]
        if method in ("backprop", "smoothgrad"):
            return np.abs(raw).max(axis=0)
        return raw if raw.ndim == 2 else raw.sum(axis=0)

    expected = stats.spearmanr(values(target).ravel(), values(other).ravel()).statistic
    assert found.value == pytest.approx(expected, abs=1e-6) and found.details == {"other": other}
    assert CLASS_SENSITIVITY.direction == "lower"


def test_methods_that_ignore_the_class(explainer: Explainer) -> None:
    found = evaluated(explainer, pixels(1)[0], ["eigencam"])
    assert measure(CLASS_SENSITIVITY, found["eigencam"]).value == 1
    assert measure(CLASS_SENSITIVITY, found["centre"]).value == 1
    assert abs(measure(CLASS_SENSITIVITY, found["random"]).value) < 0.3  # the standard error is 1 / sqrt(192)


def test_two_colors_have_opposite_maps(colors: Explainer) -> None:
    where = np.zeros((32, 32), np.bool_)
    where[:, :16] = True
    (image,) = colors.preprocess([color_image(0, 0, where)])  # half red, half green
    one = evaluated(colors, image, ["inputxgradient"], target=0)["inputxgradient"]
    assert measure(CLASS_SENSITIVITY, one).value < -0.5


def test_a_constant_map_has_no_value(colors: Explainer, explainer: Explainer) -> None:
    (image,) = colors.preprocess([color_image(0, 0)])  # nothing but red
    with pytest.raises(NotMeasurable, match=r"the map for class \d is constant"):
        measure(CLASS_SENSITIVITY, evaluated(colors, image, ["gradcam"], target=0)["gradcam"])
    with pytest.raises(NotMeasurable, match="the map is constant"):
        measure(CLASS_SENSITIVITY, evaluated(colors, image, ["gradcam"], target=2)["gradcam"])


def test_where_it_does_not_apply(explainer: Explainer) -> None:
    method = EvaluatedMethod("gradcam", "Grad-CAM", True, "sum", explainer.resolve_methods("gradcam")[0])
    external = EvaluatedMethod("mine", "mine", True, "sum")
    scope = Scope(explainer.metadata)
    assert CLASS_SENSITIVITY.unsuitable(method, scope, {}) is None
    assert "maps are files" in str(CLASS_SENSITIVITY.unsuitable(external, scope, {}))
    single = Scope(replace(explainer.metadata, class_count=1))
    assert "single class" in str(CLASS_SENSITIVITY.unsuitable(method, single, {}))
