"""Helpers for the tests of Ray: write images, and return the rows that a job on one machine writes for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from seewhy import Settings, explain_folder

pa = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

IMAGE_COUNT, DAMAGED = 12, (3, 7)


def write_png_files(folder: Path, make_image: Callable[..., Image.Image]) -> list[str]:
    """Write PNG files, two of them damaged, and return their paths."""
    paths = []
    for number in range(IMAGE_COUNT):
        path = folder / f"{number:03}.png"
        make_image(seed=number).save(path)
        if number in DAMAGED:
            path.write_bytes(path.read_bytes()[: 60 * number // 7])
        paths.append(str(path))
    return paths


def one_machine(model: Path, paths: Sequence[str], folder: Path, **settings: Any) -> Any:
    """Run a job without Ray and return the rows of its shards."""
    explain_folder(model, list(paths), folder, Settings(format="parquet", **settings))
    return read(folder)


def read(folder: Path) -> Any:
    """Return the rows of all shards of an output folder as one table."""
    shards = sorted((folder / "shards").iterdir())
    tables = [parquet.read_table(shard, partitioning=None) for shard in shards]
    return pa.concat_tables(tables).replace_schema_metadata()
