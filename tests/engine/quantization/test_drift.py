"""Tests of `seewhy.quantization.drift`, against a literal computation from the files."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray

from seewhy import Explainer, _core
from seewhy._shared.cpu_count import usable_cores
from seewhy.contract.metadata import Metadata
from seewhy.quantization.drift import Results, compare, correlations, measure_drift
from seewhy.quantization.speed import measure_speed
from support.quantized_tiny import bright_pixels, quantized_tiny
from support.tiny_model import Tiny

Float64s = NDArray[np.float64]


def literal_maps(path: Path, pixels: NDArray[np.float32], targets: list[int]) -> tuple[Float64s, Float64s]:
    """Return logits and Grad-CAM maps after ReLU, one image and one channel at a time, in float64."""
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # exact on every CPU
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    logits, maps = [], []
    for image, target in zip(pixels, targets, strict=True):
        scores, activations, gradients = session.run(
            ["logits", "activations", "gradients"], {"images": image[None], "targets": np.array([target])}
        )
        total = np.zeros(activations.shape[2:])
        for activation, gradient in zip(activations[0], gradients[0], strict=True):
            total += gradient.astype(np.float64).mean() * activation.astype(np.float64)
        logits.append(scores[0].astype(np.float64))
        maps.append(np.where(total > 0, total, 0))
    return np.array(logits), np.array(maps)


def literal_percentile(values: list[float], percent: float) -> float:
    """Return a percentile by linear interpolation between the sorted values."""
    ordered = sorted(values)
    position = (len(ordered) - 1) * percent / 100
    low, high = ordered[math.floor(position)], ordered[math.ceil(position)]
    return low + (high - low) * (position - math.floor(position))


def test_drift_equals_a_literal_computation(tmp_path: Path) -> None:
    tiny = Tiny(seed=10)
    int8 = quantized_tiny(tmp_path, tiny)
    float32 = tmp_path / "tiny.onnx"
    pixels = np.random.default_rng(5).normal(size=(21, 3, *tiny.size)).astype(np.float32)
    drift = measure_drift(Explainer(float32), Explainer(int8), pixels, speed_batches=())

    expected, _ = literal_maps(float32, pixels, [-1] * 21)
    targets = [int(np.argmax(row)) for row in expected]
    logits, maps = literal_maps(float32, pixels, targets)
    int8_logits, int8_maps = literal_maps(int8, pixels, targets)
    pairs = [(one.ravel().tolist(), other.ravel().tolist()) for one, other in zip(maps, int8_maps, strict=True)]
    varying = [pair for pair in pairs if all(len(set(values)) > 1 for values in pair)]
    found = [statistics.correlation(*pair) for pair in varying]
    sure = [i for i in range(21) if math.exp(logits[i].max()) / sum(math.exp(y) for y in logits[i]) > 0.3]
    same = [targets[i] == int(np.argmax(int8_logits[i])) for i in range(21)]
    assert 0 < len(found) and 0 < len(sure) < 21

    # Both sum in another order, in float64; the maps themselves are rounded to float32.
    assert drift.correlation_median == pytest.approx(statistics.median(found), abs=1e-6)
    assert drift.correlation_p5 == pytest.approx(literal_percentile(found, 5), abs=1e-6)
    assert drift.correlation_worst == pytest.approx(min(found), abs=1e-6)
    assert (drift.images, drift.constant_maps) == (21, 21 - len(found))
    assert drift.top1_agreement == pytest.approx(statistics.mean(same))
    assert drift.confident_images == len(sure)
    assert drift.top1_agreement_confident == pytest.approx(statistics.mean(same[i] for i in sure))
    error = math.sqrt(((int8_logits - logits) ** 2).sum()) / math.sqrt((logits**2).sum())
    assert drift.logits_error == pytest.approx(error, rel=1e-4)
    assert drift.speed == () and drift.threads is None and drift.cpu_flags is None


def test_a_file_does_not_drift_from_itself(tmp_path: Path) -> None:
    explainer = Explainer(Tiny().save(tmp_path / "tiny.onnx"))
    drift = measure_drift(explainer, explainer, bright_pixels(Tiny()), speed_batches=())
    assert drift.correlation_worst == pytest.approx(1, abs=1e-12)
    assert drift.top1_agreement == 1 and drift.logits_error == 0 and drift.value == pytest.approx(0, abs=1e-12)


def test_images_give_the_same_drift_as_their_pixels(tmp_path: Path) -> None:
    int8 = Explainer(quantized_tiny(tmp_path))
    float32 = Explainer(tmp_path / "tiny.onnx")
    images = list(np.random.default_rng(1).integers(0, 256, (9, 20, 30, 3), np.uint8))
    of_images = measure_drift(float32, int8, images, speed_batches=())
    assert of_images == measure_drift(float32, int8, float32.preprocess(images), speed_batches=())


def test_constant_maps_are_counted_apart() -> None:
    maps = np.arange(24, dtype=np.float32).reshape(4, 2, 3) % 7
    other = maps.copy()
    maps[0], other[2] = 3, 0
    logits = np.array([[1, 0]] * 4, np.float32)
    drift = compare(Results(logits, maps), Results(logits, other), "softmax")
    assert (drift.images, drift.constant_maps, drift.correlation_median) == (4, 1, pytest.approx(1))
    assert drift.correlation_worst == 0  # the map that 8 bits lost
    none = compare(Results(logits, maps * 0), Results(logits, other), "softmax")
    assert none.constant_maps == 4 and none.correlation_p5 is None and none.value is None


@pytest.mark.parametrize("scale", [1e-37, 1e-20, 1, 1e20, 1e37])
def test_correlations_do_not_depend_on_the_scale(scale: float) -> None:
    random = np.random.default_rng(0)
    first, second = (random.normal(size=(3, 4, 5)).astype(np.float32) for _ in range(2))
    expected = [np.corrcoef(a.ravel(), b.ravel())[0, 1] for a, b in zip(first, second, strict=True)]
    np.testing.assert_allclose(correlations(first * np.float32(scale), second), expected, atol=1e-6)
    np.testing.assert_allclose(correlations(-first, first), -1, atol=1e-12)


@pytest.mark.parametrize(("kind", "confident"), [("none", 0), ("sigmoid", 2), ("softmax", 1)])
def test_confidence_follows_the_score_kind(kind: str, confident: int) -> None:
    # Softmax gives 0.5 and 0.26 here; the sigmoid gives 0.5 and 0.5.
    logits = np.array([[0, 0, -99, -99], [0, 0, 0, -0.2]], np.float32)
    logits[1, :3] -= np.log(1.02)
    maps = np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    drift = compare(Results(logits, maps), Results(logits, maps), kind)
    assert drift.confident_images == confident
    assert drift.top1_agreement_confident == (1 if confident else None)


def test_speed_names_batch_sizes_threads_and_cpu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.quantization.speed._REST", 0)
    int8 = quantized_tiny(tmp_path)
    drift = measure_drift(Explainer(tmp_path / "tiny.onnx"), Explainer(int8), bright_pixels(Tiny()), (2, 3))
    assert [one.batch_size for one in drift.speed] == [2, 3]
    assert all(one.float32_ms > 0 and one.int8_ms > 0 for one in drift.speed)
    assert (drift.threads, drift.cpu_flags) == (usable_cores(), _core.cpu_features())
    entries = {entry.key: entry.value for entry in onnx.load(int8).metadata_props}
    stored = json.loads(entries["seewhy.quantization"])
    stored["drift"] = json.loads(json.dumps(drift.__dict__, default=lambda one: one.__dict__))
    read = Metadata.from_properties({**entries, "seewhy.quantization": json.dumps(stored)}, "m.onnx")
    assert read.quantization is not None and read.quantization.drift == drift


class Clock:
    """A clock that advances by a number of seconds for each explained image."""

    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


class Explained:
    """An explainer that takes 3 seconds for a run and some seconds for each image."""

    def __init__(self, clock: Clock, seconds: float) -> None:
        self.clock, self.seconds = clock, seconds

    def explain(self, images: NDArray[np.float32], method: str) -> None:
        self.clock.sleep(3 + self.seconds * len(images))


def test_speed_is_milliseconds_an_image(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("seewhy.quantization.speed.time", clock)
    pixels = np.zeros((1, 3, 2, 2), np.float32)
    slow, fast = Explained(clock, 4), Explained(clock, 1)
    found = measure_speed(slow, fast, pixels, (1, 2), "gradcam")  # type: ignore[arg-type]
    assert [(one.float32_ms, one.int8_ms) for one in found] == [
        (pytest.approx(7000), pytest.approx(4000)),
        (pytest.approx(5500), pytest.approx(2500)),
    ]
