"""Every method against the literal NumPy float64 reference."""

from __future__ import annotations

import numpy as np
import pytest

from reference import Reference, minmax
from seewhy import Explainer, MethodError
from seewhy.methods import METHODS
from tiny_model import DEFAULT_OUTPUTS, Tiny

# float32 sums of about 200 products of size one: eps 1.2e-7 times the square root of that, with room.
RELATIVE = 5e-6
# Heatmaps lie in [0,1], and dividing by a small range can enlarge the error.
HEATMAP = 2e-5


def images(tiny: Tiny, count: int = 3) -> np.ndarray:
    return np.random.default_rng(7).standard_normal((count, 3, *tiny.size)).astype(np.float32)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    assert found.shape == expected.shape
    assert np.linalg.norm(expected) > 0
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def test_reference_gradient_is_the_slope(tiny: Tiny) -> None:
    """The reference itself, against central differences of its forward pass."""
    reference, image = Reference(tiny), images(tiny, 1)[0].astype(np.float64)
    gradient = reference.backprop(reference.forward(image), target=2)
    step = 1e-6
    for place in [(0, 0, 0), (1, 5, 7), (2, 11, 15), (0, 3, 12)]:
        moved = [image.copy(), image.copy()]
        moved[0][place] -= step
        moved[1][place] += step
        low, high = (reference.logits(m)[2] for m in moved)
        assert (high - low) / (2 * step) == pytest.approx(gradient[place], abs=1e-8)


@pytest.mark.parametrize("method", METHODS)
def test_against_reference(explainer: Explainer, tiny: Tiny, method: str) -> None:
    batch, reference = images(tiny), Reference(tiny)
    targets = [0, 5, 2]
    result = explainer.explain(batch, method=method, target=targets)
    assert result.method == method
    assert result.heatmaps.dtype == result.attributions.dtype == result.logits.dtype == np.float32
    for i, target in enumerate(targets):
        trace = reference.forward(batch[i])
        raw, values, heatmap = reference.attribution(method, trace, target)
        assert relative_error(result.logits[i], trace.logits) < RELATIVE
        assert relative_error(result.attributions[i], values) < RELATIVE
        assert np.abs(result.heatmaps[i] - heatmap).max() < HEATMAP
        if raw is None:
            assert result.maps is None
        else:
            assert result.maps is not None
            assert relative_error(result.maps[i], raw) < RELATIVE


@pytest.mark.parametrize("method", METHODS)
def test_default_target_is_the_predicted_class(explainer: Explainer, tiny: Tiny, method: str) -> None:
    batch = images(tiny)
    predicted = [int(Reference(tiny).logits(image).argmax()) for image in batch]
    result = explainer.explain(batch, method=method)
    assert result.targets.tolist() == predicted
    assert np.array_equal(result.attributions, explainer.explain(batch, method=method, target=predicted).attributions)


def test_cam_is_area_times_gradcam_before_its_relu(explainer: Explainer, tiny: Tiny) -> None:
    results = explainer.explain(images(tiny), method=["cam", "gradcam"], target=3)
    area = tiny.size[0] // 2 * (tiny.size[1] // 2)
    cam, gradcam = results["cam"].maps, results["gradcam"].maps
    assert cam is not None and gradcam is not None
    assert (gradcam < 0).any(), "the test needs values that a ReLU would change"
    assert relative_error(cam, gradcam.astype(np.float64) * area) < RELATIVE


def test_heatmaps_are_minmax_of_the_attributions(explainer: Explainer, tiny: Tiny) -> None:
    results = explainer.explain(images(tiny), method=list(METHODS))
    for name, result in results.items():
        values = result.attributions.astype(np.float64)
        if not METHODS[name].is_map:
            values = np.abs(values).max(axis=1)
        expected = np.array([minmax(value) for value in values])
        assert np.abs(result.heatmaps - expected).max() < 1e-6, name
        assert result.heatmaps.min() == 0 and result.heatmaps.max() == 1


def test_constant_map_becomes_zeros(tiny: Tiny, tmp_path) -> None:
    """A target whose every Grad-CAM weight is negative has nothing left after the ReLU."""
    weights = tiny.weights()
    weights["fc.weight"][1] = -np.abs(weights["fc.weight"][1])
    path = tmp_path / "negative.onnx"
    from seewhy import digest

    path.write_bytes(digest.seal(tiny.proto(weights).SerializeToString()))
    result = Explainer(path).explain(images(tiny), target=1)
    assert result.maps is not None and result.maps.max() <= 0
    assert not result.attributions.any() and not result.heatmaps.any()


@pytest.mark.parametrize("name", ["grad-cam", "GRADCAM", "", None, 3])
def test_unknown_method(explainer: Explainer, tiny: Tiny, name: object) -> None:
    with pytest.raises(MethodError, match=r"no method .*gradcam"):
        explainer.explain(images(tiny), method=[name])  # type: ignore[list-item]


def test_no_method(explainer: Explainer, tiny: Tiny) -> None:
    with pytest.raises(MethodError, match="no method given"):
        explainer.explain(images(tiny), method=[])


@pytest.mark.parametrize(
    ("missing", "method", "words"),
    [
        ("input_gradients", "backprop", "backprop needs input_gradients, .*--outputs"),
        ("guided_gradients", "guided-gradcam", "guided-gradcam needs guided_gradients, .*--outputs"),
        ("gradients", "gradcam", "gradcam needs gradients, .*activations,gradients"),
        ("class_weights", "cam", "cam needs a network that ends in global average pooling .* use gradcam"),
    ],
)
def test_file_without_an_output(tiny: Tiny, tmp_path, missing: str, method: str, words: str) -> None:
    outputs = tuple(name for name in DEFAULT_OUTPUTS if name != missing)
    explainer = Explainer(tiny.save(tmp_path / "part.onnx", outputs=outputs))
    assert method not in explainer.methods
    with pytest.raises(MethodError, match=words) as raised:
        explainer.explain(images(tiny), method=method)
    assert "\n" not in str(raised.value) and "part.onnx" in str(raised.value)


def test_all_methods_are_available_in_a_full_file(explainer: Explainer) -> None:
    assert explainer.methods == tuple(METHODS)
