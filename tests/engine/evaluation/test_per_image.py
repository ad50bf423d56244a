"""Tests of the table of single images: CSV and Parquet."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path
from typing import Any

import pytest

from seewhy import OutputError
from seewhy.evaluation.image_records import ImageRow, coverage
from seewhy.evaluation.per_image import csv_parts, parquet_content, read_csv
from support.evaluation_records import Case, case, typical


def measured(found: Case) -> Any:
    return coverage([one.name for one in found.requests], [one.name for one in found.methods], found.left_out)


def content(found: Case) -> bytes:
    return b"".join(csv_parts(found.records, measured(found)))


def reread(data: bytes, folder: Path) -> list[ImageRow]:
    (folder / "per-image.csv").write_bytes(data)
    return read_csv(folder / "per-image.csv", hashlib.sha256(data).hexdigest())


def test_every_image_metric_and_method_has_a_row(tmp_path: Path) -> None:
    found = case(
        {"deletion": {"layercam": [0.5, "constant"], "gradcam": [0.25, 2]}, "entropy": {"layercam": [1.0, 3.5]}},
        failed=1,
    )
    assert reread(content(found), tmp_path) == [
        ImageRow("broken/0.png", None, "broken/0.png", None, None, None, None, None, "broken/0.png: damaged"),
        *(
            ImageRow(f"images/{i}.png", None, f"images/{i}.png", i, f"label {i}", *rest)
            for i, rest in (
                (0, ("deletion", "layercam", 0.5, None)),
                (0, ("deletion", "gradcam", 0.25, None)),
                (0, ("entropy", "layercam", 1.0, None)),
                (1, ("deletion", "layercam", None, "constant")),
                (1, ("deletion", "gradcam", 2.0, None)),
                (1, ("entropy", "layercam", 3.5, None)),
            )
        ),
    ]


def test_floats_are_exact(tmp_path: Path) -> None:
    values = [0.1, 1 / 3, 1e-300, -0.0]
    rows = reread(content(case({"deletion": {"layercam": values}})), tmp_path)
    assert [one.value for one in rows] == values


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "'quoted", '=HYPERLINK("http://x","y")'])
def test_a_spreadsheet_runs_no_formula(text: str, tmp_path: Path) -> None:
    found = case({"deletion": {"layercam": [text]}})
    (record,) = found.records
    record |= {"path": f"{text}.png", "id": text, "cluster": text}
    record["explained"][0]["label"] = text
    data = content(found)
    (_, cells) = csv.reader(io.StringIO(data.decode()))
    assert not any(cell.startswith(("=", "+", "-", "@", "\t", "\r")) for cell in cells)
    (row,) = reread(data, tmp_path)
    assert (row.path, row.id, row.cluster, row.label, row.reason) == (f"{text}.png", text, text, text, text)


def test_a_negative_number_stays_a_number(tmp_path: Path) -> None:
    data = content(case({"deletion": {"layercam": [-0.5]}}))
    assert b",-0.5,\n" in data
    assert reread(data, tmp_path)[0].value == -0.5


def test_each_row_is_one_line_that_a_terminal_can_show(tmp_path: Path) -> None:
    found = case({"deletion": {"layercam": [0.5]}})
    found.records[0] |= {"path": 'a\nb\x1b[31m\u202e,"c".png', "cluster": "\udcff\0\r"}
    lines = content(found).decode().splitlines()
    assert len(lines) == 2 and lines[1].isprintable()
    (row,) = reread(content(found), tmp_path)
    assert row.path == 'a\\nb\\x1b[31m\\u202e,"c".png'


@pytest.mark.parametrize("damage", [b"0.5", b"path", b"images/0.png,,"])
def test_a_damaged_file_is_refused(damage: bytes, tmp_path: Path) -> None:
    data = content(case({"deletion": {"layercam": [0.5]}}))
    assert damage in data
    (tmp_path / "per-image.csv").write_bytes(data.replace(damage, damage[:-1] + b"7"))
    with pytest.raises(OutputError, match=r"per-image\.csv: damaged, or not from the evaluation"):
        read_csv(tmp_path / "per-image.csv", hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"a,b\n",
        b"path,id,cluster,target,label,metric,method,value,reason\na\n",
        b"path,id,cluster,target,label,metric,method,value,reason\na,,a,x,,deletion,cam,1,\n",
        b"path,id,cluster,target,label,metric,method,value,reason\na,,a,1,,deletion,cam,,\n",
        b"path,id,cluster,target,label,metric,method,value,reason\n\xff,,a,1,,deletion,cam,1,\n",
        b'path,id,cluster,target,label,metric,method,value,reason\na,,a,1,,deletion,cam,1,"\n',
        b"path,id,cluster,target,label,metric,method,value,reason\na,,a,1,,deletion,cam,nan,\n",
    ],
)
def test_a_file_of_another_form_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="damaged"):
        reread(data, tmp_path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"per-image\.csv: cannot be read"):
        read_csv(tmp_path / "per-image.csv", "")


def test_parquet_has_the_rows_of_the_csv_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr("seewhy.evaluation.per_image._ROWS", 100)
    found = typical(count=6)
    with (tmp_path / "per-image.parquet").open("wb") as file:
        parquet_content(found.records, measured(found))(file)
    table = parquet.read_table(tmp_path / "per-image.parquet")
    assert parquet.ParquetFile(tmp_path / "per-image.parquet").num_row_groups > 1
    rows = [ImageRow(**one) for one in table.to_pylist()]
    assert rows == reread(content(found), tmp_path)


def test_parquet_of_no_images(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    found = typical(count=4)
    with (tmp_path / "per-image.parquet").open("wb") as file:
        parquet_content([], measured(found))(file)
    table = parquet.read_table(tmp_path / "per-image.parquet")
    assert (table.num_rows, tuple(table.column_names)) == (0, ImageRow._fields)
