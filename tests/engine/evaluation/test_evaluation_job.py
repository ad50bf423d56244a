"""Tests of `seewhy.evaluate`: jobs on all kinds of models and images, resumed jobs, and refusals."""

from __future__ import annotations

import csv
import json
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import seewhy
from seewhy import ArgumentError, Explainer, MethodError, MetricError, OutputError, TargetError
from seewhy.evaluation.evaluation_job import EvaluationJob
from seewhy.metrics.registry import METRICS
from support.tiny_model import Tiny

MakeImage = Callable[..., Image.Image]
QUICK = ("sparseness", "top-energy", "average-drop", "deletion", "class-sensitivity", "grid-pointing")


@pytest.fixture
def images(tmp_path: Path, make_image: MakeImage) -> Path:
    """Make photos/{a/0.png, a/1.png, b/2.png, b/3.png}."""
    for seed in range(4):
        path = tmp_path / "photos" / "ab"[seed // 2] / f"{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        make_image(seed=seed).save(path)
    return tmp_path / "photos"


def records(folder: Path) -> dict[str, Any]:
    return {Path(one["path"]).name: one for one in EvaluationJob.records(folder)}


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "per-image.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_metric_and_method_has_a_row_for_every_image(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    result = seewhy.evaluate(explainer, images, tmp_path / "out", metrics=QUICK)
    found = {(row["path"], row["metric"], row["method"]) for row in rows(tmp_path / "out")}
    methods = {"backprop", "guided-backprop", "cam", "gradcam", "guided-gradcam", "layercam", "random", "centre"}
    paths = [str(path) for path in images.rglob("*.png")]
    assert found == {(path, metric, method) for path in paths for metric in QUICK for method in methods}
    assert set(result.metrics) == set(QUICK) and set(result.metrics["sparseness"]) == methods
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["conventions"]["deletion"]["score"] == "probability"


def test_means_are_those_of_the_rows(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    result = seewhy.evaluate(explainer, images, tmp_path / "out", metrics=["top-energy"], methods="gradcam")
    values = [float(row["value"]) for row in rows(tmp_path / "out") if row["method"] == "gradcam"]
    assert len(values) == 4
    assert result.metrics["top-energy"]["gradcam"]["mean"] == pytest.approx(np.mean(values))


def test_values_are_those_of_the_attributions(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    seewhy.evaluate(explainer, images, tmp_path / "out", metrics=["top-energy"], methods=["backprop"])
    (attribution,) = explainer.explain(images / "a" / "0.png", "backprop").attributions
    strongest = np.sort(np.abs(attribution).max(axis=0).ravel())[::-1]
    expected = strongest[: round(0.05 * strongest.size)].sum() / strongest.sum()
    value = records(tmp_path / "out")["0.png"]["metrics"]["top-energy"]["backprop"]["value"]
    assert value == pytest.approx(expected, rel=1e-6)


def test_results_depend_neither_on_threads_nor_on_interruptions(
    model_path: Path, images: Path, make_image: MakeImage, tmp_path: Path
) -> None:
    for seed in range(4, 12):
        make_image(seed=seed).save(images / f"{seed}.png")
    arguments: dict[str, Any] = {
        "metrics": ["stability", "grid-pointing", "insertion"],
        "methods": ["gradcam", "backprop"],
    }
    seewhy.evaluate(Explainer(model_path, threads=1), images, tmp_path / "one", **arguments)
    stop = threading.Event()

    def stop_after_two(done: int, total: int | None) -> None:
        if done == 2:
            stop.set()

    two = Explainer(model_path, threads=2)
    seewhy.evaluate(two, images, tmp_path / "two", stop=stop, progress=stop_after_two, **arguments)
    assert 2 <= len(records(tmp_path / "two")) < 12
    seewhy.evaluate(two, images, tmp_path / "two", **arguments)
    found = [{name: one["metrics"] for name, one in records(tmp_path / folder).items()} for folder in ("one", "two")]
    assert len(found[0]) == 12 and found[0] == found[1]


def test_another_seed_or_convention_is_another_job(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    seewhy.evaluate(explainer, images, tmp_path / "out", metrics=["deletion"], methods=["gradcam"])
    with pytest.raises(OutputError, match=r"evaluation\.seed was 0 and is 1 now"):
        seewhy.evaluate(explainer, images, tmp_path / "out", metrics=["deletion"], methods=["gradcam"], seed=1)
    with pytest.raises(OutputError, match=r"evaluation\.metrics\.deletion\.steps was 20 and is 10 now"):
        options = {"deletion": {"steps": 10}}
        seewhy.evaluate(explainer, images, tmp_path / "out", metrics=["deletion"], methods=["gradcam"], options=options)
    with pytest.raises(OutputError, match="holds results of another job"):
        seewhy.explain_folder(explainer, images, tmp_path / "out")


def test_a_damaged_image_is_one_row_with_its_reason(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    (images / "a" / "broken.png").write_bytes((images / "a" / "0.png").read_bytes()[:200])
    result = seewhy.evaluate(explainer, images, tmp_path / "out", metrics=["sparseness"])
    (row,) = [row for row in rows(tmp_path / "out") if row["path"].endswith("broken.png")]
    assert "broken.png" in row["reason"] and row["value"] == ""
    assert result.metrics["sparseness"]["gradcam"]["n"] == 4


def test_what_cannot_be_measured_is_reported(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    for path in images.rglob("*.png"):
        Image.new("RGB", (30, 30)).save(path)
    result = seewhy.evaluate(explainer, images, tmp_path / "out", metrics=["grid-pointing", "sparseness"])
    entry = result.metrics["grid-pointing"]["gradcam"]
    assert (entry["mean"], entry["n"], entry["unmeasured"]) == (None, 0, 4)
    reasons = {row["reason"] for row in rows(tmp_path / "out") if row["metric"] == "grid-pointing"}
    assert reasons == {"a grid needs images of 4 predicted classes, and there are 1"}


@pytest.mark.parametrize(
    ("tiny", "left_out"),
    [
        (Tiny(classes=1, labels=None, score="sigmoid"), {"class-sensitivity"}),
        (Tiny(classes=1, labels=None, score="none"), {"class-sensitivity", "average-drop", "increase", "average-gain"}),
        (Tiny(labels=None), set()),
        (Tiny(score="sigmoid"), set()),
        (Tiny(channels=1), set()),
    ],
    ids=["one class", "regression", "no labels", "multi-label", "grey"],
)
def test_kinds_of_models(tiny: Tiny, left_out: set[str], images: Path, tmp_path: Path) -> None:
    if tiny.channels == 1:
        preprocessing = seewhy.Preprocessing(mean=(0.5,), std=(0.25,))
        tiny = Tiny(channels=1, preprocessing=preprocessing)
    path = tiny.save(tmp_path / "model.onnx")
    result = seewhy.evaluate(path, images / "a" / "0.png", tmp_path / "out")
    skipped = {one["metric"] for one in result.summary["left_out"] if one["method"] is None}
    assert left_out <= skipped
    measured = result.metrics["deletion"]["gradcam"]
    assert measured["n"] == 1 and np.isfinite(measured["mean"])


def test_metrics_that_apply_to_no_method(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    result = seewhy.evaluate(explainer, images, tmp_path / "out", metrics=["pointing", "sparseness"])
    assert [(one["metric"], one["method"]) for one in result.summary["left_out"]] == [("pointing", None)]
    with pytest.raises(MetricError, match=r"none of the metrics applies: pointing: .*boxes or masks"):
        seewhy.evaluate(explainer, images, tmp_path / "other", metrics="pointing")


def test_targets_of_a_list(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    listed.write_text(f"path,target\n{images / 'a' / '0.png'},3\n{images / 'b' / '2.png'},moped\n")
    seewhy.evaluate(explainer, [], tmp_path / "out", lists=[listed], metrics=["sparseness"])
    targets = {name: record["explained"][0]["class"] for name, record in records(tmp_path / "out").items()}
    assert targets == {"0.png": 3, "2.png": 3}


def test_folders_as_clusters(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    seewhy.evaluate(explainer, images, tmp_path / "out", metrics=["sparseness"], folders_are_clusters=True)
    assert {row["cluster"].rpartition("/")[2] for row in rows(tmp_path / "out")} == {"a", "b"}


def test_clusters_do_not_depend_on_the_current_folder(
    explainer: Explainer, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: dict[str, Any] = {"metrics": ["sparseness"], "methods": "gradcam", "folders_are_clusters": True}
    stop = threading.Event()

    def stop_at_once(done: int, total: int | None) -> None:
        stop.set()

    monkeypatch.chdir(tmp_path)
    one = Explainer(explainer.path, threads=1)
    partial = seewhy.evaluate(one, "photos", "out", stop=stop, progress=stop_at_once, **arguments)
    assert not partial.summary["complete"]
    monkeypatch.chdir(images)
    whole = seewhy.evaluate(one, "../photos", "../out", **arguments)
    assert whole.summary["complete"] and whole.summary["images"] == {"measured": 4, "failed": 0, "clusters": 2}


def test_maps_of_other_tools(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    for path in images.rglob("*.png"):
        (attribution,) = explainer.explain(path, "gradcam").attributions
        file = (tmp_path / "maps" / "other-tool" / path.relative_to(images)).with_suffix(".npz")
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, attribution=attribution)
    file.unlink()
    arguments: dict[str, Any] = {"methods": "gradcam", "metrics": QUICK, "attributions": tmp_path / "maps"}
    result = seewhy.evaluate(explainer, images, tmp_path / "out", **arguments)
    for name, record in records(tmp_path / "out").items():
        for metric in ("sparseness", "top-energy", "average-drop", "deletion"):
            values = record["metrics"][metric]
            if name == f"{file.stem}.png":
                assert values["other-tool"] == {
                    "value": None,
                    "reason": f"the folder of attributions has no other-tool/{file.parent.name}/{file.stem}.npz",
                }
            else:
                assert values["other-tool"]["value"] == pytest.approx(values["gradcam"]["value"], rel=1e-6)
    skipped = {one["metric"] for one in result.summary["left_out"] if one["method"] == "other-tool"}
    assert skipped == {"class-sensitivity", "grid-pointing"}


def test_maps_of_other_tools_by_all_metrics(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    """Maps with and without channels are measured, or the reason is recorded."""
    rng = np.random.default_rng(0)
    for name, shape in (("with-channels", (3, 12, 16)), ("without", (12, 16))):
        (tmp_path / "maps" / name / "a").mkdir(parents=True)
        np.savez(tmp_path / "maps" / name / "a" / "0.npz", attribution=rng.standard_normal(shape).astype(np.float32))
    arguments: dict[str, Any] = {"metrics": "all", "attributions": tmp_path / "maps"}
    seewhy.evaluate(explainer, images / "a" / "0.png", tmp_path / "one", **arguments)
    seewhy.evaluate(explainer, images, tmp_path / "out", **arguments)
    found = records(tmp_path / "out")["0.png"]["metrics"]
    for metric in ("infidelity", "completeness"):
        assert found[metric]["with-channels"]["value"] > 0
        assert "the maps have no unit" in found[metric]["without"]["reason"]
    for metric in ("deletion", "road", "sparseness"):
        assert all(np.isfinite(found[metric][name]["value"]) for name in ("with-channels", "without"))


def test_the_reduction_concerns_maps_alone(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    """Metrics of raw attributions do not depend on it."""
    arguments: dict[str, Any] = {
        "methods": ["backprop", "inputxgradient"],
        "metrics": ["infidelity", "completeness", "sparseness"],
    }
    found = []
    for reduction in (None, "sum", "max-abs"):
        folder = tmp_path / str(reduction)
        seewhy.evaluate(explainer, images / "a" / "0.png", folder, reduction=reduction, **arguments)
        found.append(records(folder)["0.png"]["metrics"])
    for metric in ("infidelity", "completeness"):
        assert found[0][metric] == found[1][metric] == found[2][metric]
    assert set(found[1]["completeness"]) == {"inputxgradient"}
    assert found[1]["sparseness"] != found[2]["sparseness"]


def test_maps_of_other_tools_alone(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    (tmp_path / "maps" / "other-tool").mkdir(parents=True)
    np.savez(tmp_path / "maps" / "other-tool" / "0.npz", attribution=np.eye(12, 16, dtype=np.float32))
    arguments: dict[str, Any] = {"methods": "other-tool", "metrics": "sparseness", "attributions": tmp_path / "maps"}
    result = seewhy.evaluate(explainer, images / "a" / "0.png", tmp_path / "out", **arguments)
    assert set(result.metrics["sparseness"]) == {"other-tool", "random", "centre"}
    both = seewhy.evaluate(explainer, images / "a", tmp_path / "both", **arguments)
    assert {name: one["n"] for name, one in both.metrics["sparseness"].items()} == dict.fromkeys(
        ("other-tool", "random", "centre"), 1
    )
    reasons = records(tmp_path / "both")["1.png"]["metrics"]["sparseness"]
    assert reasons["random"]["reason"] == "no method has a map for this image"
    assert reasons["other-tool"]["reason"] == "the folder of attributions has no other-tool/1.npz"
    np.savez(tmp_path / "maps" / "other-tool" / "0.npz", attribution=np.ones((12, 16), np.float32))
    with pytest.raises(OutputError, match=r"evaluation\.attributions was"):
        seewhy.evaluate(explainer, images / "a" / "0.png", tmp_path / "out", **arguments)


def test_maps_of_another_size_are_refused(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    file = tmp_path / "maps" / "other-tool" / "a" / "0.npz"
    file.parent.mkdir(parents=True)
    np.savez(file, attribution=np.zeros((3, 3), np.float32))
    with pytest.raises(seewhy.SeewhyError, match=r"0\.npz.*\(12, ?16\)"):
        seewhy.evaluate(explainer, images, tmp_path / "out", metrics=["sparseness"], attributions=tmp_path / "maps")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"metrics": "deletoin"}, MetricError, "Did you mean 'deletion'"),
        ({"metrics": 3}, ArgumentError, "metrics must be a name or a list"),
        ({"metrics": ["all", "deletoin"]}, MetricError, "Did you mean 'deletion'"),
        ({"methods": 5}, MethodError, "methods must be a name or a list"),
        ({"methods": "grad-cam"}, MethodError, "Did you mean 'gradcam'"),
        ({"options": {"deletion": {"baseline": "pink"}}}, MetricError, "deletion: baseline must be one of"),
        ({"options": {"deltion": {}}}, MetricError, "neither a method nor a metric. Did you mean 'deletion'"),
        ({"options": 3}, ArgumentError, "options must be a dict"),
        ({"seed": -1}, ArgumentError, "seed must be an integer from 0"),
        ({"target": [1, 2]}, TargetError, "one class of each image"),
        ({"target": "no such label"}, TargetError, "no such label"),
        ({"reduction": "mean"}, ArgumentError, "Unknown reduction"),
        ({"folders_are_clusters": 1}, ArgumentError, "folders_are_clusters must be True or False"),
    ],
)
def test_bad_arguments(
    arguments: dict[str, Any],
    error: type[Exception],
    words: str,
    explainer: Explainer,
    images: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(error, match=words) as raised:
        seewhy.evaluate(explainer, images, tmp_path / "out", **arguments)
    assert "\n" not in str(raised.value) and not (tmp_path / "out").exists()


def test_every_metric_works_on_a_model_that_allows_all(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    regions = tmp_path / "boxes.csv"
    lines = [f"{path},5,5,30,25" for path in images.rglob("*.png")]
    regions.write_text("\n".join(["path,x0,y0,x1,y1", *lines]) + "\n")
    methods = ["gradcam", "inputxgradient", "integrated-gradients"]
    result = seewhy.evaluate(explainer, images, tmp_path / "out", methods=methods, metrics="all", regions=regions)
    skipped = {one["metric"] for one in result.summary["left_out"] if one["method"] is None}
    # The handwritten model file lists no parameters.
    assert skipped == {"randomization"}
    assert set(result.metrics) == set(METRICS) - skipped


def test_members_of_archives(explainer: Explainer, images: Path, tmp_path: Path) -> None:
    """They are measured like files, also in grids, for which the archive is read before."""
    archive = tmp_path / "photos.tar"
    with tarfile.open(archive, "w") as file:
        for path in sorted(images.rglob("*.png")):
            file.add(path, path.relative_to(images))
    arguments: dict[str, Any] = {"metrics": ["sparseness", "grid-pointing"], "methods": "gradcam"}
    seewhy.evaluate(explainer, archive, tmp_path / "members", **arguments)
    seewhy.evaluate(explainer, images, tmp_path / "files", **arguments)
    members, files = (
        {k.rpartition("/")[2]: one for k, one in records(tmp_path / n).items()} for n in ("members", "files")
    )
    assert len(members) == 4
    for name, record in files.items():
        assert members[name]["metrics"]["sparseness"] == record["metrics"]["sparseness"]
