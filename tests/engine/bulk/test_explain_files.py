"""Tests of `seewhy.bulk.explain_files`: images found, paths of results, and images that fail."""

from __future__ import annotations

import io
import itertools
import os
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer, ImageError, OutputError, Settings, TargetError
from seewhy.bulk import explain_files
from seewhy.bulk.job_request import resolve_job
from seewhy.bulk.outcomes import ImageTask, Outcome
from seewhy.bulk.pending_images import pending_images
from seewhy.contract import checksum
from seewhy.inputs.image_inputs import Inputs
from seewhy.storage import output_folder
from support.session_calls import Feeds, Run, replace_runs
from support.tiny_model import LABELS, Tiny, load

MakeImage = Callable[..., Image.Image]


@pytest.fixture
def images(tmp_path: Path, make_image: MakeImage) -> Path:
    """Make photos/{a.jpg, B.PNG, notes.txt, deep/er/c.webp, deep/a.jpg}, with different images."""
    folder = tmp_path / "photos"
    (folder / "deep" / "er").mkdir(parents=True)
    for seed, name in enumerate(["a.jpg", "B.PNG", "deep/er/c.webp", "deep/a.jpg"]):
        make_image(seed=seed).save(folder / name)
    (folder / "notes.txt").write_text("not an image")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def find_images(paths: Sequence[str | Path], folder: str | Path) -> list[ImageTask]:
    return list(pending_images(Inputs(paths, folder)))


def outcomes_of(
    explainer: Explainer,
    found: list[ImageTask],
    folder: Path,
    settings: Settings,
    progress: Callable[[int, int], object] | None = None,
) -> Iterator[Outcome]:
    output = output_folder.Folder(folder, [task.input.path for task in found])
    return explain_files.explain_files(resolve_job(explainer, settings), found, output, progress, len(found))


def run(explainer: Explainer, found: list[ImageTask], folder: Path, settings: Settings) -> list[Outcome]:
    return list(outcomes_of(explainer, found, folder, settings))


def test_images_below_a_folder_are_found(images: Path) -> None:
    found = find_images([images], images / "out")
    expected = ["B.PNG", "a.jpg", "deep/a.jpg", "deep/er/c.webp"]
    assert [task.input.path for task in found] == [str(images / name) for name in expected]
    assert [task.result_name.as_posix() for task in found] == ["B", "a", "deep/a", "deep/er/c"]


def test_files_given_by_name_are_always_tried(images: Path) -> None:
    paths = [images / "notes.txt", images / "none.jpg", images / "a.jpg"]
    assert [task.input.path for task in find_images(paths, "out")] == [str(path) for path in paths]
    assert [task.result_name for task in find_images(paths, "out")] == [PurePath(path.stem) for path in paths]


def test_each_file_is_explained_once(images: Path) -> None:
    (images / "link.jpg").symlink_to(images / "a.jpg")
    found = find_images([images / "a.jpg", images, images / "deep"], "out")
    assert len({Path(task.input.path).resolve() for task in found}) == len(found) == 4


def test_links_to_folders_are_not_followed(images: Path) -> None:
    (images / "deep" / "loop").symlink_to(images)
    assert len(find_images([images], "out")) == 4


def test_an_output_folder_below_an_input_is_skipped(images: Path, explainer: Explainer) -> None:
    out = images / "deep" / "out"
    for _ in range(2):
        found = find_images([images], out)
        assert len(found) == 4
        run(explainer, found, out, Settings())
    assert len(names(out)) == 4


def test_output_folder_must_not_be_an_input(images: Path) -> None:
    with pytest.raises(OutputError, match="the output folder is also an input folder"):
        find_images([images], images / "deep" / "..")


def test_folder_without_images(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="the folder holds no images"):
        find_images([tmp_path], "out")


def test_results_mirror_the_inputs(images: Path, explainer: Explainer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    outcomes = run(explainer, find_images([images], out), out, Settings(batch_size=3, plain=True))
    assert names(out) == ["B.gradcam.png", "a.gradcam.png", "deep/a.gradcam.png", "deep/er/c.gradcam.png"]
    assert [o.path.name for o in outcomes] == ["B.PNG", "a.jpg", "a.jpg", "c.webp"]
    assert [o.explained[0].figure.relative_to(out).as_posix() for o in outcomes] == names(out)
    for outcome in outcomes:
        expected = explainer.explain(outcome.path)
        drawn = load(outcome.explained[0].figure).astype(int)
        # The last digit of a float32 depends on the batch size, so a color may differ by one step.
        assert np.abs(drawn - np.asarray(expected.overlays()[0])).max() <= 4
        assert outcome.explained[0].label == expected.labels[0]
        assert outcome.explained[0].score == expected.score_text(0, int(expected.targets[0]))


def test_same_names_from_two_folders(make_image: MakeImage, explainer: Explainer, tmp_path: Path) -> None:
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        make_image(seed=len(folder)).save(tmp_path / folder / "a.png")
    found = find_images([tmp_path / "x", tmp_path / "y"], tmp_path / "out")
    run(explainer, found, tmp_path / "out", Settings())
    assert names(tmp_path / "out") == ["a.png.gradcam.png", "a.png~2.gradcam.png"]


def test_several_methods_classes_and_raw_arrays(images: Path, explainer: Explainer, tmp_path: Path) -> None:
    settings = Settings(["gradcam", "backprop"], top=2, raw=True)
    [outcome] = run(explainer, find_images([images / "a.jpg"], tmp_path / "out"), tmp_path / "out", settings)
    first, second = explainer.explain(images / "a.jpg", top=2).targets[0]
    labels = [re.sub(r"\W+", "_", LABELS[index]) for index in (first, second)]
    expected = [f"a.{method}.{k + 1}-{labels[k]}.png" for method in ("backprop", "gradcam") for k in (0, 1)]
    assert names(tmp_path / "out") == sorted([*expected, "a.sheet.png", "a.backprop.npz", "a.gradcam.npz"])
    assert [one.figure.name for one in outcome.explained] == ["a.sheet.png"] * 2
    assert load(outcome.explained[0].figure).shape[1] == 40 + 3 * 224 + 2 * 12  # the image and two methods


@pytest.mark.parametrize(("targets", "expected"), [([], None), ([2], [2]), (["moped"], [3]), ([4, "espresso"], [4, 1])])
def test_targets(images: Path, explainer: Explainer, tmp_path: Path, targets: list, expected: list | None) -> None:
    settings = Settings(targets=targets, raw=True)
    run(explainer, find_images([images], tmp_path / "out"), tmp_path / "out", settings)
    with np.load(tmp_path / "out" / "a.gradcam.npz") as saved:
        assert np.atleast_1d(saved["target"]).tolist() == (expected or [saved["logits"].argmax()])


def test_a_class_named_twice_is_explained_once(images: Path, explainer: Explainer, tmp_path: Path) -> None:
    found, out = find_images([images / "a.jpg"], tmp_path / "out"), tmp_path / "out"
    [outcome] = run(explainer, found, out, Settings(targets=[1, 4, 1, "espresso"]))
    assert [one.figure.name for one in outcome.explained] == ["a.gradcam.1-espresso.png", "a.gradcam.2-crane.png"]
    [outcome] = run(explainer, found, out, Settings(targets=[1, "espresso"]))
    assert [one.figure.name for one in outcome.explained] == ["a.gradcam.png"]


def test_bad_images_do_not_stop_the_others(images: Path, explainer: Explainer, tmp_path: Path) -> None:
    (images / "b.jpg").write_bytes((images / "a.jpg").read_bytes()[:300])
    (images / "zero.png").touch()
    for batch_size in (1, 2, 32):
        out = tmp_path / f"out{batch_size}"
        outcomes = run(explainer, find_images([images], out), out, Settings(batch_size=batch_size))
        assert [o.path.name for o in outcomes if o.error] == ["b.jpg", "zero.png"]
        assert all(str(o.path) in str(o.error) and not o.explained for o in outcomes if o.error)
        assert len(names(out)) == 4


def test_only_bad_images(explainer: Explainer, tmp_path: Path) -> None:
    found = find_images([tmp_path / "x.png", tmp_path / "y.png"], tmp_path / "out")
    outcomes = run(explainer, found, tmp_path / "out", Settings())
    assert [str(o.error) for o in outcomes] == [
        f"{o.path}: cannot be read: No such file or directory" for o in outcomes
    ]


def test_image_that_overflows_does_not_stop_the_others(make_image: MakeImage, tmp_path: Path) -> None:
    """The logits of this network overflow for a bright image only."""
    tiny = Tiny()
    weights = {name: np.abs(value) for name, value in tiny.weights().items()}
    weights["conv1.bias"][...] = -9
    weights["conv2.bias"][...] = 0
    weights["fc.weight"][...] = 3e38
    (tmp_path / "m.onnx").write_bytes(checksum.seal(tiny.proto(weights).SerializeToString()))
    for name, value in [("a", 0), ("b", 255), ("c", 0)]:
        Image.new("RGB", (16, 12), (value,) * 3).save(tmp_path / f"{name}.png")
    found = find_images([tmp_path / f"{name}.png" for name in "abc"], tmp_path / "out")
    outcomes = run(Explainer(tmp_path / "m.onnx"), found, tmp_path / "out", Settings())
    assert [o.error is None for o in outcomes] == [True, False, True]
    assert "b.png" in str(outcomes[1].error) and "NaN or infinity" in str(outcomes[1].error)


def test_an_image_alone_is_not_explained_twice(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If a batch of one image is not finite, there is no other image that could have caused it."""
    explainer = Explainer(Tiny().save(tmp_path / "m.onnx"))
    calls = []

    def spoiled(run: Run, outputs: frozenset[str], feeds: Feeds) -> dict[str, np.ndarray]:
        calls.append(outputs)
        factor = np.nan if "input_gradients" in outputs else 1
        return {name: value * factor for name, value in run(outputs, feeds).items()}

    replace_runs(monkeypatch, spoiled)
    found = find_images([images / "a.jpg", images / "B.PNG"], tmp_path / "out")
    outcomes = list(outcomes_of(explainer, found, tmp_path / "out", Settings(["smoothgrad"])))
    assert calls.count(frozenset({"logits"})) == 2  # the plain run of each image
    words = r"m\.onnx: input_gradients of image 0 holds NaN"
    assert all(re.match(f"{re.escape(str(o.path))}: .*{words}", str(o.error)) for o in outcomes)


def test_multi_pass_methods_finish_image_by_image(images: Path, explainer: Explainer, tmp_path: Path) -> None:
    """The results of an image are written before the next image starts, and progress counts the passes of each."""
    passes: list[tuple[int, int]] = []
    settings = Settings(["scorecam", "smoothgrad"], options={"smoothgrad": {"samples": 3}}, batch_size=4, plain=True)
    found = find_images([images], tmp_path / "out")
    outcomes = outcomes_of(explainer, found, tmp_path / "out", settings, lambda *done: passes.append(done))
    for done in range(1, len(found) + 1):
        assert next(outcomes).error is None
        assert len(names(tmp_path / "out")) == 3 * done
        assert sum(step == (8, 8) for step in passes) == done
    together = explainer.explain([task.input.path for task in found], "scorecam")
    figure = load(tmp_path / "out" / "deep" / "a.scorecam.png").astype(int)
    assert np.abs(figure - np.asarray(together.overlays()[2])).max() <= 4


def test_a_wrong_target_stops_everything(images: Path, explainer: Explainer, tmp_path: Path) -> None:
    with pytest.raises(TargetError, match="out of range"):
        run(explainer, find_images([images], tmp_path / "out"), tmp_path / "out", Settings(targets=[99]))
    assert not names(tmp_path / "out")


def test_canvas_original(images: Path, explainer: Explainer, tmp_path: Path) -> None:
    settings = Settings(["gradcam", "backprop"], canvas="original", plain=True)
    run(explainer, find_images([images / "a.jpg"], tmp_path / "out"), tmp_path / "out", settings)
    assert load(tmp_path / "out" / "a.gradcam.png").shape == (30, 40, 3)
    assert load(tmp_path / "out" / "a.backprop.png").shape == (12, 16, 3)


# Concurrent batches.


@pytest.fixture
def many(tmp_path: Path, make_image: MakeImage) -> Path:
    """Make a folder of 23 images and two files that are not images."""
    folder = tmp_path / "many"
    folder.mkdir()
    for seed in range(23):
        make_image(40 + seed, 30, seed).save(folder / f"{seed:02}.png")
    (folder / "05.jpg").write_bytes(b"hello")
    (folder / "22.webp").touch()
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names(folder)}


def test_the_same_bytes_for_any_number_of_threads(many: Path, model_path: Path, tmp_path: Path) -> None:
    """The bytes do not depend on the batch size either."""
    found: list[dict[str, bytes]] = []
    for threads, size in [(1, 1), (1, 8), (2, 8), (3, 4), (5, 32), (None, 8)]:
        out = tmp_path / f"out-{threads}-{size}"
        settings = Settings(["gradcam", "guided-backprop"], top=2, batch_size=size, format="jpg")
        outcomes = run(Explainer(model_path, threads=threads), find_images([many], out), out, settings)
        assert [outcome.path for outcome in outcomes] == sorted(many.iterdir())
        assert [outcome.path.name for outcome in outcomes if outcome.error] == ["05.jpg", "22.webp"]
        found.append(contents(out))
    assert len(found[0]) == 23 * (2 * 2 + 1)
    assert all(other == found[0] for other in found)


def test_two_batches_run_at_the_same_time(many: Path, model_path: Path, tmp_path: Path, monkeypatch: Any) -> None:
    """The two calls wait for each other, which only concurrent calls can."""
    barrier = threading.Barrier(2, timeout=30)
    explain = Explainer.explain_resolved
    calls = itertools.count()
    threads = set()

    def meet(self: Explainer, *rest: Any, **more: Any) -> Any:
        threads.add(self.threads)
        if next(calls) < 2:
            barrier.wait()
        return explain(self, *rest, **more)

    monkeypatch.setattr(Explainer, "explain_resolved", meet)
    out = tmp_path / "out"
    outcomes = run(Explainer(model_path, threads=2), find_images([many], out), out, Settings(batch_size=7))
    assert sum(outcome.error is None for outcome in outcomes) == 23
    assert threads == {1}  # each batch runs on one thread


def test_closing_early_leaves_whole_files_and_no_threads(many: Path, model_path: Path, tmp_path: Path) -> None:
    found = find_images([many], tmp_path / "out")
    outcomes = outcomes_of(
        Explainer(model_path, threads=2), found, tmp_path / "out", Settings(batch_size=2, plain=True)
    )
    assert next(outcomes).error is None
    outcomes.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("seewhy")]
    written = list((tmp_path / "out").iterdir())
    assert 1 <= len(written) <= 2 * 2 * 2 + 1  # the window
    assert all(load(path).shape == (12, 16, 3) for path in written)


def test_a_folder_that_cannot_be_written_stops_everything(many: Path, model_path: Path, tmp_path: Path) -> None:
    """The outcomes before it are yielded, and no thread is left."""
    out = tmp_path / "out"
    found = find_images([many], out)
    (out / "10.gradcam.png").mkdir(parents=True)  # a folder in place of a result
    outcomes = []
    with pytest.raises(OutputError, match=r"10\.gradcam\.png: cannot be written"):
        for outcome in outcomes_of(Explainer(model_path, threads=2), found, out, Settings(batch_size=2)):
            outcomes.append(outcome.path.name)
    assert outcomes == [task.input.file_name for task in found[:11]]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("seewhy")]


def test_an_image_that_disappears_fails_alone(
    images: Path, explainer: Explainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original image is read again for the overlay; by then it may be deleted."""
    explain = Explainer.explain_resolved

    def explain_and_delete(*arguments: Any, **more: Any) -> Any:
        result = explain(*arguments, **more)
        (images / "a.jpg").unlink()
        return result

    monkeypatch.setattr(Explainer, "explain_resolved", explain_and_delete)
    found = find_images([images], tmp_path / "out")
    outcomes = run(explainer, found, tmp_path / "out", Settings(canvas="original"))
    assert [str(outcome.error) for outcome in outcomes if outcome.error] == [
        f"{images / 'a.jpg'}: cannot be read: No such file or directory"
    ]
    assert len(names(tmp_path / "out")) == 3


def test_files_that_disappear_or_change_after_listing(images: Path, explainer: Explainer, tmp_path: Path) -> None:
    found = find_images([images], tmp_path / "out")
    os.unlink(images / "B.PNG")
    (images / "a.jpg").unlink()
    (images / "a.jpg").mkdir()
    outcomes = run(explainer, found, tmp_path / "out", Settings())
    assert ["No such file" in str(outcomes[0].error), "is a folder, not an image" in str(outcomes[1].error)] == [
        True,
        True,
    ]
    assert [outcome.error for outcome in outcomes[2:]] == [None, None]


@pytest.mark.parametrize(
    ("kind", "pillow", "options"),
    [("jpg", "JPEG", {"quality": 90}), ("webp", "WEBP", {"quality": 90}), ("png", "PNG", {"compress_level": 1})],
)
def test_formats(
    images: Path, explainer: Explainer, tmp_path: Path, kind: str, pillow: str, options: dict[str, int]
) -> None:
    """Every figure, including the contact sheet, has this format and the content of the PNG."""
    found = find_images([images], tmp_path / "out")
    methods = ["gradcam", "backprop"]
    outcomes = run(explainer, found, tmp_path / "out", Settings(methods, format=kind))
    run(explainer, found, tmp_path / "plain", Settings(methods))
    assert outcomes[0].explained[0].figure.suffix == f".{kind}"
    written = names(tmp_path / "out")
    assert len(written) == 12 and all(name.endswith(f".{kind}") for name in written)
    for name in written:
        with Image.open(tmp_path / "out" / name) as figure:
            assert figure.format == pillow
        file = io.BytesIO()
        Image.open((tmp_path / "plain" / name).with_suffix(".png")).save(file, pillow, **options)
        assert (tmp_path / "out" / name).read_bytes() == file.getvalue()


def test_a_figure_too_large_for_its_format(images: Path, explainer: Explainer, tmp_path: Path) -> None:
    Image.new("RGB", (16384, 8)).save(images / "wide.png")
    settings = Settings(canvas="original", format="webp", plain=True)
    outcomes = run(explainer, find_images([images], tmp_path / "out"), tmp_path / "out", settings)
    assert [outcome.path.name for outcome in outcomes if outcome.error] == ["wide.png"]
    assert re.search(r"wide\.gradcam\.webp: 16384x8 pixels, but webp allows at most 16383", str(outcomes[-1].error))
