"""Tests of `seewhy.ray.explain_batch` without a cluster: an `ExplainBatch` is called as Ray Data calls it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import ArgumentError, ClusterError, Explainer, ImageError, MethodError, TargetError
from seewhy.inputs.image_inputs import Inputs
from seewhy.ray import ExplainBatch, cluster_job
from seewhy.ray import worker as ray_worker
from seewhy.tables.table_columns import NAMES, compact
from support.command_line import failed, run
from support.jobs.broken_jobs import lines
from support.ray_rows import DAMAGED, IMAGE_COUNT, one_machine, pa, write_png_files


def texts(*values: object) -> np.ndarray:
    """Return a column of objects, in the form of Ray Data."""
    column = np.empty(len(values), object)
    column[:] = values
    return column


@pytest.fixture(scope="module")
def image_paths(tmp_path_factory: pytest.TempPathFactory, make_image: Callable[..., Image.Image]) -> list[str]:
    return write_png_files(tmp_path_factory.mktemp("photos"), make_image)


@pytest.fixture(scope="module")
def explain(model_path: Path) -> ExplainBatch:
    return ExplainBatch(model_path)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"target": "espresso"},
        {"target": [1, "moped"], "method": ["gradcam", "cam"]},
        {"top": 2, "method": ["gradcam", "guided-backprop"], "full_size": True},
        {"method": "smoothgrad", "options": {"smoothgrad": {"samples": 2}}, "full_size": True},
    ],
)
def test_rows_equal_those_of_one_machine(
    model_path: Path, image_paths: list[str], tmp_path: Path, chosen: dict[str, Any]
) -> None:
    found = ExplainBatch(model_path, **chosen)({"path": texts(*image_paths)})
    methods = chosen.get("method", "gradcam")
    target = chosen.get("target")
    expected = one_machine(
        model_path,
        image_paths,
        tmp_path / "out",
        methods=[methods] if isinstance(methods, str) else methods,
        targets=target if isinstance(target, list) else [] if target is None else [target],
        **{name: chosen[name] for name in ("top", "options", "full_size") if name in chosen},
    )
    assert found.schema == expected.schema
    assert found.equals(expected)
    assert (
        len(found) >= IMAGE_COUNT and found["heatmap"].null_count == found["error"].length() - found["error"].null_count
    )


def test_low_resolution_maps_equal_those_of_the_explainer(
    explainer: Explainer, explain: ExplainBatch, image_paths: list[str]
) -> None:
    good = [path for number, path in enumerate(image_paths) if number not in DAMAGED]
    result = explainer.explain(good)
    table = explain({"path": texts(*good)})
    assert result.maps is not None
    for row, expected in zip(table.to_pylist(), result.maps, strict=True):
        np.testing.assert_array_equal(np.float32(row["heatmap"]).reshape(row["height"], row["width"]), expected)
    assert table["predicted"].to_pylist() == result.logits.argmax(1).tolist()
    assert set(table["model_sha256"].to_pylist()) == {explainer.sha256}


def test_bytes_and_pixels_are_accepted(explain: ExplainBatch, image_paths: list[str]) -> None:
    """The images are PNG, so their pixels give the same rows as the files."""
    expected = explain({"path": texts(*image_paths[:3])})
    content = texts(*(Path(path).read_bytes() for path in image_paths[:3]))
    pixels = np.stack([np.asarray(Image.open(path)) for path in image_paths[:3]])
    assert explain({"path": texts(*image_paths[:3]), "bytes": content}).equals(expected)
    assert explain({"path": texts(*image_paths[:3]), "image": pixels}).equals(expected)
    nameless = explain({"image": texts(*pixels)})
    assert nameless["path"].to_pylist() == [None] * 3
    assert nameless.drop(["path"]).equals(expected.drop(["path"]))


@pytest.mark.parametrize(
    ("batch", "error"),
    [
        ({"path": texts("nowhere.png")}, "nowhere.png: cannot be read"),
        ({"path": texts(None)}, "image 0 of a batch: a path must be text, not None"),
        ({"path": texts(None), "id": texts("a7")}, "a7: a path must be text, not None"),
        ({"bytes": texts(b"")}, "the file is empty"),
        ({"bytes": texts("text"), "path": texts("x.png")}, "x.png: the column bytes must hold bytes, not 'text'"),
        ({"image": texts("x.png")}, "the column image must hold arrays, not 'x.png'"),
        ({"image": np.zeros((1, 4, 4, 5), np.uint8)}, r"must be uint8 HxWx3 .* not uint8 \(4, 4, 5\)"),
        ({"image": np.zeros((1, 4, 4, 3)), "path": texts("x.png")}, "x.png: an image array must be uint8"),
        ({"path": texts("PHOTO"), "target": texts("wombat")}, "Unknown label 'wombat' among 6 classes"),
        ({"path": texts("PHOTO"), "target": np.array([6])}, "target 6 is out of range"),
        ({"path": texts("PHOTO"), "target": np.array([1.5])}, "a target must be a class index or a label, not 1.5"),
        ({"path": texts("PHOTO"), "target": np.array([[1, 2]])}, "a target must be a class index or a label, not"),
    ],
)
def test_a_bad_image_is_a_row(explain: ExplainBatch, image_paths: list[str], batch: dict[str, Any], error: str) -> None:
    """A good image in the same batch is not affected."""
    bad = {name: texts(image_paths[0]) if str(column[0]) == "PHOTO" else column for name, column in batch.items()}
    (row,) = explain(bad).to_pylist()
    assert row["heatmap"] is None and row["predicted"] is None and row["postprocessing"] is None
    assert re.search(error, row["error"])
    if set(batch) == {"path"}:
        both = explain({"path": texts(image_paths[0], *batch["path"])})
        assert both.slice(0, 1).equals(explain({"path": texts(image_paths[0])}))
        assert both["error"].to_pylist()[1] is not None


def test_targets_of_rows(explain: ExplainBatch, image_paths: list[str]) -> None:
    """Text is read as in lists of images, and integers with nulls arrive as floats."""
    texts_and_numbers = texts(1, None, "moped"), texts("1", None, "3"), texts(b"espresso", None, 3)
    for column in (np.array([1, np.nan, 3]), *texts_and_numbers):
        table = explain({"path": texts(*image_paths[:3]), "target": column})
        predicted = table["predicted"].to_pylist()
        assert table["target"].to_pylist() == [1, predicted[1], 3]
    assert explain({"path": texts(image_paths[0]), "target": np.array([4])})["target"].to_pylist() == [4]


def test_other_columns_are_copied(model_path: Path, image_paths: list[str]) -> None:
    """An image may have several rows; one that failed has a row for each method."""
    batch = {
        "path": texts(*image_paths[2:4]),
        "id": np.array([20, 30]),
        "split": texts("train", None),
        "when": np.array(["2024-01-01", "2025-01-01"], "datetime64[s]"),
        "boxes": np.arange(12, dtype=np.float32).reshape(2, 3, 2),
        "ragged": texts(np.arange(2), np.arange(3)),
    }
    rows = ExplainBatch(model_path, method=["gradcam", "cam"], top=2)(batch).to_pylist()
    assert [row["id"] for row in rows] == ["20"] * 4 + ["30"] * 2
    assert [row["split"] for row in rows] == ["train"] * 4 + [None] * 2
    assert [row["when"].year for row in rows] == [2024] * 4 + [2025] * 2
    assert [row["boxes"] for row in rows] == [batch["boxes"][place].tolist() for place in (0, 0, 0, 0, 1, 1)]
    assert [len(row["ragged"]) for row in rows] == [2] * 4 + [3] * 2


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
def test_compact_maps(model_path: Path, explain: ExplainBatch, image_paths: list[str], dtype: str) -> None:
    exact = explain({"path": texts(*image_paths)}).to_pylist()
    table = ExplainBatch(model_path, dtype=dtype)({"path": texts(*image_paths)})
    assert table.schema.field("heatmap").type.value_type == pa.from_numpy_dtype(np.dtype(dtype))
    for row, expected in zip(table.to_pylist(), exact, strict=True):
        if expected["heatmap"] is None:
            assert row["heatmap"] is row["scale"] is row["offset"] is None
            continue
        found = np.array(row["heatmap"], np.float64) * row["scale"] + row["offset"]
        values = np.array(expected["heatmap"])
        step = np.ptp(values) / 510 if dtype == "uint8" else np.abs(values) / 2048 + np.abs(values).max() / 2**25
        assert (np.abs(found - values) <= step * (1 + 2**-20) + np.abs(values).max() / 2**23).all()


@pytest.mark.parametrize("dtype", ["float16", "uint8"])
@pytest.mark.parametrize("values", [[0, 0], [3e38, -3e38], [1e-45, 0], [7, 7], [-2, -2], [1e-30, 2e-30]], ids=str)
def test_compact_at_the_edges_of_float32(values: list[float], dtype: str) -> None:
    heatmap = np.array(values, np.float32)
    stored, scale, offset = compact(heatmap, dtype)
    assert stored.dtype == dtype and np.isfinite(scale) and np.isfinite(offset) and scale > 0
    assert np.float32(scale) == scale and np.float32(offset) == offset
    found = stored.astype(np.float64) * scale + offset
    exact = heatmap.astype(np.float64)
    allowed = np.ptp(exact) / 509 if dtype == "uint8" else np.abs(exact).max() / 2048
    assert (np.abs(found - exact) <= allowed + 2e-45).all()


def test_records_equal_the_lines_of_a_manifest(model_path: Path, image_paths: list[str], tmp_path: Path) -> None:
    table = ExplainBatch(model_path, records=True)({"path": texts(*image_paths)})
    one_machine(model_path, image_paths, tmp_path / "out")
    own = {"shard", "lines", "crc32"}
    expected = [{k: v for k, v in line.items() if k not in own} for line in lines(tmp_path / "out")]
    assert [json.loads(text) for text in table["record"].to_pylist()] == expected
    assert {line["lines"] for line in lines(tmp_path / "out")} == {IMAGE_COUNT}


def test_no_images(explain: ExplainBatch) -> None:
    table = explain({"path": texts(), "id": texts()})
    assert len(table) == 0 and table.schema == explain({"path": texts("x.png")}).schema


@pytest.mark.parametrize("batch", [{"photo": texts("a")}, {"bytes": texts(b"a"), "image": texts(None)}])
def test_no_column_of_images(explain: ExplainBatch, batch: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match="no column path, bytes or image; it has|the columns bytes and image"):
        explain(batch)


@pytest.mark.parametrize("name", sorted(NAMES - {"path", "id", "target"}))
def test_columns_are_not_replaced(explain: ExplainBatch, name: str) -> None:
    with pytest.raises(ImageError, match=f"column '{name}' of the dataset is also a column"):
        explain({"path": texts("a"), name: texts("b")})


@pytest.mark.parametrize(
    ("chosen", "error", "message"),
    [
        ({"method": "gradcamm"}, MethodError, "gradcamm"),
        ({"method": "backprop"}, MethodError, "backprop has no low-resolution map"),
        ({"target": 6}, TargetError, "out of range"),
        ({"target": 1, "top": 2}, TargetError, "target or top, not both"),
        ({"top": 7}, TargetError, "from 1 to 6"),
        ({"dtype": "float64"}, ArgumentError, "dtype must be one of float32, float16, uint8, not 'float64'"),
        ({"batch_size": 0}, ArgumentError, "batch_size must be a positive integer"),
    ],
)
def test_arguments_are_validated_first(
    model_path: Path, chosen: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ExplainBatch(model_path, **chosen)


def test_targets_of_rows_and_of_all(model_path: Path, image_paths: list[str]) -> None:
    with pytest.raises(TargetError, match="gives the target 1, and the job explains several"):
        ExplainBatch(model_path, top=2)({"path": texts(image_paths[0]), "target": np.array([1])})


def test_a_chunk_that_kills_workers_ends_the_job(
    model_path: Path, image_paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the fifth attempt, the worker returns an error, with its class and text."""
    counter = ray_worker.AttemptCounter()
    begin, end = SimpleNamespace(remote=counter.begin), SimpleNamespace(remote=lambda first: None)
    remote = SimpleNamespace(begin=begin, end=end)
    monkeypatch.setattr(ray_worker, "ray", lambda: SimpleNamespace(get=lambda value: value))
    worker = ray_worker.Worker(remote, {}, None, model=model_path, records=True)
    (chunk,) = ray_worker.input_tables(iter(Inputs(image_paths, tmp_path)), 100, iter(range(100)))
    batch = {name: chunk[name].to_numpy() for name in chunk.column_names}
    for _ in range(4):
        found = list(ray_worker.read_outcomes(worker(batch)))
        assert [number for number, _ in found] == list(range(IMAGE_COUNT))
    with pytest.raises(
        ClusterError, match="4 workers died while they explained the 12 images from .*000.png to .*011.png"
    ):
        list(ray_worker.read_outcomes(worker(batch)))


def test_without_ray(model_path: Path, image_paths: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    done = run("explain", model_path, image_paths[0], "-o", tmp_path / "out", "--ray", "--format", "parquet")
    assert done.exit_code == 2
    assert 'ray is not installed; run: pip install ".[ray]"' in done.stderr.replace("ray.data", "ray")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ray"], "jobs on a Ray cluster write Parquet shards, not png; add --format parquet"),
        (["--ray", "--format", "npz"], "not npz; add --format parquet"),
        (["--ray-workers", "2"], "add --ray"),
        (["--ray-address", "auto"], "add --ray"),
    ],
)
def test_options_that_do_not_go_together(
    model_path: Path, image_paths: list[str], tmp_path: Path, options: list[str], message: str
) -> None:
    done = run("explain", model_path, image_paths[0], "-o", tmp_path / "out", *options)
    assert done.exit_code == 2 and message in done.stderr


@pytest.mark.parametrize(
    ("providers", "expected"),
    [([], False), (["cpu"], False), (["cuda"], True), (["CUDAExecutionProvider", "cpu"], True), ([("cuda", {})], True)],
)
def test_providers_that_need_a_gpu(providers: list[Any], expected: bool) -> None:
    assert cluster_job.needs_gpu(providers) == expected


@pytest.mark.parametrize(
    ("plan", "resources", "expected"),
    [
        (cluster_job.WorkerPlan(), {"CPU": 7.0}, (7, 1)),
        (cluster_job.WorkerPlan(threads=2), {"CPU": 7.0}, (3, 2)),
        (cluster_job.WorkerPlan(count=9, threads=2), {"CPU": 1.0}, (9, 2)),
        (cluster_job.WorkerPlan(gpu=True), {"CPU": 64.0, "GPU": 4.0}, (4, 16)),
        (cluster_job.WorkerPlan(threads=4, gpu=True), {"CPU": 6.0, "GPU": 4.0}, (1, 4)),
        (
            cluster_job.WorkerPlan(gpu=True),
            {"CPU": 64.0},
            "a worker needs 64 CPUs and a GPU, but the Ray cluster has 64 CPUs",
        ),
        (
            cluster_job.WorkerPlan(threads=8),
            {"CPU": 4.0},
            "a worker needs 8 CPUs, but the Ray cluster has 4 CPUs and 0 GPUs",
        ),
    ],
)
def test_number_of_workers(
    plan: Any, resources: dict[str, float], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster_job, "ray", lambda: SimpleNamespace(cluster_resources=lambda: resources))
    if isinstance(expected, tuple):
        assert cluster_job.resolve_workers(plan) == expected
    else:
        with pytest.raises(ClusterError, match=expected):
            cluster_job.resolve_workers(plan)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("address", ["127.0.0.1:{}", "ray://127.0.0.1:{}"])
@pytest.mark.parametrize("given", [True, False])
def test_an_address_without_a_cluster(
    given: bool, address: str, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray.data")
    with socket.socket() as taken:  # bound, but not listening
        taken.bind(("127.0.0.1", 0))
        address = address.format(taken.getsockname()[1])
        if not given:
            monkeypatch.setenv("RAY_ADDRESS", address)
        words = ["--format", "parquet", "--ray", *(["--ray-address", address] if given else [])]
        Image.new("RGB", (9, 9)).save(tmp_path / "a.png")
        result = run("explain", model_path, tmp_path / "a.png", "-o", tmp_path / "out", *words)
    failed(result, f"the Ray cluster {re.escape(address)} cannot be used: .*Connection refused")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("during", [False, True])
def test_sigterm_while_a_cluster_is_connected(during: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray's handler, which exits with status 15, is replaced by the handler before it."""
    pytest.importorskip("ray.data")

    def init(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda number, _: sys.exit(number))
        if during:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr("ray.is_initialized", lambda: False)
    monkeypatch.setattr("ray.init", init)
    monkeypatch.setattr("ray.shutdown", lambda: None)
    before = signal.getsignal(signal.SIGTERM)
    if during:
        with pytest.raises(SystemExit, match="143"), cluster_job.connected():
            pass
    else:
        with cluster_job.connected():
            assert signal.getsignal(signal.SIGTERM) == before
    assert signal.getsignal(signal.SIGTERM) == before
