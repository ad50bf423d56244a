"""Explainer.explain: batches, targets, several methods, threads, and numbers that are not finite."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import seewhy
from seewhy import Explainer, Explanation, ImageError, MethodError, OutputError, TargetError, digest
from seewhy.methods import METHODS
from seewhy.model import ModelFile
from tiny_model import LABELS, Tiny

Photo = Callable[..., Image.Image]
FIELDS = ("logits", "probabilities", "targets", "maps", "attributions", "heatmaps")


def pixels(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, 3, 12, 16)).astype(np.float32)


def assert_close(found: Explanation, expected: Explanation) -> None:
    for name in FIELDS:
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            # The order of float32 sums may depend on the size of the batch.
            np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-6, err_msg=name)


def test_shapes_and_dtypes(explainer: Explainer) -> None:
    for name, method in METHODS.items():
        for target, shape in [(None, (4,)), ([[0, 1, 2]] * 4, (4, 3))]:
            result = explainer.explain(pixels(4), method=name, target=target)
            assert result.logits.shape == (4, 6) and result.logits.dtype == np.float32
            assert result.probabilities is not None
            assert result.probabilities.shape == (4, 6) and result.probabilities.dtype == np.float32
            assert result.targets.shape == shape and result.targets.dtype == np.int64
            size = (12, 16) if method.is_map else (3, 12, 16)
            assert result.attributions.shape == (*shape, *size) and result.attributions.dtype == np.float32
            assert result.heatmaps.shape == (*shape, 12, 16) and result.heatmaps.dtype == np.float32
            if method.is_map:
                assert result.maps is not None
                assert result.maps.shape == (*shape, 6, 8) and result.maps.dtype == np.float32
            else:
                assert result.maps is None


@pytest.mark.parametrize("batch_size", [1, 2, 3, 7, 100])
def test_batch_size_does_not_matter(explainer: Explainer, batch_size: int) -> None:
    images, targets = pixels(7), [[i % 6, 3, -(i % 2) % 6] for i in range(7)]
    for name in METHODS:
        whole = explainer.explain(images, method=name, target=targets, batch_size=21)
        assert_close(explainer.explain(images, method=name, target=targets, batch_size=batch_size), whole)


def test_batches_are_never_larger_than_asked(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    run = explainer._sessions.run

    def counted(outputs: frozenset[str], images: np.ndarray, targets: np.ndarray) -> Any:
        sizes.append(len(images))
        return run(outputs, images, targets)

    monkeypatch.setattr(explainer._sessions, "run", counted)
    explainer.explain(pixels(7), batch_size=3)
    assert sizes == [3, 3, 1]
    sizes.clear()
    explainer.explain(pixels(3), target=[[0, 1, 2, 3, 4]] * 3, batch_size=4)
    assert sizes == [4, 1] * 3


def test_each_pair_equals_its_own_run(explainer: Explainer) -> None:
    images, targets = pixels(3), np.array([[0, 5], [2, 2], [4, 1]])
    for name in METHODS:
        together = explainer.explain(images, method=name, target=targets)
        for k in range(2):
            alone = explainer.explain(images, method=name, target=targets[:, k])
            np.testing.assert_allclose(together.attributions[:, k], alone.attributions, rtol=2e-5, atol=2e-6)
            np.testing.assert_allclose(together.heatmaps[:, k], alone.heatmaps, rtol=2e-5, atol=2e-6)


def test_several_methods_run_the_graph_once(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    separate = {name: explainer.explain(pixels(2), method=name) for name in METHODS}
    runs = []
    run = explainer._sessions.run
    monkeypatch.setattr(explainer._sessions, "run", lambda *args: runs.append(args[0]) or run(*args))
    together = explainer.explain(pixels(2), method=[*METHODS, "cam"])
    assert len(runs) == 1
    assert list(together) == list(METHODS)
    for name in METHODS:
        assert_close(together[name], separate[name])
    assert list(explainer.explain(pixels(1), method=("cam",))) == ["cam"]


def test_only_what_a_method_needs_is_computed(explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    run = explainer._sessions.run
    monkeypatch.setattr(explainer._sessions, "run", lambda *args: asked.append(args[0]) or run(*args))
    explainer.explain(pixels(1), method="backprop")
    explainer.explain(pixels(1), method="cam")
    assert asked == [{"logits", "input_gradients"}, {"logits", "activations", "class_weights"}]


def test_top(explainer: Explainer) -> None:
    result = explainer.explain(pixels(5), top=3, batch_size=4)
    expected = np.argsort(-result.logits, axis=1)[:, :3]
    assert np.array_equal(result.targets, expected)
    assert_close(result, explainer.explain(pixels(5), target=expected))
    one = explainer.explain(pixels(5), top=1)
    assert one.targets.shape == (5, 1)
    np.testing.assert_allclose(one.heatmaps[:, 0], explainer.explain(pixels(5)).heatmaps, rtol=2e-5, atol=2e-6)


def test_predicted_class_among_named_ones(explainer: Explainer) -> None:
    images = pixels(3)
    predicted = explainer.explain(images).logits.argmax(axis=1)
    result = explainer.explain(images, target=[[None, 0]] * 3)
    assert result.targets.tolist() == [[p, 0] for p in predicted]
    assert explainer.explain(images, target=[None, 2, "espresso"]).targets.tolist() == [predicted[0], 2, 1]


def test_labels(explainer: Explainer) -> None:
    assert explainer.labels == LABELS
    assert explainer.explain(pixels(2), target="espresso").labels == ["espresso", "espresso"]
    assert explainer.explain(pixels(1), target=[[0, 3]]).labels == [["tabby, tabby cat", "moped"]]


def test_no_labels(tmp_path: Path) -> None:
    explainer = Explainer(Tiny(labels=None).save(tmp_path / "m.onnx"))
    assert explainer.labels is None
    assert explainer.explain(pixels(1), target=4).labels == ["class 4"]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"target": 6}, TargetError, "classes 0 to 5"),
        ({"target": "dog"}, TargetError, "no label 'dog'"),
        ({"target": [0, 1]}, TargetError, "2 targets for 1 images"),
        ({"target": 1, "top": 2}, TargetError, "target or top, not both"),
        ({"top": 7}, TargetError, "from 1 to 6"),
        ({"top": 0}, TargetError, "from 1 to 6"),
        ({"batch_size": 0}, ImageError, "batch_size must be a positive integer"),
        ({"batch_size": 1.5}, ImageError, "batch_size must be a positive integer"),
        ({"method": "magic"}, MethodError, "no method 'magic'"),
    ],
)
def test_wrong_arguments(explainer: Explainer, arguments: dict[str, Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words) as raised:
        explainer.explain(pixels(1), **arguments)
    assert "\n" not in str(raised.value)


# Probabilities.


def test_softmax(explainer: Explainer) -> None:
    result = explainer.explain(pixels(3))
    logits = result.logits.astype(np.float64)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.probabilities, expected, rtol=1e-6)


@pytest.mark.parametrize("score", ["softmax", "sigmoid", "none"])
def test_probabilities_of_huge_logits(tmp_path: Path, score: str) -> None:
    """Logits of +-5000, where a naive exponential overflows."""
    tiny = Tiny(score=score)
    weights = tiny.weights()
    weights["fc.weight"][...] = 0
    weights["fc.bias"][...] = [5000, -5000, 0, 4999, 0, 0]
    (tmp_path / "m.onnx").write_bytes(digest.seal(tiny.proto(weights).SerializeToString()))
    found = Explainer(tmp_path / "m.onnx").explain(pixels(1)).probabilities
    one = 1 / (1 + np.exp(-1))
    expected = {"softmax": [one, 0, 0, 1 - one, 0, 0], "sigmoid": [1, 0, 0.5, 1, 0.5, 0.5], "none": None}[score]
    if expected is None:
        assert found is None
    else:
        assert found is not None and found.dtype == np.float32
        np.testing.assert_allclose(found[0], expected, atol=1e-6)


# Numbers that are not finite.


def broken(tmp_path: Path, name: str, value: float) -> Explainer:
    tiny = Tiny()
    weights = tiny.weights()
    weights[name].flat[0] = value
    path = tmp_path / "broken.onnx"
    path.write_bytes(digest.seal(tiny.proto(weights).SerializeToString()))
    return Explainer(path)


@pytest.mark.parametrize("name", ["conv1.weight", "conv2.bias", "fc.weight", "fc.bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_not_finite(tmp_path: Path, name: str, value: float) -> None:
    explainer = broken(tmp_path, name, value)
    for method in METHODS:
        with pytest.raises(OutputError, match=r"broken\.onnx: \w+ of image 0 holds NaN or infinity") as raised:
            explainer.explain(pixels(2), method=method, target=0)
        assert "\n" not in str(raised.value)


def test_the_image_that_overflows_is_named(explainer: Explainer) -> None:
    images = pixels(5)
    images[3] *= np.float32(1e38)
    for batch_size in (1, 2, 32):
        with pytest.raises(OutputError, match=r"logits of image 3 holds NaN or infinity"):
            explainer.explain(images, target=[[0, 1]] * 5, batch_size=batch_size)


def test_large_but_finite_numbers_are_fine(explainer: Explainer) -> None:
    """Sums of such values overflow, but each of them is a number."""
    images = pixels(2) * np.float32(1e36)
    result = explainer.explain(images, method="gradcam", target=0)
    assert np.isfinite(result.logits).all() and np.abs(result.logits).max() > 1e34
    assert np.isfinite(result.heatmaps).all()


def test_rule_that_overflows(tmp_path: Path) -> None:
    """CAM's weighted sum leaves float32 while everything that it is made of fits."""
    tiny = Tiny()
    weights = {name: np.abs(value) for name, value in tiny.weights().items()}
    weights["fc.weight"][...] = [[3e38, -3e38, 3e38, -3e38, 0]] + [[0] * 5] * 5
    path = tmp_path / "large.onnx"
    path.write_bytes(digest.seal(tiny.proto(weights).SerializeToString()))
    images = np.abs(pixels(1))
    with pytest.raises(OutputError, match="NaN or infinity|overflow float32"):
        Explainer(path).explain(images, method="cam", target=0)


# Sharing.


def test_threads_share_one_explainer(model_path: Path) -> None:
    explainer = Explainer(model_path, threads=1)
    jobs = [(i, name) for i in range(8) for name in METHODS]

    def work(job: tuple[int, str]) -> Explanation:
        seed, name = job
        return explainer.explain(pixels(3, seed), method=name, target=[seed % 6, None, 1])

    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(work, jobs))
    for job, found in zip(jobs, parallel, strict=True):
        expected = work(job)
        for name in FIELDS:
            mine, theirs = getattr(found, name), getattr(expected, name)
            assert (mine is None and theirs is None) or np.array_equal(mine, theirs), (job, name)


def test_nothing_but_the_cache_changes(model_path: Path) -> None:
    explainer = Explainer(model_path)
    proto = ModelFile.read(model_path).proto
    state = {name: id(value) for name, value in vars(explainer).items()}
    sessions = {name: id(value) for name, value in vars(explainer._sessions).items()}
    explainer.explain(pixels(2), method=list(METHODS), top=2)
    assert {name: id(value) for name, value in vars(explainer).items()} == state
    assert {name: id(value) for name, value in vars(explainer._sessions).items()} == sessions
    assert explainer._model.proto == proto


def test_inputs_are_not_modified(explainer: Explainer, photo: Photo) -> None:
    images, array = pixels(2), np.asarray(photo()).copy()
    before, array_before = images.copy(), array.copy()
    explainer.explain(images, method=list(METHODS))[METHODS["gradcam"].name].overlays()
    explainer.explain(array).overlays(canvas="original")
    assert np.array_equal(images, before) and np.array_equal(array, array_before)


def test_only(explainer: Explainer, photo: Photo) -> None:
    result = explainer.explain([photo(seed=i) for i in range(3)], method="guided-gradcam", top=2)
    alone = result.only(1)
    assert alone.targets.tolist() == result.targets[1:2].tolist()
    assert alone.photographs == result.photographs[1:2]
    assert np.array_equal(alone.attributions, result.attributions[1:2])


def test_what_it_says_of_itself(explainer: Explainer, tiny: Tiny) -> None:
    assert explainer.metadata == tiny.metadata()
    assert "tiny.onnx" in repr(explainer) and "CPUExecutionProvider" in repr(explainer)


def test_package_exports() -> None:
    for name in seewhy.__all__:
        assert getattr(seewhy, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = seewhy.nothing
