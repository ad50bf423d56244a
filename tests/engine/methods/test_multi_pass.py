"""Tests of the multi-pass methods against literal float64 references, and of how often they run the graph."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy import Explainer, MethodError
from seewhy.methods.registry import METHODS
from seewhy.methods.smoothgrad import draw
from support import tiny_model_with_skip
from support.references import multi_pass, relative_error
from support.references.methods import Reference, minmax
from support.session_calls import Feeds, Run, replace_runs
from support.tiny_model import Tiny
from support.tiny_model_files import pixels, write

PASSES = [name for name, method in METHODS.items() if method.multi_pass is not None]
OPTIONS: dict[str, dict[str, Any]] = {
    "smoothgrad": {"samples": 7, "noise": 0.2, "seed": 3},
    "integrated-gradients": {"steps": 12, "rule": "midpoint"},
    "scorecam": {},
    "ablationcam": {},
}
# float32 sums as in test_registry.py, averaged over passes. Weights of Ablation-CAM are differences of logits that are
# up to a hundred times as large.
TOLERANCE = {"smoothgrad": 5e-6, "integrated-gradients": 5e-6, "scorecam": 2e-5, "ablationcam": 1e-4}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Every run of the graph: its outputs, what it starts at, and rows."""
    made = []

    def counted(run: Run, outputs: frozenset[str], feeds: Feeds) -> dict[str, Any]:
        start = ",".join(name for name in feeds if name != "targets")
        made.append((",".join(sorted(outputs)), start, len(next(iter(feeds.values())))))
        return run(outputs, feeds)

    replace_runs(monkeypatch, counted)
    return made


@pytest.mark.parametrize("method", PASSES)
def test_against_reference(explainer: Explainer, tiny: Tiny, method: str) -> None:
    batch, reference = pixels(), Reference(tiny)
    targets = [[0, 5], [3, 2], [2, 1]]
    result = explainer.explain(batch, method=method, target=targets, options={method: OPTIONS[method]})
    assert result.options == {**{o.name: o.default for o in METHODS[method].options}, **OPTIONS[method]}
    for i, row in enumerate(targets):
        for k, target in enumerate(row):
            raw, values = multi_pass.attribution(reference, method, batch[i], target, result.options)
            assert relative_error(result.attributions[i, k], values) < TOLERANCE[method]
            heat = minmax(values if METHODS[method].is_map else np.abs(values).max(axis=0))
            assert np.abs(result.heatmaps[i, k] - heat).max() < 10 * TOLERANCE[method]
            if raw is None:
                assert result.maps is None
            else:
                assert result.maps is not None
                assert relative_error(result.maps[i, k], raw) < TOLERANCE[method]


@pytest.mark.parametrize("method", PASSES)
def test_an_image_does_not_depend_on_its_batch(explainer: Explainer, method: str) -> None:
    batch, options = pixels(5), {method: OPTIONS[method]}
    together = explainer.explain(batch, method=method, target=1, options=options)
    for i in (0, 3):
        alone = explainer.explain(batch[i : i + 1], method=method, target=1, options=options, batch_size=2)
        np.testing.assert_allclose(alone.attributions[0], together.attributions[i], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("method", PASSES)
def test_the_class_is_the_one_predicted_for_the_plain_image(explainer: Explainer, method: str) -> None:
    options = {method: OPTIONS[method]}
    plain = explainer.explain(pixels(), method=method, options=options)
    assert plain.targets.tolist() == plain.logits.argmax(axis=1).tolist()
    named = explainer.explain(pixels(), method=method, target=plain.targets, options=options)
    assert np.array_equal(plain.attributions, named.attributions)
    top = explainer.explain(pixels(), method=method, top=2, options=options)
    np.testing.assert_allclose(top.attributions[:, 0], plain.attributions, rtol=1e-4, atol=1e-5)


# SmoothGrad.


def test_smoothgrad_without_noise_is_backprop(explainer: Explainer) -> None:
    results = explainer.explain(pixels(), method=["smoothgrad", "backprop"], options={"smoothgrad": {"noise": 0}})
    smooth, plain = results["smoothgrad"].attributions, results["backprop"].attributions
    assert relative_error(smooth, plain.astype(np.float64)) < 1e-6


def test_smoothgrad_seed(explainer: Explainer) -> None:
    def run(seed: int) -> np.ndarray:
        options = {"smoothgrad": {"samples": 4, "seed": seed}}
        return explainer.explain(pixels(1), method="smoothgrad", target=0, options=options).attributions

    assert np.array_equal(run(1), run(1))
    assert relative_error(run(1), run(2).astype(np.float64)) > 0.01


def test_smoothgrad_samples_are_never_shared_by_seeds() -> None:
    """Not even by seeds of more than 32 bits."""
    drawn = {draw(high * 2**32 + 5, sample, (4,)).tobytes() for high in range(4) for sample in range(4)}
    assert len(drawn) == 16


def test_smoothgrad_noise_is_a_share_of_the_range(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The deviation of what the network sees, measured, for images of different ranges."""
    batch = pixels(2) * np.array([1, 10], np.float32)[:, None, None, None]
    seen: list[np.ndarray] = []

    def spy(run: Run, outputs: frozenset[str], feeds: Feeds) -> dict[str, Any]:
        if outputs == {"input_gradients"}:
            seen.append(feeds["images"].copy())
        return run(outputs, feeds)

    replace_runs(monkeypatch, spy)
    explainer.explain(batch, method="smoothgrad", options={"smoothgrad": {"samples": 200, "noise": 0.1}})
    noise = np.concatenate(seen).reshape(2, 200, *batch.shape[1:]) - batch[:, None]
    for drawn, image in zip(noise, batch, strict=True):
        expected = 0.1 * np.ptp(image)
        # 115,200 draws: the standard error of the deviation is 0.2 %, that of the mean 0.3 % of the deviation.
        assert drawn.std() == pytest.approx(expected, rel=0.015)
        assert abs(drawn.mean()) < 0.015 * expected
        correlation = np.corrcoef(drawn.reshape(200, -1)[:20])
        assert np.abs(correlation - np.eye(20)).max() < 0.3  # no two samples alike; 576 values each
    assert np.allclose(noise[0] / np.ptp(batch[0]), noise[1] / np.ptp(batch[1]), atol=1e-5)


# Integrated gradients.


def test_integrated_gradients_add_up(explainer: Explainer) -> None:
    """Completeness: to rounding where there are many steps, and the reported error is the one that there is."""
    batch = pixels()
    errors = []
    for steps in (2, 20, 1000):
        result = explainer.explain(
            batch,
            method="integrated-gradients",
            target=[[0, 4]] * 3,
            options={"integrated-gradients": {"steps": steps}},
        )
        assert result.completeness is not None and result.completeness.dtype == np.float32
        nothing = explainer.explain(np.zeros_like(batch), target=[[0, 4]] * 3).logits
        gained = (result.logits - nothing)[:, [0, 4]].astype(np.float64)
        found = result.attributions.astype(np.float64).sum(axis=(2, 3, 4))
        np.testing.assert_allclose(result.completeness, np.abs(found - gained), atol=2e-6)
        errors.append(result.completeness.max())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2e-3 < errors[0]


def test_integrated_gradients_of_a_straight_line(tmp_path: Path) -> None:
    """Where no rectifier closes between baseline and image one step is exact, and the answer weight times change."""
    tiny = Tiny()
    weights = {name: np.abs(value) for name, value in tiny.weights().items()}
    weights["conv1.bias"][...] = weights["conv2.bias"][...] = 50
    path = write(tmp_path / "open.onnx", tiny.proto(weights))
    flat = np.full((1, 3, 12, 16), 0.25, np.float32)  # constant, so that max pooling has the same winners all along
    explainer = Explainer(path)
    options = {"integrated-gradients": {"steps": 1, "rule": "midpoint"}}
    results = explainer.explain(flat, method=["integrated-gradients", "backprop"], target=0, options=options)
    expected = results["backprop"].attributions * flat
    np.testing.assert_allclose(results["integrated-gradients"].attributions, expected, rtol=1e-5)
    assert results["integrated-gradients"].completeness is not None
    # Logits of several hundred, so that float32 gives them to some 1e-5.
    assert results["integrated-gradients"].completeness.max() < 1e-3


@pytest.mark.parametrize(("name", "value"), [("zero", None), ("black", 0.0), ("grey", 0.5), ("white", 1.0)])
def test_baselines(explainer: Explainer, name: str, value: float | None) -> None:
    """An image of the baseline's color has nothing to attribute, and no error."""
    how = explainer.metadata.preprocessing
    assert how is not None
    colour = np.zeros(3) if value is None else (value - np.array(how.mean)) / np.array(how.std)
    image = np.broadcast_to(colour.astype(np.float32)[:, None, None], (1, 3, 12, 16)).copy()
    options = {"integrated-gradients": {"steps": 2, "baseline": name}}
    result = explainer.explain(image, method="integrated-gradients", options=options)
    assert np.abs(result.attributions).max() < 1e-5
    assert result.completeness is not None and result.completeness.max() < 1e-5
    if value is not None:
        level = np.full((12, 16, 3), round(255 * value), np.uint8)
        whole = explainer.explain(level, method="integrated-gradients", options=options)
        # 0.5 is between two levels of 255.
        assert np.abs(whole.attributions).max() < (1e-5 if name != "grey" else 0.02)


def test_baseline_without_preprocessing(tmp_path: Path) -> None:
    explainer = Explainer(Tiny(preprocessing=None).save(tmp_path / "m.onnx"))
    options = {"integrated-gradients": {"baseline": "black", "steps": 2}}
    with pytest.raises(MethodError, match=r"m\.onnx: .* unknown what black is; use baseline=zero") as raised:
        explainer.explain(pixels(), method="integrated-gradients", options=options)
    assert "\n" not in str(raised.value)
    zero = {"integrated-gradients": {"steps": 2}}
    assert explainer.explain(pixels(), method="integrated-gradients", options=zero).completeness is not None


def test_only_integrated_gradients_have_a_completeness_error(explainer: Explainer) -> None:
    results = explainer.explain(pixels(), method=["gradcam", "smoothgrad"], options={"smoothgrad": {"samples": 2}})
    assert [result.completeness for result in results.values()] == [None, None]
    one = explainer.explain(pixels(), method="integrated-gradients", options={"integrated-gradients": {"steps": 2}})
    assert one.completeness is not None and one.completeness.shape == (3,)
    assert one[1].completeness == one.completeness[1]


# Score-CAM and Ablation-CAM.


def with_weights(path: Path, **changes: Any) -> Explainer:
    """The tiny model with parts of its weights set to other values: name -> (index, value)."""
    weights = Tiny().weights()
    for name, (index, value) in changes.items():
        weights[name.replace("_", ".")][index] = value
    return Explainer(write(path, Tiny().proto(weights)))


@pytest.mark.parametrize("bias", [-1e3, 1e3])
def test_constant_maps_have_no_part_in_scorecam(tmp_path: Path, bias: float) -> None:
    """Channel 2 is zero or a constant everywhere: no pass, and the map is that of the other channels."""
    explainer = with_weights(
        tmp_path / "m.onnx", conv2_weight=(2, 0), conv2_bias=(2, bias), fc_weight=((slice(None), 2), 0)
    )
    calls: list[tuple[int, int]] = []
    result = explainer.explain(
        pixels(), method="scorecam", target=0, batch_size=100, progress=lambda *done: calls.append(done)
    )
    reference = Reference(Tiny())
    reference.w["conv2.weight"][2], reference.w["conv2.bias"][2], reference.w["fc.weight"][:, 2] = 0, bias, 0
    constant = 0
    for i, image in enumerate(pixels()):
        raw, _ = multi_pass.attribution(reference, "scorecam", image, 0, {})
        assert result.maps is not None
        assert relative_error(result.maps[i], raw) < TOLERANCE["scorecam"]
        constant += sum(channel.min() == channel.max() for channel in reference.forward(image).activations)
    assert constant >= 3
    assert calls == [(constant, 15), (15, 15)]  # those are done without a pass


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
def test_a_dead_layer(tmp_path: Path, method: str) -> None:
    """No channel says anything: no map, and no division by zero."""
    explainer = with_weights(tmp_path / "m.onnx", conv2_bias=(slice(None), -1e6))
    result = explainer.explain(pixels(), method=method, top=2)
    assert not result.attributions.any() and not result.heatmaps.any()


def test_ablationcam_of_a_linear_head(explainer: Explainer, tiny: Tiny) -> None:
    """Without channel k a pooled linear head loses w_k mean(A_k), so the weight is that over |y|."""
    results = explainer.explain(pixels(), method=["ablationcam", "gradcam"], target=3)
    activations = np.array([Reference(tiny).forward(image).activations for image in pixels()])
    y = results["gradcam"].logits[:, 3].astype(np.float64)
    weights = tiny.weights()["fc.weight"][3] * activations.mean(axis=(2, 3)) / np.abs(y)[:, None]
    expected = np.einsum("nk,nkhw->nhw", weights, activations)
    assert results["ablationcam"].maps is not None
    assert relative_error(results["ablationcam"].maps, expected) < TOLERANCE["ablationcam"]


def test_ablationcam_of_a_negative_logit(tmp_path: Path) -> None:
    """A constant subtracted from the logit changes its sign, and none of the losses: the map keeps its shape."""
    results = []
    for bias in (300, -300):
        explainer = with_weights(tmp_path / f"{bias}.onnx", fc_bias=(1, bias))
        result = explainer.explain(pixels(), method="ablationcam", target=1)
        assert (np.sign(result.logits[:, 1]) == np.sign(bias)).all()
        results.append(result.heatmaps)
    assert results[0].any()
    # Logits of 300 have units of 3e-5 in the last place, and losses of about 0.1 are their differences.
    np.testing.assert_allclose(results[0], results[1], atol=0.02)


def test_ablationcam_of_a_logit_that_is_zero(tmp_path: Path) -> None:
    """No class has a weight, so every logit is 0, and so is every loss."""
    explainer = with_weights(tmp_path / "m.onnx", fc_weight=(slice(None), 0), fc_bias=(slice(None), 0))
    result = explainer.explain(pixels(), method="ablationcam", target=1)
    assert not result.logits.any() and not result.heatmaps.any()


def test_ablationcam_with_a_path_around_the_layer(tmp_path: Path, explainer: Explainer) -> None:
    """The rest of the network sees the image as it is: the losses are the same, the logit is not."""
    other = Explainer(tiny_model_with_skip.save(tmp_path / "m.onnx"))
    found = other.explain(pixels(), method="ablationcam", target=[[0, 3]] * 3)
    main = explainer.explain(pixels(), method="ablationcam", target=[[0, 3]] * 3)
    classes = [0, 3]
    scale = np.abs(main.logits[:, classes] / found.logits[:, classes])[:, :, None, None]
    assert found.maps is not None and main.maps is not None
    assert relative_error(found.maps, main.maps.astype(np.float64) * scale) < TOLERANCE["ablationcam"]


# How often the graph runs.


def test_smoothgrad_runs(explainer: Explainer, rows: list[Any]) -> None:
    explainer.explain(pixels(2), method="smoothgrad", top=2, batch_size=8, options={"smoothgrad": {"samples": 5}})
    assert rows[0] == ("logits", "images", 2)
    assert rows[1:] == [("input_gradients", "images", 8)] * 2 + [("input_gradients", "images", 4)]


def test_scorecam_runs_once_for_all_classes(explainer: Explainer, rows: list[Any]) -> None:
    explainer.explain(pixels(2), method="scorecam", top=4, batch_size=6)
    assert rows[0] == ("activations,logits", "images", 2)
    assert rows[1:] == [("logits", "images", 6), ("logits", "images", 4)]


def test_ablationcam_runs_the_head_alone(explainer: Explainer, rows: list[Any]) -> None:
    explainer.explain(pixels(2), method="ablationcam", top=4, batch_size=6)
    assert rows[0] == ("activations,logits", "images", 2)
    assert rows[1:] == [("logits", "activations", 2), ("logits", "activations", 6), ("logits", "activations", 4)]


def test_together_with_methods_of_one_run(explainer: Explainer, rows: list[Any]) -> None:
    """One plain run serves them all."""
    results = explainer.explain(pixels(2), method=["ablationcam", "gradcam", "scorecam"], top=2)
    assert list(results) == ["ablationcam", "gradcam", "scorecam"]
    assert rows[0] == ("activations,gradients,logits", "images", 2)
    assert sum(count for _, start, count in rows if start == "images") == 2 + 10
    separate = explainer.explain(pixels(2), method="gradcam", top=2)
    np.testing.assert_allclose(results["gradcam"].attributions, separate.attributions, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_progress(explainer: Explainer, batch_size: int) -> None:
    """It never goes back, ends at the total, and the total is the same from the first call on."""
    calls: list[tuple[int, int]] = []
    explainer.explain(
        pixels(3),
        method=[*PASSES, "gradcam"],
        top=2,
        batch_size=batch_size,
        options={"smoothgrad": {"samples": 3}, "integrated-gradients": {"steps": 4}},
        progress=lambda done, total: calls.append((done, total)),
    )
    total = 3 * (2 * 3 + 2 * 4 + 5 + 5)
    assert {call[1] for call in calls} == {total}
    done = [call[0] for call in calls]
    assert done == sorted(set(done)) and done[-1] == total


def test_no_progress_of_methods_of_one_run(explainer: Explainer) -> None:
    def fail(done: int, total: int) -> None:
        raise AssertionError((done, total))

    explainer.explain(pixels(3), method="gradcam", top=2, progress=fail)


# What is not there.


@pytest.mark.parametrize(
    ("held", "method", "words"),
    [
        (("logits", "activations", "gradients"), "smoothgrad", "smoothgrad needs input_gradients"),
        (("logits", "activations", "gradients"), "integrated-gradients", "integrated-gradients needs input_gradients"),
        (("logits", "input_gradients"), "scorecam", "scorecam needs activations"),
        (("logits", "input_gradients"), "ablationcam", "ablationcam needs activations"),
    ],
)
def test_file_without_an_output(tmp_path: Path, held: tuple[str, ...], method: str, words: str) -> None:
    explainer = Explainer(replace(Tiny(), outputs=held).save(tmp_path / "m.onnx"))
    assert method not in explainer.methods
    with pytest.raises(MethodError, match=words):
        explainer.explain(pixels(), method=method)


def test_files_of_the_least_outputs(tmp_path: Path) -> None:
    """Score-CAM and Ablation-CAM need no backward pass in the file."""
    explainer = Explainer(replace(Tiny(), outputs=("logits", "activations")).save(tmp_path / "m.onnx"))
    assert explainer.methods == ("eigencam", "scorecam", "ablationcam")
    assert all(result.heatmaps.any() for result in explainer.explain(pixels(), method=explainer.methods).values())
