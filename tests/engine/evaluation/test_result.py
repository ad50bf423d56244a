"""Tests of the written results, and of `EvaluationResult`, which reads them back."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy import ArgumentError, MissingExtraError, OutputError
from seewhy.evaluation import summary_file
from seewhy.evaluation.result import EvaluationResult
from seewhy.evaluation.result_writer import write_results
from seewhy.storage.output_folder import Folder
from support.evaluation_records import Case, case, typical


def write(found: Case, folder: Path, **options: bool) -> dict[str, Any]:
    return write_results(
        Folder(folder),
        lambda: iter(found.records),
        found.methods,
        found.requests,
        found.left_out,
        model={"name": "tiny", "sha256": "0" * 64},
        seed=0,
        **options,
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("evaluation")
    write(typical(count=12), path)
    return path


def plain(value: Any) -> Any:
    """Return a value with lists in place of tuples."""
    return json.loads(json.dumps(value))


def test_results_are_read_back(folder: Path) -> None:
    expected = typical(count=12).summary()
    result = EvaluationResult.read(folder)
    assert plain({**result.summary, "per_image_sha256": None}) == {**expected, "per_image_sha256": None}
    assert plain(result.metrics) == expected["metrics"]
    assert result.recommendation == expected["recommendation"]
    assert result.folder == folder


def test_rows_of_single_images(folder: Path) -> None:
    result = EvaluationResult.read(str(folder))
    found = [one for one in result.per_image if (one.metric, one.method) == ("deletion", "layercam")]
    assert np.mean([one.value for one in found]) == pytest.approx(result.metrics["deletion"]["layercam"]["mean"])
    assert [one.reason for one in result.per_image if one.metric is None] == [
        "broken/0.png: damaged",
        "broken/1.png: damaged",
    ]


def test_a_table_for_pandas(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    result = EvaluationResult.read(folder)
    frame = result.to_pandas()
    assert list(frame.columns) == ["path", "id", "cluster", "target", "label", "metric", "method", "value", "reason"]
    assert len(frame) == len(result.per_image)
    averages = frame.groupby(["metric", "method"])["value"].mean()
    for metric, by_method in result.metrics.items():
        for method, found in by_method.items():
            assert averages[metric, method] == pytest.approx(found["mean"])
    assert frame["target"].dtype == pandas.Int64Dtype() and frame["target"].isna().sum() == 2
    unmeasured = frame[frame["value"].isna()]
    assert set(unmeasured["reason"]) == {"the map is constant", "broken/0.png: damaged", "broken/1.png: damaged"}


def test_a_table_of_no_images(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    found = case({"deletion": {"layercam": [0.5]}})
    found.records = []
    write(found, tmp_path)
    frame = EvaluationResult.read(tmp_path).to_pandas()
    assert len(frame) == 0 and frame["value"].dtype == float


@pytest.mark.parametrize(("name", "extra", "call"), [("pandas", "pandas", "to_pandas"), ("matplotlib", "plot", "plot")])
def test_a_missing_extra_is_named(
    name: str, extra: str, call: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, name, None)
    with pytest.raises(MissingExtraError, match=rf'run: pip install "\.\[{extra}\]"'):
        getattr(EvaluationResult.read(folder), call)()


def test_plots(folder: Path) -> None:
    pytest.importorskip("matplotlib")
    result = EvaluationResult.read(folder)
    assert len(result.plot().axes) == 9 and len(result.plot("curves").axes) == 3
    with pytest.raises(ArgumentError, match="Unknown kind 'bars'"):
        result.plot("bars")


def test_curves_need_a_metric_that_has_them(tmp_path: Path) -> None:
    write(case({"entropy": {"layercam": [0.5]}}), tmp_path)
    with pytest.raises(ArgumentError, match="there are no curves"):
        EvaluationResult.read(tmp_path).plot("curves")


def test_representations(folder: Path) -> None:
    result = EvaluationResult.read(folder)
    assert repr(result).startswith("<EvaluationResult: 12 images (2 more failed), 4 methods.")
    assert "Grad-CAM" in repr(result) and repr(result).endswith(">") and "Recommendation" not in repr(result)
    assert result._repr_html_().startswith("<div>")


def test_all_files(tmp_path: Path) -> None:
    for extra in ("pyarrow", "matplotlib"):
        pytest.importorskip(extra)
    write(typical(count=4), tmp_path, parquet=True, with_plots=True)
    assert sorted(os.listdir(tmp_path)) == [
        *("curves.png", "curves.svg", "metrics.png", "metrics.svg"),
        *("per-image.csv", "per-image.parquet", "summary.json"),
    ]
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    write(typical(count=4), tmp_path, parquet=True, with_plots=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_damaged_record_leaves_earlier_results(tmp_path: Path) -> None:
    found = typical(count=4)
    write(found, tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    found.records[-1]["metrics"] = {}
    with pytest.raises(OutputError, match="no valid measurement"):
        write(found, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_values_of_another_evaluation_are_refused(tmp_path: Path) -> None:
    write(case({"deletion": {"layercam": [0.5]}}), tmp_path)
    table = (tmp_path / "per-image.csv").read_bytes()
    write(case({"deletion": {"layercam": [0.6]}}), tmp_path)
    (tmp_path / "per-image.csv").write_bytes(table)
    with pytest.raises(OutputError, match=r"per-image\.csv: damaged, or not from the evaluation of summary\.json"):
        _ = EvaluationResult.read(tmp_path).per_image


def test_a_folder_without_results(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"summary\.json: does not exist; is .* the output folder of an evaluation\?"):
        EvaluationResult.read(tmp_path)
    (tmp_path / "summary.json").mkdir()
    with pytest.raises(OutputError, match=r"summary\.json: cannot be read: it is a folder"):
        EvaluationResult.read(tmp_path)


@pytest.mark.parametrize("value", [None, 3, "\0", b"x"])
def test_a_folder_that_is_no_path(value: Any) -> None:
    with pytest.raises(ArgumentError, match="the folder must be a path"):
        EvaluationResult.read(value)


def test_every_damaged_byte_is_noticed(tmp_path: Path) -> None:
    write(case({"deletion": {"layercam": [0.5, 0.25]}}), tmp_path)
    data = bytearray((tmp_path / "summary.json").read_bytes())
    original = summary_file.read(tmp_path)
    for place in range(0, len(data), 7):
        damaged = bytearray(data)
        damaged[place] ^= 1
        (tmp_path / "summary.json").write_bytes(damaged)
        try:
            assert summary_file.read(tmp_path) == original, "a change of white space alone is harmless"
        except OutputError as error:
            assert "damaged" in str(error) and "\n" not in str(error)


def rewritten(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change a summary, with the right checksum."""
    path = folder / "summary.json"
    content = json.loads(path.read_bytes())
    del content["sha256"]
    change(content)
    content["sha256"] = summary_file._hash(content)
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda one: one.pop("metrics"), "an object with"),
        (lambda one: one.update(metrics=[]), "an object"),
        (lambda one: one["metrics"]["deletion"]["layercam"].update(mean="0.5"), "a finite number"),
        (lambda one: one["metrics"]["deletion"]["layercam"].update(mean=float("nan")), "a finite number"),
        (lambda one: one["metrics"]["deletion"].update(other=one["metrics"]["deletion"]["layercam"]), "defined"),
        (lambda one: one["metrics"].update(other={}), "defined"),
        (lambda one: one["comparisons"]["deletion"][0].update(first="other"), "defined"),
        (lambda one: one["curves"]["deletion"]["layercam"]["low"].pop(), "defined"),
        (lambda one: one["definitions"]["deletion"].update(direction="up"), "one of higher, lower, neither"),
        (lambda one: one.update(seed=-1), "an integer of at least 0"),
        (lambda one: one.update(schema=0), "a positive integer"),
        (lambda one: one.update(recommendation="text"), "a list"),
    ],
)
def test_a_summary_of_another_form_is_refused(change: Any, reason: str, tmp_path: Path) -> None:
    values = {"deletion": {"layercam": [0.5, 0.25], "gradcam": [0.5, 0.75]}}
    curves = {"deletion": {"layercam": [[1.0, 0.5], [1.0, 0.5]]}}
    write(case(values, curves=curves), tmp_path)
    rewritten(tmp_path, lambda one: None)
    summary_file.read(tmp_path)
    rewritten(tmp_path, change)
    with pytest.raises(OutputError, match=rf"summary\.json: damaged: .*{reason}"):
        summary_file.read(tmp_path)


@pytest.mark.parametrize("data", [b"", b"[]", b"3", b"{}", b'{"schema": 1}', b"\xff", b"[" * 100_000, b"null"])
def test_another_file_is_refused(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_bytes(data)
    with pytest.raises(OutputError, match=r"summary\.json: damaged"):
        summary_file.read(tmp_path)


def test_a_newer_summary_names_both_schemas(tmp_path: Path) -> None:
    write(case({"deletion": {"layercam": [0.5]}}), tmp_path)
    rewritten(tmp_path, lambda one: one.update(schema=2))
    with pytest.raises(OutputError, match="has schema 2, and this version of SeeWhy reads up to 1"):
        summary_file.read(tmp_path)
