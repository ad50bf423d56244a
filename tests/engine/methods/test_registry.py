"""Tests of all methods in `seewhy.methods.registry` against literal NumPy float64 references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seewhy import Explainer, MethodError
from seewhy.contract.constants import ACTIVATIONS, GRADIENTS
from seewhy.methods.base import RuleContext, full_size
from seewhy.methods.registry import METHODS
from support.references import relative_error
from support.references.methods import MAPS, WEIGHTS, Reference, minmax, upsample
from support.tiny_model import DEFAULT_OUTPUTS, Tiny
from support.tiny_model_files import pixels, write

# Tolerance for float32 sums of about 200 products of size one: about 3 * 1.2e-7 * sqrt(200).
RELATIVE = 5e-6
# Heatmaps are in [0, 1]. Dividing by a small range can enlarge the error.
HEATMAP = 2e-5


def test_reference_gradient_is_the_slope(tiny: Tiny) -> None:
    """Compare the reference with central differences of its forward pass."""
    reference, image = Reference(tiny), pixels(1)[0].astype(np.float64)
    gradient = reference.backprop(reference.forward(image), target=2)
    step = 1e-6
    for position in [(0, 0, 0), (1, 5, 7), (2, 11, 15), (0, 3, 12)]:
        moved = [image.copy(), image.copy()]
        moved[0][position] -= step
        moved[1][position] += step
        low, high = (reference.logits(m)[2] for m in moved)
        assert (high - low) / (2 * step) == pytest.approx(gradient[position], abs=1e-8)


# Multi-pass methods have another reference; see test_multi_pass.py.
@pytest.mark.parametrize("method", [name for name in METHODS if METHODS[name].multi_pass is None])
def test_against_reference(explainer: Explainer, tiny: Tiny, method: str) -> None:
    batch, reference = pixels(), Reference(tiny)
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
    batch = pixels()
    predicted = [int(Reference(tiny).logits(image).argmax()) for image in batch]
    result = explainer.explain(batch, method=method)
    assert result.targets.tolist() == predicted
    assert np.array_equal(result.attributions, explainer.explain(batch, method=method, target=predicted).attributions)


def test_cam_is_area_times_gradcam_before_its_relu(explainer: Explainer, tiny: Tiny) -> None:
    results = explainer.explain(pixels(), method=["cam", "gradcam"], target=3)
    area = tiny.size[0] // 2 * (tiny.size[1] // 2)
    cam, gradcam = results["cam"].maps, results["gradcam"].maps
    assert cam is not None and gradcam is not None
    assert (gradcam < 0).any(), "the test needs negative values"
    assert relative_error(cam, gradcam.astype(np.float64) * area) < RELATIVE


def test_heatmaps_are_minmax_of_the_attributions(explainer: Explainer, tiny: Tiny) -> None:
    results = explainer.explain(pixels(), method=list(METHODS))
    for name, result in results.items():
        values = result.attributions.astype(np.float64)
        if not METHODS[name].is_map:
            values = np.abs(values).max(axis=1)
        expected = np.array([minmax(value) for value in values])
        assert np.abs(result.heatmaps - expected).max() < 1e-6, name
        assert result.heatmaps.min() == 0 and result.heatmaps.max() == 1


# Rules of CAM methods on activations and gradients of all kinds. In the tiny model, gradients are constant over a map,
# and activations are never negative.

EPSILON = float(np.finfo(np.float32).eps)
RULES = sorted(MAPS)
ACTIVATION_KINDS = {
    "signed": lambda random, shape: random.standard_normal(shape),
    "rectified": lambda random, shape: np.maximum(random.standard_normal(shape), 0),
    "zeros": lambda random, shape: np.zeros(shape),
    "constant": lambda random, shape: np.full(shape, random.standard_normal()),
    # Sums of zero are frequent, and with quarters as gradients also zero denominators. All sums are exact.
    "integers": lambda random, shape: random.integers(-3, 4, shape),
}
GRADIENT_KINDS = {
    "signed": lambda random, shape: random.standard_normal(shape),
    "small": lambda random, shape: random.standard_normal(shape) * 1e-5,
    "zeros": lambda random, shape: np.zeros(shape),
    "negative": lambda random, shape: -np.abs(random.standard_normal(shape)),
    "quarters": lambda random, shape: random.integers(-8, 9, shape) / 4,
}


def apply(method: str, activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return the maps (N,h,w) of a CAM method for activations and gradients (N,C,h,w), with an input of 6x5."""
    return METHODS[method].rule({ACTIVATIONS: activations, GRADIENTS: gradients}, RuleContext(6, 5, 1))


def one(method: str, activations: object, gradients: object) -> np.ndarray:
    """Return the map for one image with activations and gradients (C,h,w)."""
    batch = [np.array(values, np.float32)[None] for values in (activations, gradients)]
    return apply(method, *batch)[0]


def terms(method: str, activations: np.ndarray, gradients: np.ndarray) -> np.ndarray:
    """Return the absolute values (C,h,w) of the terms that a map is summed from."""
    if method in WEIGHTS:
        return np.abs(WEIGHTS[method](activations, gradients)[:, None, None] * activations)
    return np.abs(gradients * activations)


def assert_first_component(found: np.ndarray, activations: np.ndarray) -> None:
    """Assert the definition of Eigen-CAM, and equality with the reference if the first component is unique."""
    matrix = activations.reshape(len(activations), -1).T
    singular = np.linalg.svd(matrix, compute_uv=False)
    largest, second = singular[0], singular[1] if len(singular) > 1 else 0.0
    component = found.astype(np.float64).ravel()
    assert np.linalg.norm(component) == pytest.approx(largest, rel=2 * EPSILON)
    product = matrix @ (matrix.T @ component)
    assert np.linalg.norm(product - largest**2 * component) <= 4 * EPSILON * largest**3
    sign = (component * matrix.sum(axis=1)).sum() / (largest**2 or 1)
    assert sign >= -4 * EPSILON * matrix.shape[1]
    if largest - second > 1e-3 * largest and sign > 1e-3:
        expected = MAPS["eigencam"](activations, activations)
        assert np.abs(found - expected).max() <= 4 * EPSILON * largest


@pytest.mark.parametrize("method", RULES)
@settings(deadline=None, max_examples=100)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 6), st.integers(1, 5), st.integers(1, 5)),
    kinds=st.tuples(st.sampled_from(sorted(ACTIVATION_KINDS)), st.sampled_from(sorted(GRADIENT_KINDS))),
    seed=st.integers(0, 2**32),
)
def test_rules_against_the_reference(
    method: str, shape: tuple[int, int, int, int], kinds: tuple[str, str], seed: int
) -> None:
    random = np.random.default_rng(seed)
    activations = ACTIVATION_KINDS[kinds[0]](random, shape).astype(np.float32)
    gradients = GRADIENT_KINDS[kinds[1]](random, shape).astype(np.float32)
    found = apply(method, activations, gradients)
    assert found.shape == (shape[0], *shape[2:]) and found.dtype == np.float32
    full = full_size(found, True, RuleContext(6, 5, 1))
    assert full.shape == (shape[0], 6, 5) and full.dtype == np.float32
    for n in range(shape[0]):
        exact = activations[n].astype(np.float64), gradients[n].astype(np.float64)
        if method == "eigencam":
            assert_first_component(found[n], exact[0])
        else:
            # Weights and sums are computed in float64 and rounded once each, so each term is rounded twice.
            bound = EPSILON * terms(method, *exact).sum(axis=0) + 1e-37
            assert (np.abs(found[n] - MAPS[method](*exact)) <= bound).all()
        rectified = np.maximum(found[n].astype(np.float64), 0)
        assert np.abs(full[n] - upsample(rectified, (6, 5))).max() <= 4 * EPSILON * rectified.max()


@pytest.mark.parametrize("method", sorted(set(RULES) - {"eigencam"}))
def test_gradients_that_are_constant_over_a_map(method: str) -> None:
    """Each weight is then the gradient itself, so the methods without rectified gradients are equal."""
    random = np.random.default_rng(3)
    activations = random.random((4, 3, 5)).astype(np.float32)
    gradients = np.broadcast_to(random.standard_normal((4, 1, 1)), (4, 3, 5)).astype(np.float32)
    weights = gradients[:, 0, 0].astype(np.float64)
    if method == "layercam":
        weights = np.maximum(weights, 0)
    if method == "gradcam++":
        weights = np.array([15 * max(g, 0) / (2 + g * a.sum()) for g, a in zip(weights, activations, strict=True)])
    expected = (weights[:, None, None] * activations).sum(axis=0)
    assert np.abs(one(method, activations, gradients) - expected).max() <= 1e-6
    assert np.abs(expected).max() > 0.1


def test_gradcam_plus_plus_by_hand() -> None:
    """The map sums to 10, so the weight is 1/12 + 0.5/7. Negative and zero gradients add nothing."""
    found = one("gradcam++", [[[1, 2], [3, 4]]], [[[1, -1], [0.5, 0]]])
    assert found == pytest.approx((1 / 12 + 0.5 / 7) * np.array([[1, 2], [3, 4]]), rel=1e-6)


def test_gradcam_plus_plus_at_a_zero_denominator() -> None:
    """The map sums to -4, so 2 - 4 g is zero for g = 0.5, which then adds nothing, and negative for g = 1."""
    assert one("gradcam++", [[[-3, -1]]], [[[0.5, 0]]]).tolist() == [[0, 0]]
    assert one("gradcam++", [[[-3, -1]]], [[[0.5, 1]]]).tolist() == [[1.5, 0.5]]
    assert one("gradcam++", [[[-3, -1]]], [[[0.5, 0.25]]]).tolist() == [[-0.75, -0.25]]


def test_xgradcam_by_hand() -> None:
    """The weights are (1*1 + 3*2) / 4, and 0 for the channel that sums to zero."""
    found = one("xgradcam", [[[1, 3]], [[5, -5]]], [[[1, 2]], [[7, 8]]])
    assert found.tolist() == [[1.75, 5.25]]


def test_hirescam_and_layercam_by_hand() -> None:
    activations, gradients = [[[1, -2, 3]], [[10, 20, 30]]], [[[2, -3, 1]], [[-1, 1, 0.5]]]
    assert one("hirescam", activations, gradients).tolist() == [[-8, 26, 18]]
    assert one("layercam", activations, gradients).tolist() == [[2, 20, 18]]


def test_eigencam_by_hand() -> None:
    """The matrix has rank one: its rows are 3 and 4 times the direction (0.6, 0.8)."""
    assert one("eigencam", [[[1.8, 2.4]], [[2.4, 3.2]]], np.zeros((2, 1, 2))) == pytest.approx(np.array([[3, 4]]))


@pytest.mark.parametrize("shape", [(3, 4, 5), (40, 2, 3)])
def test_eigencam_is_positive_where_activations_are(shape: tuple[int, int, int]) -> None:
    """Without negative activations, the first component has one sign (Perron-Frobenius), here never negative."""
    for seed in range(20):
        activations = np.random.default_rng(seed).random(shape).astype(np.float32)
        assert one("eigencam", activations, activations).min() > 0
        # If all activations are negative, so is the map.
        assert one("eigencam", -activations, activations).max() < 0


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("values", [[2.0], [1.0, -3.0, 0.5]])
def test_eigencam_where_channels_cancel(sign: int, values: list[float]) -> None:
    """Opposite channels sum to zero everywhere. The value of the largest magnitude is then positive."""
    channel = sign * np.array([values])
    found = one("eigencam", [channel, -channel], [channel, channel])
    expected = np.sqrt(2) * np.array([values]) * np.sign(max(values, key=abs))
    assert found == pytest.approx(expected, rel=1e-6)


def test_eigencam_is_the_same_for_every_class(explainer: Explainer, tiny: Tiny) -> None:
    result = explainer.explain(pixels(), method="eigencam", target=[[0, 5]] * 3)
    assert np.array_equal(result.attributions[:, 0], result.attributions[:, 1])
    assert result.heatmaps.max() == 1


def test_inputxgradient_is_the_product(explainer: Explainer, tiny: Tiny) -> None:
    batch = pixels()
    results = explainer.explain(batch, method=["backprop", "inputxgradient"], target=[[0, 4]] * 3)
    expected = results["backprop"].attributions * batch[:, None]
    assert np.array_equal(results["inputxgradient"].attributions, expected)


def test_constant_map_becomes_zeros(tiny: Tiny, tmp_path) -> None:
    """All Grad-CAM weights of the target are negative, so the map is zero after the ReLU."""
    weights = tiny.weights()
    weights["fc.weight"][1] = -np.abs(weights["fc.weight"][1])
    path = write(tmp_path / "negative.onnx", tiny.proto(weights))
    result = Explainer(path).explain(pixels(), target=1)
    assert result.maps is not None and result.maps.max() <= 0
    assert not result.attributions.any() and not result.heatmaps.any()


@pytest.mark.parametrize("name", ["grad-cam", "GRADCAM", "", None, 3])
def test_unknown_method(explainer: Explainer, tiny: Tiny, name: object) -> None:
    with pytest.raises(MethodError, match=r"Unknown method .*gradcam"):
        explainer.explain(pixels(), method=[name])  # type: ignore[list-item]


def test_no_method(explainer: Explainer, tiny: Tiny) -> None:
    with pytest.raises(MethodError, match="no method given"):
        explainer.explain(pixels(), method=[])


@pytest.mark.parametrize(
    ("missing", "method", "words"),
    [
        ("input_gradients", "backprop", "backprop needs input_gradients, .*--outputs"),
        ("guided_gradients", "guided-gradcam", "guided-gradcam needs guided_gradients, .*--outputs"),
        (
            "gradients",
            "gradcam",
            "gradcam needs gradients, .* without --outputs, or with --outputs activations,gradients",
        ),
        ("activations", "eigencam", "eigencam needs activations, .*--outputs"),
        (
            "deconvnet_gradients",
            "deconvnet",
            "deconvnet needs deconvnet_gradients, which the file does not hold; export it again with --outputs "
            "activations,gradients,input_gradients,guided_gradients,class_weights,deconvnet_gradients$",
        ),
        ("class_weights", "cam", "cam needs a network that ends in global average pooling .* use gradcam"),
    ],
)
def test_file_without_an_output(tiny: Tiny, tmp_path, missing: str, method: str, words: str) -> None:
    outputs = tuple(name for name in DEFAULT_OUTPUTS if name != missing)
    explainer = Explainer(tiny.save(tmp_path / "part.onnx", outputs=outputs))
    assert method not in explainer.methods
    with pytest.raises(MethodError, match=words) as raised:
        explainer.explain(pixels(), method=method)
    assert "\n" not in str(raised.value) and "part.onnx" in str(raised.value)


def test_all_methods_are_available_in_a_full_file(explainer: Explainer) -> None:
    assert explainer.methods == tuple(METHODS)
