"""Tests of the multi-pass methods against literal float64 references, and of the number of their runs."""

from __future__ import annotations

import threading
import time
import tracemalloc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy import Explainer, MethodError
from seewhy._shared.cpu_count import usable_cores
from seewhy.methods.registry import METHODS
from seewhy.methods.smoothgrad import add_noise
from support import tiny_model_with_skip
from support.references import multi_pass, relative_error
from support.references.methods import Reference, minmax
from support.session_calls import Feeds, Run, replace_runs
from support.tiny_model import Tiny
from support.tiny_model_files import pixels, write


@pytest.fixture
def headless_path(tmp_path: Path) -> Path:
    """Return a file that does not hold the weights of its linear head, so Ablation-CAM has to run the head."""
    return replace(Tiny(), outputs=("logits", "activations")).save(tmp_path / "headless.onnx")


@pytest.fixture
def headless(headless_path: Path) -> Explainer:
    return Explainer(headless_path)


PASSES = [name for name, method in METHODS.items() if method.multi_pass is not None]
OPTIONS: dict[str, dict[str, Any]] = {
    "smoothgrad": {"samples": 7, "noise": 0.2, "seed": 3},
    "integrated-gradients": {"steps": 12, "rule": "midpoint"},
    "scorecam": {},
    "ablationcam": {},
}
# Tolerances for float32 sums as in test_registry.py, averaged over passes. Weights of Ablation-CAM are differences of
# logits, which are up to a hundred times larger.
TOLERANCE = {"smoothgrad": 5e-6, "integrated-gradients": 5e-6, "scorecam": 2e-5, "ablationcam": 1e-4}


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str, int]]:
    """Record every run of the graph: its outputs, its inputs without the targets, and its number of rows."""
    recorded = []

    def counted(run: Run, outputs: frozenset[str], feeds: Feeds) -> dict[str, Any]:
        start = ",".join(name for name in feeds if name != "targets")
        recorded.append((",".join(sorted(outputs)), start, len(next(iter(feeds.values())))))
        return run(outputs, feeds)

    replace_runs(monkeypatch, counted)
    return recorded


@pytest.mark.parametrize("method", PASSES)
def test_against_reference(explainer: Explainer, tiny: Tiny, method: str) -> None:
    check_against_reference(explainer, tiny, method)


def test_ablationcam_by_removal_against_reference(headless: Explainer, tiny: Tiny) -> None:
    check_against_reference(headless, tiny, "ablationcam")


def check_against_reference(explainer: Explainer, tiny: Tiny, method: str) -> None:
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
def test_the_target_is_predicted_from_the_plain_image(explainer: Explainer, method: str) -> None:
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
    """This includes seeds of more than 32 bits."""
    drawn = {
        add_noise(np.zeros(4, np.float32), 1, high * 2**32 + 5, sample).tobytes()
        for high in range(4)
        for sample in range(4)
    }
    assert len(drawn) == 16


def test_smoothgrad_noise_is_a_share_of_the_range(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Measure the standard deviation of the noise for images of different ranges."""
    batch = pixels(2) * np.array([1, 10], np.float32)[:, None, None, None]
    seen: list[np.ndarray] = []

    def spy(run: Run, outputs: frozenset[str], feeds: Feeds) -> dict[str, Any]:
        if outputs == {"input_gradients"}:
            seen.append(feeds["images"].copy())
        return run(outputs, feeds)

    replace_runs(monkeypatch, spy)
    explainer = Explainer(model_path, threads=1)  # runs the samples in order
    explainer.explain(batch, method="smoothgrad", options={"smoothgrad": {"samples": 200, "noise": 0.1}})
    noise = np.concatenate(seen).reshape(2, 200, *batch.shape[1:]) - batch[:, None]
    for drawn, image in zip(noise, batch, strict=True):
        expected = 0.1 * np.ptp(image)
        # With 115,200 draws, the standard error is 0.2 % for the deviation, and 0.3 % of the deviation for the mean.
        assert drawn.std() == pytest.approx(expected, rel=0.015)
        assert abs(drawn.mean()) < 0.015 * expected
        correlation = np.corrcoef(drawn.reshape(200, -1)[:20])
        assert np.abs(correlation - np.eye(20)).max() < 0.3  # no two samples are equal; each has 576 values
    assert np.allclose(noise[0] / np.ptp(batch[0]), noise[1] / np.ptp(batch[1]), atol=1e-5)


# Integrated gradients.


def test_integrated_gradients_add_up(explainer: Explainer) -> None:
    """With many steps, completeness holds up to rounding. The reported error equals the measured one."""
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
        baseline = explainer.explain(np.zeros_like(batch), target=[[0, 4]] * 3).logits
        gained = (result.logits - baseline)[:, [0, 4]].astype(np.float64)
        found = result.attributions.astype(np.float64).sum(axis=(2, 3, 4))
        np.testing.assert_allclose(result.completeness, np.abs(found - gained), atol=2e-6)
        errors.append(result.completeness.max())
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 2e-3 < errors[0]


def test_integrated_gradients_of_a_straight_line(tmp_path: Path) -> None:
    """If no rectifier changes its state between baseline and image, one step is exact: gradient times change."""
    tiny = Tiny()
    weights = {name: np.abs(value) for name, value in tiny.weights().items()}
    weights["conv1.bias"][...] = weights["conv2.bias"][...] = 50
    path = write(tmp_path / "open.onnx", tiny.proto(weights))
    flat = np.full((1, 3, 12, 16), 0.25, np.float32)  # constant, so that max pooling always selects the same positions
    explainer = Explainer(path)
    options = {"integrated-gradients": {"steps": 1, "rule": "midpoint"}}
    results = explainer.explain(flat, method=["integrated-gradients", "backprop"], target=0, options=options)
    expected = results["backprop"].attributions * flat
    np.testing.assert_allclose(results["integrated-gradients"].attributions, expected, rtol=1e-5)
    assert results["integrated-gradients"].completeness is not None
    # The logits are several hundred, so float32 resolves about 1e-5.
    assert results["integrated-gradients"].completeness.max() < 1e-3


@pytest.mark.parametrize(("name", "value"), [("zero", None), ("black", 0.0), ("grey", 0.5), ("white", 1.0)])
def test_baselines(explainer: Explainer, name: str, value: float | None) -> None:
    """An image in the color of the baseline has attributions and an error of zero."""
    how = explainer.metadata.preprocessing
    assert how is not None
    color = np.zeros(3) if value is None else (value - np.array(how.mean)) / np.array(how.std)
    image = np.broadcast_to(color.astype(np.float32)[:, None, None], (1, 3, 12, 16)).copy()
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
    with pytest.raises(MethodError, match=r"m\.onnx: .* the baseline black is unknown; use baseline=zero") as raised:
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
    """Return an explainer of the tiny model with changed weights, given as name=(index, value)."""
    weights = Tiny().weights()
    for name, (index, value) in changes.items():
        weights[name.replace("_", ".")][index] = value
    return Explainer(write(path, Tiny().proto(weights)))


@pytest.mark.parametrize("bias", [-1e3, 1e3])
def test_constant_maps_do_not_enter_scorecam(tmp_path: Path, bias: float) -> None:
    """Channel 2 is zero or a constant everywhere. It takes no pass, and the map is that of the other channels."""
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
    assert calls[0] == (constant, 15) and calls[-1] == (15, 15)  # the constant maps need no pass


@pytest.mark.parametrize("method", ["scorecam", "ablationcam"])
def test_a_dead_layer(tmp_path: Path, method: str) -> None:
    """All activations are zero, so the map is zero, and nothing is divided by zero."""
    explainer = with_weights(tmp_path / "m.onnx", conv2_bias=(slice(None), -1e6))
    result = explainer.explain(pixels(), method=method, top=2)
    assert not result.attributions.any() and not result.heatmaps.any()


def test_ablationcam_of_a_linear_head(explainer: Explainer, tiny: Tiny) -> None:
    """Removing channel k lowers the logit of a pooled linear head by w_k mean(A_k), so the weight is that over |y|."""
    results = explainer.explain(pixels(), method=["ablationcam", "gradcam"], target=3)
    activations = np.array([Reference(tiny).forward(image).activations for image in pixels()])
    y = results["gradcam"].logits[:, 3].astype(np.float64)
    weights = tiny.weights()["fc.weight"][3] * activations.mean(axis=(2, 3)) / np.abs(y)[:, None]
    expected = np.einsum("nk,nkhw->nhw", weights, activations)
    assert results["ablationcam"].maps is not None
    assert relative_error(results["ablationcam"].maps, expected) < TOLERANCE["ablationcam"]


def test_ablationcam_of_a_negative_logit(tmp_path: Path) -> None:
    """Subtracting a constant from the logit changes its sign, but no loss, so the heatmap stays the same."""
    results = []
    for bias in (300, -300):
        explainer = with_weights(tmp_path / f"{bias}.onnx", fc_bias=(1, bias))
        result = explainer.explain(pixels(), method="ablationcam", target=1)
        assert (np.sign(result.logits[:, 1]) == np.sign(bias)).all()
        results.append(result.heatmaps)
    assert results[0].any()
    # The losses are about 0.1, and differences of logits of 300, whose last digit is about 3e-5.
    np.testing.assert_allclose(results[0], results[1], atol=0.02)


def test_ablationcam_of_a_logit_that_is_zero(tmp_path: Path) -> None:
    """The head has zero weights, so every logit and every loss is 0."""
    explainer = with_weights(tmp_path / "m.onnx", fc_weight=(slice(None), 0), fc_bias=(slice(None), 0))
    result = explainer.explain(pixels(), method="ablationcam", target=1)
    assert not result.logits.any() and not result.heatmaps.any()


def test_ablationcam_with_a_path_around_the_layer(tmp_path: Path, explainer: Explainer) -> None:
    """Only the layer's output is changed. The other path adds to the logit, but not to the losses."""
    other = Explainer(tiny_model_with_skip.save(tmp_path / "m.onnx"))
    found = other.explain(pixels(), method="ablationcam", target=[[0, 3]] * 3)
    main = explainer.explain(pixels(), method="ablationcam", target=[[0, 3]] * 3)
    classes = [0, 3]
    scale = np.abs(main.logits[:, classes] / found.logits[:, classes])[:, :, None, None]
    assert found.maps is not None and main.maps is not None
    assert relative_error(found.maps, main.maps.astype(np.float64) * scale) < TOLERANCE["ablationcam"]


# Runs of the graph.


def totals(rows: list[tuple[str, str, int]]) -> dict[tuple[str, str], int]:
    """Return the number of rows of all runs, by their outputs and inputs."""
    found: dict[tuple[str, str], int] = {}
    for outputs, start, count in rows:
        found[outputs, start] = found.get((outputs, start), 0) + count
    return found


def test_runs_have_the_same_bits(model_path: Path, headless_path: Path) -> None:
    """The result depends neither on the batch size nor on the number of threads."""
    for path, methods in ((model_path, PASSES), (headless_path, ["ablationcam"])):
        found = [
            Explainer(path, threads=threads).explain(
                pixels(3), methods, top=2, batch_size=size, options={name: OPTIONS[name] for name in methods}
            )
            for threads, size in ((1, 32), (2, 32), (3, 7), (2, 1), (1, 1))
        ]
        for method in methods:
            for one in found[1:]:
                np.testing.assert_array_equal(found[0][method].attributions, one[method].attributions)


@pytest.mark.parametrize("method", ["smoothgrad", "integrated-gradients"])
def test_memory_does_not_grow_with_passes(explainer: Explainer, method: str) -> None:
    """Compare the peaks of NumPy's memory for few and many passes."""

    def peak(count: int) -> int:
        # The points of the Gauss-Legendre rule take the memory of a square matrix.
        options = {"smoothgrad": {"samples": count}, "integrated-gradients": {"steps": count, "rule": "midpoint"}}
        tracemalloc.start()
        explainer.explain(pixels(1), method, options={method: options[method]})
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(20)  # creates the sessions
    # One row is 3 * 12 * 16 * 4 bytes = 2.3 kB, so 900 rows that were kept would take 2 MB.
    assert peak(1000) < peak(100) + 200_000


@pytest.mark.parametrize("method", PASSES)
def test_an_interrupt_ends_the_passes(
    explainer: Explainer, headless: Explainer, method: str, rows: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception of the callback reaches the caller. No pass starts after it, and no thread is left."""

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    before = threading.active_count()
    options = {"smoothgrad": {"samples": 100}, "integrated-gradients": {"steps": 100}}
    used = headless if method == "ablationcam" else explainer
    with pytest.raises(KeyboardInterrupt):
        used.explain(pixels(3), method, batch_size=3, options={method: options.get(method, {})}, progress=stop)
    assert threading.active_count() == before
    started = len(rows)
    assert started <= 2 + 3 * usable_cores()
    time.sleep(0.05)
    assert len(rows) == started


def test_smoothgrad_runs(explainer: Explainer, rows: list[Any]) -> None:
    explainer.explain(pixels(2), method="smoothgrad", top=2, batch_size=8, options={"smoothgrad": {"samples": 5}})
    assert totals(rows) == {("logits", "images"): 2, ("input_gradients", "images"): 20}
    assert max(count for *_, count in rows) <= 8


def test_scorecam_runs_once_for_all_classes(explainer: Explainer, rows: list[Any]) -> None:
    explainer.explain(pixels(2), method="scorecam", top=4, batch_size=6)
    assert totals(rows) == {("activations,logits", "images"): 2, ("logits", "images"): 2 * 5}


def test_ablationcam_runs_the_head_alone(headless: Explainer, rows: list[Any]) -> None:
    """There is one run without each of five channels, and one without any change."""
    headless.explain(pixels(2), method="ablationcam", top=4, batch_size=6)
    assert totals(rows) == {("activations,logits", "images"): 2, ("logits", "activations"): 2 * (5 + 1)}
    assert max(count for *_, count in rows) <= 6


def test_ablationcam_of_a_linear_head_runs_no_channel(explainer: Explainer, rows: list[Any]) -> None:
    """The losses of all channels follow from the weights of each class."""
    explainer.explain(pixels(2), method="ablationcam", top=4)
    assert totals(rows) == {("activations,logits", "images"): 2, ("class_weights", "activations"): 2 * 4}


def test_together_with_methods_of_a_single_run(explainer: Explainer, rows: list[Any]) -> None:
    """One plain run serves them all."""
    results = explainer.explain(pixels(2), method=["ablationcam", "gradcam", "scorecam"], top=2)
    assert list(results) == ["ablationcam", "gradcam", "scorecam"]
    assert totals(rows)["activations,gradients,logits", "images"] == 2
    assert sum(count for _, start, count in rows if start == "images") == 2 + 10
    separate = explainer.explain(pixels(2), method="gradcam", top=2)
    np.testing.assert_allclose(results["gradcam"].attributions, separate.attributions, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("batch_size", [1, 4, 32])
def test_progress(explainer: Explainer, batch_size: int) -> None:
    """Progress increases to the total, and the total never changes."""
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


def test_methods_of_a_single_run_report_no_progress(explainer: Explainer) -> None:
    def fail(done: int, total: int) -> None:
        raise AssertionError((done, total))

    explainer.explain(pixels(3), method="gradcam", top=2, progress=fail)


# Missing outputs.


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


def test_files_with_few_outputs(tmp_path: Path) -> None:
    """Score-CAM and Ablation-CAM need no backward pass in the file."""
    explainer = Explainer(replace(Tiny(), outputs=("logits", "activations")).save(tmp_path / "m.onnx"))
    assert explainer.methods == ("eigencam", "scorecam", "ablationcam")
    assert all(result.heatmaps.any() for result in explainer.explain(pixels(), method=explainer.methods).values())
