"""Tests of `seewhy.tables`, manifest.jsonl and run.json: their values equal those of an Explainer."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import ArgumentError, Explainer, JobSummary, Settings, TargetError, __version__, explain_folder
from support.command_line import run
from support.references.methods import minmax, upsample
from support.tiny_model import Tiny

MakeImage = Callable[..., Image.Image]


@pytest.fixture
def image_folder(tmp_path: Path, make_image: MakeImage) -> Path:
    """Return a folder with the images 0.png to 9.png, of which 4.png is not an image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(10):
        make_image(seed=seed).save(folder / f"{seed}.png")
    (folder / "4.png").write_bytes(b"not a picture")
    return folder


def lines(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]


def test_manifest_of_figures(image_folder: Path, explainer: Explainer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    summary = explain_folder(explainer, image_folder, out, Settings(["gradcam", "backprop"], top=2))
    assert summary == JobSummary(9, 1, 0, None, out / "manifest.jsonl")
    found = lines(out)
    assert [Path(line["path"]) for line in found] == [image_folder / f"{i}.png" for i in range(10)]
    for line in found:
        assert (line["id"], line["target"]) == (None, None)
        if line["path"].endswith("4.png"):
            assert line["status"] == "failed" and "4.png: not an image" in line["error"]
            assert set(line) == {"path", "id", "target", "status", "error", "input", "crc32"}
            continue
        assert line["status"] == "done" and "error" not in line
        expected = explainer.explain(line["path"], top=5)
        order = expected.targets[0].tolist()
        assert [best["class"] for best in line["top5"]] == order and line["predicted"] == line["top5"][0]
        for best, index in zip(line["top5"], order, strict=True):
            assert best["label"] == explainer.labels[index]  # type: ignore[index]
            # The recorded text is the shortest that equals the float32.
            assert np.float32(best["probability"]) == expected.probabilities[0, index]  # type: ignore[index]
            assert np.float32(best["logit"]) == expected.logits[0, index]
        told = [(each["method"], each["class"]) for each in line["explained"]]
        assert told == [(method, index) for method in ("gradcam", "backprop") for index in order[:2]]
        # One figure for each method and class, and one contact sheet.
        assert len(line["files"]) == 5 and all((out / file["path"]).is_file() for file in line["files"])


def test_provenance(image_folder: Path, model_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    settings = Settings(["smoothgrad"], targets=["espresso"], options={"smoothgrad": {"samples": 2}})
    explain_folder(model_path, image_folder / "1.png", out, settings)
    facts = json.loads((out / "run.json").read_text())
    assert facts["model"]["sha256"] == hashlib.sha256(model_path.read_bytes()).hexdigest()
    assert facts["model"]["exported_with"] == {"seewhy": "0.1.0", "torch": "2.13.0"}
    assert facts["versions"]["seewhy"] == __version__ and facts["providers"] == ["CPUExecutionProvider"]
    assert facts["methods"] == ["smoothgrad"] and facts["targets"] == [1]
    assert facts["options"] == {"smoothgrad": {"samples": 2, "noise": 0.15, "seed": 0}}
    assert facts["preprocessing"]["resize"] == "squash" and facts["decode"] == "exact"
    assert facts["images"] == {"done": 1, "failed": 0} and facts["started"] <= facts["ended"]


def test_npz_shards(image_folder: Path, explainer: Explainer, tmp_path: Path) -> None:
    out = tmp_path / "out"
    explain_folder(explainer, image_folder, out, Settings(format="npz", shard_images=4))
    assert [path.name for path in sorted((out / "shards").iterdir())] == ["00000.npz", "00001.npz", "00002.npz"]
    assert [(line["shard"]["path"], line["lines"]) for line in lines(out)] == [
        (f"shards/{i // 4:05}.npz", 4 if i < 8 else 2) for i in range(10)
    ]
    rows: list[dict[str, Any]] = []
    for path in sorted((out / "shards").iterdir()):
        with np.load(path, allow_pickle=False) as shard:
            names = [name for name in shard if name != "run"]
            rows += [dict(zip(names, row, strict=True)) for row in zip(*(shard[name] for name in names), strict=True)]
            assert json.loads(str(shard["run"]))["versions"]["seewhy"] == __version__
    assert [Path(row["path"]).name for row in rows] == [f"{i}.png" for i in range(10)]
    for row in rows:
        if row["error"]:
            assert row["path"].endswith("4.png") and np.isnan(row["heatmap"]).all() and row["target"] == -1
        else:
            expected = explainer.explain(str(row["path"]))
            assert np.array_equal(row["heatmap"], expected.maps[0])  # type: ignore[index]
            assert row["target"] == row["predicted"] == expected.targets[0]


@pytest.mark.parametrize("full_size", [False, True])
def test_parquet_shards(image_folder: Path, explainer: Explainer, tmp_path: Path, full_size: bool) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "out"
    methods = ["cam", "gradcam"]
    explain_folder(explainer, image_folder, out, Settings(methods, format="parquet", full_size=full_size))
    table = parquet.read_table(out / "shards")
    assert json.loads(table.schema.metadata[b"seewhy"])["methods"] == methods
    rows = table.to_pylist()
    assert [(Path(row["path"]).name, row["method"]) for row in rows] == [
        (f"{i}.png", method) for i in range(10) for method in methods
    ]
    for row in rows:
        assert row["model_sha256"] == explainer.sha256
        if row["path"].endswith("4.png"):
            assert row["error"] and row["heatmap"] is None and row["target"] is None and row["top5"] is None
            continue
        expected = explainer.explain(row["path"], row["method"])
        found = np.array(row["heatmap"], np.float32).reshape(row["height"], row["width"])
        assert row["error"] is None and row["label"] == row["target_label"] == expected.labels[0]
        assert len(row["top5"]) == 5 and row["top5"][0]["class"] == row["predicted"]
        if full_size:
            assert row["postprocessing"] == "ready" and np.array_equal(found, expected.heatmaps[0])
            continue
        assert np.array_equal(found, expected.maps[0])  # type: ignore[index]
        # Apply the recorded steps in float64.
        relu = "relu; " if row["method"] == "gradcam" else ""
        assert row["postprocessing"] == f"{relu}bilinear, half-pixel centres, to 12x16; min-max to 0..1"
        values = np.maximum(found, 0) if relu else found
        heatmap = minmax(upsample(values.astype(np.float64), (12, 16)))
        # Upsampling rounds to float32, by 2^-24 of the largest value. Scaling divides this error by the map's range,
        # which is at least a hundredth of the largest value here.
        assert np.ptp(values) > 0.01 * np.abs(values).max()
        assert np.abs(heatmap - expected.heatmaps[0]).max() < 1e-5


def test_a_list_with_targets(image_folder: Path, explainer: Explainer, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    one, other = image_folder / "1.png", image_folder / "2.png"
    listed = tmp_path / "list.csv"
    listed.write_text(f"id,path,target\nfirst,{one},3\nsecond,{one},espresso\n,{other},\nlast,{other},nonsense\n")
    out = tmp_path / "out"
    summary = explain_folder(explainer, [], out, Settings(format="parquet"), lists=[listed])
    assert (summary.done, summary.failed) == (3, 1)
    rows = parquet.read_table(out / "shards").to_pylist()
    predicted = int(explainer.explain(other).targets[0])
    assert [row["id"] for row in rows] == ["first", "second", None, "last"]
    assert [row["target"] for row in rows] == [3, 1, predicted, None]
    assert "Unknown label 'nonsense'" in rows[3]["error"]
    for row, target in zip(rows, [3, 1, predicted], strict=False):
        expected = explainer.explain(row["path"], target=target).maps
        assert np.array_equal(np.array(row["heatmap"], np.float32), expected[0].ravel())  # type: ignore[index]
    with pytest.raises(TargetError, match=r"the list gives the target 3, and the job explains several classes"):
        explain_folder(explainer, [], tmp_path / "top", Settings(top=2), lists=[listed])


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_the_bytes_do_not_depend_on_batch_size_and_threads(
    image_folder: Path, model_path: Path, tmp_path: Path, form: str
) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    found = []
    for number, (batch_size, threads) in enumerate([(1, 1), (3, 2), (8, 1), (8, 2)]):
        out = tmp_path / f"out{number}"
        settings = Settings(format=form, batch_size=batch_size, shard_images=6)
        explain_folder(Explainer(model_path, threads=threads), image_folder, out, settings)
        found.append([path.read_bytes() for path in sorted((out / "shards").iterdir())])
    assert len(found[0]) == 2 and all(each == found[0] for each in found)


def test_the_bytes_of_raw_numbers_do_not_depend_on_batch_size_and_threads(
    image_folder: Path, model_path: Path, tmp_path: Path
) -> None:
    found = []
    for number, (batch_size, threads) in enumerate([(1, 1), (7, 2)]):
        out = tmp_path / f"out{number}"
        settings = Settings(["gradcam", "guided-backprop"], raw=True, batch_size=batch_size)
        explain_folder(Explainer(model_path, threads=threads), image_folder, out, settings)
        found.append({path.name: path.read_bytes() for path in out.glob("*.npz")})
    assert len(found[0]) == 18 and found[0] == found[1]


def test_a_stopped_job_resumes(image_folder: Path, explainer: Explainer, tmp_path: Path) -> None:
    """A stopped job resumes: no image is explained twice, and new images are found."""
    out, stop = tmp_path / "out", threading.Event()
    seen: list[tuple[int, int | None]] = []

    def progress(done: int, total: int | None) -> None:
        seen.append((done, total))
        if done == 3:
            stop.set()

    settings = Settings(batch_size=1)
    first = explain_folder(explainer, image_folder, out, settings, stop=stop, progress=progress)
    assert seen[0] == (1, 10) and 3 <= first.done + first.failed < 10
    written = {path: path.stat().st_mtime_ns for path in out.glob("*.png")}
    Image.open(image_folder / "1.png").save(image_folder / "10.png")
    second = explain_folder(explainer, image_folder, out, settings)
    assert second == JobSummary(10, 1, first.done + first.failed, None, out / "manifest.jsonl")
    assert {path: path.stat().st_mtime_ns for path in written} == written
    assert sorted(Path(line["path"]).name for line in lines(out)) == sorted(p.name for p in image_folder.iterdir())
    assert explain_folder(explainer, image_folder, out, settings) == JobSummary(10, 1, 11, None, out / "manifest.jsonl")
    anew = explain_folder(explainer, image_folder, out, settings, restart=True)
    assert (anew.done, anew.failed, anew.already_recorded) == (10, 1, 0) and len(lines(out)) == 11


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (Settings(["backprop"], format="npz"), "backprop has no low-resolution map .* store full-size"),
        (Settings(format="npz", raw=True), "raw arrays are written beside figures"),
        (Settings(full_size=True), "full-size heatmaps are for shards"),
    ],
)
def test_contradicting_settings(
    image_folder: Path, explainer: Explainer, tmp_path: Path, settings: Settings, words: str
) -> None:
    with pytest.raises(ArgumentError, match=words):
        explain_folder(explainer, image_folder, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_command_line(image_folder: Path, model_path: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    out = tmp_path / "out"
    arguments = [
        "explain",
        model_path,
        image_folder,
        "-o",
        out,
        "--format",
        "parquet",
        "--full-size",
        "--shard-size",
        5,
    ]
    result = run(*arguments)
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.splitlines()[-1] == f"seewhy: 10 images: 9 explained, 1 failed. See {out / 'manifest.jsonl'}"
    again = run(*arguments)
    assert again.exit_code == 1
    counts = "9 explained, 1 failed (10 of the images in earlier attempts)"
    hint = "Failed images are skipped on resume; use --retry-failed to retry them"
    assert again.stderr == f"seewhy: 10 images: {counts}. {hint}. See {out / 'manifest.jsonl'}\n"
    assert len(list((out / "shards").iterdir())) == 2


def test_without_pyarrow(image_folder: Path, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    result = run("explain", model_path, image_folder, "-o", tmp_path / "out", "--format", "parquet")
    assert result.exit_code == 2 and result.stderr.endswith('run: pip install ".[parquet]" (in a checkout of SeeWhy)\n')


def test_methods_without_a_map_at_full_size(image_folder: Path, tiny: Tiny, model_path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    explainer = Explainer(model_path, threads=1)
    explain_folder(explainer, image_folder / "1.png", out, Settings(["backprop"], format="npz", full_size=True))
    with np.load(out / "shards" / "00000.npz") as shard:
        assert shard["heatmap"].shape == (1, *tiny.size) and str(shard["postprocessing"][0]) == "ready"
        assert np.array_equal(shard["heatmap"][0], explainer.explain(image_folder / "1.png", "backprop").heatmaps[0])
