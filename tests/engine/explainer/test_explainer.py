"""Tests of `seewhy.Explainer.explain`: batches, targets, several methods, and threads."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

import seewhy
from seewhy import ArgumentError, Explainer, Explanation, ImageError, MethodError, ModelFileError, TargetError
from seewhy.methods.registry import METHODS
from seewhy.runtime import sessions
from seewhy.runtime.model_file import ModelFile
from support import tiny_model_with_skip
from support.session_calls import StartedSessions, record_plans, record_runs
from support.tiny_model import LABELS, Tiny, set_property
from support.tiny_model_files import pixels, write

MakeImage = Callable[..., Image.Image]
ONE_RUN = [name for name, method in METHODS.items() if method.multi_pass is None]
FAST = {"smoothgrad": {"samples": 3}, "integrated-gradients": {"steps": 4}}


def fast_options(names: Any) -> dict[str, Any]:
    """Return options that make these methods fast."""
    return {name: FAST[name] for name in names if name in FAST}


FIELDS = ("logits", "probabilities", "targets", "maps", "attributions", "heatmaps")


def assert_close(found: Explanation, expected: Explanation) -> None:
    for name in FIELDS:
        mine, theirs = getattr(found, name), getattr(expected, name)
        assert (mine is None) == (theirs is None), name
        if mine is not None:
            # The order of float32 sums may depend on the size of the batch.
            np.testing.assert_allclose(mine, theirs, rtol=2e-5, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("target", [None, [0, 1], [[0, 1], [2, 3]]])
def test_results_may_be_written_to(explainer: Explainer, target: Any) -> None:
    results = explainer.explain(pixels(2), method=["backprop", "gradcam", "eigencam"], target=target)
    for result in results.values():
        arrays = [getattr(result, name) for name in FIELDS]
        assert all(array.flags.writeable for array in arrays if array is not None)


def test_shapes_and_dtypes(explainer: Explainer) -> None:
    for name, method in METHODS.items():
        for target, shape in [(None, (4,)), ([[0, 1, 2]] * 4, (4, 3))]:
            result = explainer.explain(pixels(4), method=name, target=target, options=fast_options([name]))
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
        options = fast_options([name])
        whole = explainer.explain(images, method=name, target=targets, batch_size=21, options=options)
        parts = explainer.explain(images, method=name, target=targets, batch_size=batch_size, options=options)
        assert_close(parts, whole)


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], set[str], int]]:
    """Record every plan of runs of the graph: its outputs, its inputs, and its number of rows."""
    return record_plans(monkeypatch)


IMAGE, HEAD = {"images", "targets"}, {"activations", "targets"}


def test_batches_never_exceed_the_batch_size(
    explainer: Explainer, runs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    explainer.explain(pixels(7), batch_size=3)
    assert [rows for _, _, rows in runs] == [3, 3, 1]
    runs = record_runs(monkeypatch)
    for names in [[name] for name in METHODS]:
        runs.clear()
        options = fast_options(names)
        explainer.explain(pixels(3), method=names, target=[[0, 1, 2, 3, 4]] * 3, batch_size=4, options=options)
        assert max(rows for _, _, rows in runs) <= 4


@pytest.mark.parametrize("batch_size", [4, 8, 100])
def test_further_classes_run_the_head_alone(explainer: Explainer, runs: list[Any], batch_size: int) -> None:
    """For methods without a gradient of the image, the backbone runs once for each image and all its classes."""
    names = [name for name in ONE_RUN if not any("_gradients" in output for output in METHODS[name].outputs)]
    assert {"cam", "gradcam", "hirescam", "eigencam"} <= set(names)
    explainer.explain(pixels(4), method=names, top=5, batch_size=batch_size)
    assert runs[0] == ({"logits", "activations", "gradients", "class_weights"}, IMAGE, 4)
    assert runs[1:] == [({"gradients", "class_weights"}, HEAD, 4 * 4)]


def test_methods_with_gradients_of_the_image_repeat_it(explainer: Explainer, runs: list[Any]) -> None:
    """Their run computes the outputs of the other methods, too, so no other run is needed."""
    explainer.explain(pixels(3), method=["gradcam", "backprop", "eigencam"], top=4)
    outputs = {"logits", "activations", "gradients", "input_gradients"}
    assert runs == [(outputs, IMAGE, 3), (outputs, IMAGE, 3 * 3)]


def test_methods_that_ignore_the_class_run_once(explainer: Explainer, runs: list[Any]) -> None:
    result = explainer.explain(pixels(3), method="eigencam", top=4)
    assert runs == [({"logits", "activations"}, IMAGE, 3)]
    assert result.heatmaps.shape == (3, 4, 12, 16)
    assert np.array_equal(result.heatmaps[:, 0], result.heatmaps[:, 3])
    result.heatmaps[0, 0] = 7  # the classes do not share memory
    assert (result.heatmaps[0, 1] <= 1).all()


@pytest.mark.parametrize(("separates", "cut"), [(False, None), (False, "activations"), (True, None), (True, "pooled")])
def test_layers_that_do_not_separate_repeat_the_image(
    tmp_path: Path, explainer: Explainer, runs: list[Any], separates: bool, cut: str | None
) -> None:
    """The head runs alone only if the metadata allows it. The numbers are the same."""
    layer = {"name": "features.4", "chosen": "automatic", "separates": separates, "cut": cut}
    other = Explainer(write(tmp_path / "m.onnx", set_property(Tiny().proto(), "layer", layer)), threads=1)
    result = other.explain(pixels(3), method="gradcam", top=3)
    assert [fed for _, fed, _ in runs] == [IMAGE, IMAGE]
    assert_close(result, explainer.explain(pixels(3), method="gradcam", top=3))


def test_a_path_around_the_layer(tmp_path: Path) -> None:
    images = pixels(3)
    result = Explainer(tiny_model_with_skip.save(tmp_path / "m.onnx")).explain(images, method="hirescam", top=3)
    main = Explainer(Tiny().save(tmp_path / "tiny.onnx")).explain(images, method="hirescam", target=result.targets)
    expected = main.logits + tiny_model_with_skip.skip_logits(images)
    np.testing.assert_allclose(result.logits, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(result.heatmaps, main.heatmaps, rtol=2e-5, atol=2e-6)


def test_metadata_that_is_wrong_about_the_layer(tmp_path: Path) -> None:
    """The layer does not separate input from logits, although the metadata says so: an error, not wrong numbers."""
    explainer = Explainer(tiny_model_with_skip.save(tmp_path / "m.onnx", separates=True))
    assert explainer.explain(pixels(2)).heatmaps.shape == (2, 12, 16)
    with pytest.raises(ModelFileError, match=r"m\.onnx: computing gradients needs images besides") as raised:
        explainer.explain(pixels(2), top=2)
    assert "\n" not in str(raised.value)


def test_several_classes_equal_separate_calls(explainer: Explainer) -> None:
    images, targets = pixels(3), np.array([[0, 5], [2, 2], [4, 1]])
    for name in METHODS:
        together = explainer.explain(images, method=name, target=targets, options=fast_options([name]))
        for k in range(2):
            alone = explainer.explain(images, method=name, target=targets[:, k], options=fast_options([name]))
            np.testing.assert_allclose(together.attributions[:, k], alone.attributions, rtol=2e-5, atol=2e-6)
            np.testing.assert_allclose(together.heatmaps[:, k], alone.heatmaps, rtol=2e-5, atol=2e-6)


def test_several_methods_run_the_graph_once(explainer: Explainer, runs: list[Any]) -> None:
    separate = {name: explainer.explain(pixels(2), method=name) for name in ONE_RUN}
    runs.clear()
    together = explainer.explain(pixels(2), method=[*ONE_RUN, "cam"])
    assert len(runs) == 1
    assert list(together) == ONE_RUN
    for name in ONE_RUN:
        assert_close(together[name], separate[name])
    assert list(explainer.explain(pixels(1), method=("cam",))) == ["cam"]


def test_only_what_a_method_needs_is_computed(explainer: Explainer, runs: list[Any]) -> None:
    explainer.explain(pixels(1), method="backprop")
    explainer.explain(pixels(1), method="cam")
    assert [outputs for outputs, _, _ in runs] == [
        {"logits", "input_gradients"},
        {"logits", "activations", "class_weights"},
    ]


def test_a_wrong_batch_size_does_not_reach_other_calls(model_path: Path, make_image: Callable[..., Any]) -> None:
    explainer, images = Explainer(model_path), [make_image()]
    with pytest.raises(ArgumentError, match="batch_size"):
        explainer.explain(images, batch_size=8.0)  # type: ignore[call-overload]
    assert len(explainer.explain(images, batch_size=8)) == 1


def test_the_caller_may_reuse_the_array(explainer: Explainer) -> None:
    images = pixels(3)
    kept, result = images.copy(), explainer.explain(images)
    images[...] = 0
    assert all(np.array_equal(view.source, one) for view, one in zip(result.images, kept, strict=True))


def test_top(explainer: Explainer) -> None:
    result = explainer.explain(pixels(5), top=3, batch_size=4)
    expected = np.argsort(-result.logits, axis=1)[:, :3]
    assert np.array_equal(result.targets, expected)
    assert_close(result, explainer.explain(pixels(5), target=expected))
    one = explainer.explain(pixels(5), top=1)
    assert one.targets.shape == (5, 1)
    np.testing.assert_allclose(one.heatmaps[:, 0], explainer.explain(pixels(5)).heatmaps, rtol=2e-5, atol=2e-6)


def test_the_predicted_class_among_given_ones(explainer: Explainer) -> None:
    images = pixels(3)
    predicted = explainer.explain(images).logits.argmax(axis=1)
    result = explainer.explain(images, target=[[None, 0]] * 3)
    assert result.targets.tolist() == [[p, 0] for p in predicted]
    assert explainer.explain(images, target=[None, 2, "espresso"]).targets.tolist() == [predicted[0], 2, 1]


def test_methods_are_resolved_with_the_options_in_use(explainer: Explainer) -> None:
    """The options that `explain` uses, without an image."""
    found = explainer.resolve_methods(["smoothgrad", "gradcam", "smoothgrad"], {"smoothgrad": {"samples": 3}})
    assert [(one.name, one.options) for one in found] == [
        ("smoothgrad", {"samples": 3, "noise": 0.15, "seed": 0}),
        ("gradcam", {}),
    ]
    assert [one.method for one in explainer.resolve_methods("cam")] == [METHODS["cam"]]


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
        ({"target": "dog"}, TargetError, "Unknown label 'dog'"),
        ({"target": [0, 1]}, TargetError, "2 targets are given for 1 images"),
        ({"target": 1, "top": 2}, TargetError, "target or top, not both"),
        ({"top": 7}, TargetError, "from 1 to 6"),
        ({"top": 0}, TargetError, "from 1 to 6"),
        ({"batch_size": 0}, ArgumentError, "batch_size must be a positive integer"),
        ({"batch_size": 1.5}, ArgumentError, "batch_size must be a positive integer"),
        ({"batch_size": np.zeros((3, 3))}, ArgumentError, "batch_size must be a positive integer, not ndarray"),
        ({"target": np.zeros(99), "top": 2}, TargetError, "target=ndarray, top=2"),
        ({"method": "magic"}, MethodError, "Unknown method 'magic'"),
        ({"method": 3}, MethodError, "method must be a name or a list of names, not 3$"),
        ({"method": b"cam"}, MethodError, "method must be a name or a list of names, not b'cam'$"),
        ({"method": np.array(["gradcam", "cam"])}, MethodError, "method must be a name or a list of names, not array"),
        ({"method": [["gradcam"]]}, MethodError, r"Unknown method \['gradcam'\]. Known methods: backprop"),
        ({"method": ["gradcam", np.zeros((3, 3))]}, MethodError, "Unknown method ndarray. Known methods: backprop"),
        ({"progress": 3}, ArgumentError, "progress must be a function of two numbers, not 3$"),
        ({"options": np.zeros((3, 3))}, MethodError, "their options, not ndarray$"),
        ({"options": ["x" * 5000]}, MethodError, "their options, not list$"),
        ({"options": {"x" * 5000: {}}}, MethodError, "a method that does not exist. Unknown method str"),
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
    found = Explainer(write(tmp_path / "m.onnx", tiny.proto(weights))).explain(pixels(1)).probabilities
    one = 1 / (1 + np.exp(-1))
    expected = {"softmax": [one, 0, 0, 1 - one, 0, 0], "sigmoid": [1, 0, 0.5, 1, 0.5, 0.5], "none": None}[score]
    if expected is None:
        assert found is None
    else:
        assert found is not None and found.dtype == np.float32
        np.testing.assert_allclose(found[0], expected, atol=1e-6)


# Sharing.


def test_with_threads(model_path: Path) -> None:
    """Another number of threads gives the same results. Threads that call at the same time get one explainer."""
    explainer = Explainer(model_path)
    with ThreadPoolExecutor(4) as pool:
        others = list(pool.map(lambda _: explainer.with_threads(1), range(8)))
    assert all(other is others[0] for other in others) and others[0] is not explainer
    assert explainer.threads is None and others[0].threads == 1
    assert explainer.with_threads(None) is explainer and explainer.with_threads(2) is not others[0]
    images = np.random.default_rng(0).standard_normal((3, 3, 12, 16)).astype(np.float32)
    assert np.array_equal(explainer.explain(images).heatmaps, others[0].explain(images).heatmaps)
    with pytest.raises(ArgumentError, match=r"threads must be an integer from 1 to \d+ on this machine, not 0"):
        explainer.with_threads(0)


def test_threads_share_one_explainer(model_path: Path) -> None:
    explainer = Explainer(model_path, threads=1)
    jobs = [(i, name) for i in range(8) for name in METHODS if name not in FAST or i < 3]

    def work(job: tuple[int, str]) -> Explanation:
        seed, name = job
        return explainer.explain(pixels(3, seed), method=name, target=[seed % 6, None, 1], options=fast_options([name]))

    with ThreadPoolExecutor(8) as pool:
        parallel = list(pool.map(work, jobs))
    for job, found in zip(jobs, parallel, strict=True):
        expected = work(job)
        for name in FIELDS:
            mine, theirs = getattr(found, name), getattr(expected, name)
            assert (mine is None and theirs is None) or np.array_equal(mine, theirs), (job, name)


def leaves(tree: Any) -> list[Any]:
    """Return the values of nested dicts."""
    return [leaf for value in tree.values() for leaf in leaves(value)] if isinstance(tree, dict) else [tree]


def state(value: Any) -> Any:
    """Return a graph as bytes, our own objects as dicts of their attributes, and all other objects by identity.

    The number of sessions that the cache created is left out.
    """
    if isinstance(value, onnx.ModelProto):
        return value.SerializeToString()
    if type(value).__module__.startswith("seewhy.") and hasattr(value, "__dict__"):
        return {name: state(attribute) for name, attribute in vars(value).items() if name != "created"}
    return id(value)


def test_nothing_but_the_cache_changes(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explainer = Explainer(model_path)
    started = StartedSessions(monkeypatch)
    before = state(explainer)
    assert ModelFile.read(model_path).proto.SerializeToString() in leaves(before)
    explainer.explain(pixels(2), method=list(METHODS), top=2, options=FAST)
    assert state(explainer) == before
    assert 0 < len(started.kept()) <= sessions.CACHED_SESSIONS
    assert explainer.sessions_created == started.count


def test_inputs_are_not_modified(explainer: Explainer, make_image: MakeImage) -> None:
    images, array = pixels(2), np.asarray(make_image()).copy()
    before, array_before = images.copy(), array.copy()
    explainer.explain(images, method=list(METHODS), options=FAST)[METHODS["gradcam"].name].overlays()
    explainer.explain(array).overlays(canvas="original")
    assert np.array_equal(images, before) and np.array_equal(array, array_before)


def test_an_explanation_is_a_sequence_of_images(explainer: Explainer, make_image: MakeImage) -> None:
    result = explainer.explain([make_image(seed=i) for i in range(3)], method="guided-gradcam", top=2)
    assert len(result) == 3 and [each.images for each in result] == [(image,) for image in result.images]
    assert np.array_equal(result[-1].logits, result.logits[2:]) and len(result[1:]) == 2
    for wrong in (3, -4):
        with pytest.raises(IndexError, match="there is no image") as raised:
            result[wrong]
        assert isinstance(raised.value, ArgumentError)
    with pytest.raises(ArgumentError, match="must be an integer or a slice"):
        result["a.jpg"]  # type: ignore[index]
    alone = result[1]
    assert alone.targets.tolist() == result.targets[1:2].tolist()
    assert alone.images == result.images[1:2]
    assert np.array_equal(alone.attributions, result.attributions[1:2])


def test_metadata_and_repr(explainer: Explainer, tiny: Tiny) -> None:
    assert explainer.metadata == tiny.metadata()
    assert "tiny.onnx" in repr(explainer) and "CPUExecutionProvider" in repr(explainer)


def test_package_exports() -> None:
    assert set(seewhy.__all__) <= set(dir(seewhy))
    for name in seewhy.__all__:
        assert getattr(seewhy, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = seewhy.nothing


@pytest.mark.parametrize("given", ["image", "images", "pixels", "target", "targets"])
def test_masked_arrays_are_refused(explainer: Explainer, given: str) -> None:
    """Masked values would otherwise be explained like others, or stand for the predicted class."""
    image = np.ma.masked_less(np.zeros((12, 16, 3), np.uint8), 1)
    images: Any = {
        "image": image,
        "images": [image],
        "pixels": np.ma.masked_less(np.zeros((1, 3, 12, 16), np.float32), 1),
    }.get(given, np.zeros((1, 3, 12, 16), np.float32))
    masked = np.ma.masked_less(np.zeros(1, np.int64), 1)
    target = {"target": masked, "targets": [masked]}.get(given)
    with pytest.raises((ImageError, TargetError), match="masked array"):
        explainer.explain(images, target=target)
