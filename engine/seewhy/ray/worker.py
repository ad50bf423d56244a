"""Workers of a Ray cluster for `cluster_job.py`, and the reader of their answers on the driver.

Errors that a worker raises would come out of Ray Data as the text of a traceback, so they are sent as rows.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator, Mapping
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np

from seewhy import errors
from seewhy._shared.text import first_line
from seewhy.bulk.outcomes import Outcome
from seewhy.errors import ClusterError, MissingExtraError, SeewhyError
from seewhy.explainer.explainer import Explainer
from seewhy.inputs.image_inputs import ImageInput
from seewhy.ray.explain_batch import Batch, ExplainBatch
from seewhy.storage import provenance
from seewhy.storage.manifest_lines import FAILED
from seewhy.tables import table_columns
from seewhy.tables.result_rows import ResultRow

# How often a piece of work is begun. Where a worker died each time, the images may be what kills them.
_TRIES = 4
_NUMBER = "number"
# Stands for a number where a worker cannot go on.
_FAILURE = -1


def ray() -> Any:
    """Raises:
    MissingExtraError: Ray is not installed.
    """
    try:
        importlib.import_module("ray.data")
        return importlib.import_module("ray")
    except ImportError as error:
        raise MissingExtraError(f'{error.name} is not installed; run: pip install "seewhy[ray]"') from error


def worker_facts(job: Mapping[str, Any], place: str | None) -> dict[str, Any]:
    """What a worker that does a job brings to the results; or an error's name and text, as `failure`."""
    try:
        _go(place)
        return _facts(Explainer(job["model"], job["providers"], job["threads"], job["verify"]))
    except SeewhyError as error:
        return {"failure": (type(error).__name__, str(error))}


def rebuild_error(kind: str, text: str) -> SeewhyError:
    """What a worker raised."""
    made: SeewhyError = getattr(errors, kind)(text)
    return made


def require_same_facts(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Raises:
    ClusterError: a worker would make other results than expected.
    """
    for name, value in expected.items():
        if found[name] != value:
            raise ClusterError(
                f"a Ray worker has {name} {found[name]} where {value} is expected; give all machines the same model "
                f"file and the same versions"
            )


class AttemptCounter:
    """Counts how often pieces of work were begun; an actor of its own, so that it outlives the workers."""

    def __init__(self) -> None:
        self._begun: dict[int, int] = {}

    def begin(self, first: int) -> int:
        self._begun[first] = self._begun.get(first, 0) + 1
        return self._begun[first]

    def end(self, first: int) -> None:
        self._begun.pop(first, None)


class Worker(ExplainBatch):
    """Of the same model and versions as the driver, and never at the same piece of work again and again."""

    def __init__(self, tries: Any, expected: Mapping[str, Any], place: str | None, **chosen: Any) -> None:
        self._tries = tries
        self._error: SeewhyError | None = None
        try:
            _go(place)
            super().__init__(**chosen)
            require_same_facts(_facts(self.explainer), expected)
        except SeewhyError as error:
            self._error = error

    def __call__(self, batch: Batch) -> Any:
        try:
            if self._error is not None:
                raise self._error
            return self._counted(batch) if len(batch[_NUMBER]) else super().__call__(batch)
        except SeewhyError as error:
            return _failure(error)
        except (OSError, MemoryError) as error:  # of this machine
            return _failure(ClusterError(f"a Ray worker failed: {first_line(error)}; the same command goes on"))

    def _counted(self, batch: Batch) -> Any:
        first, paths = int(batch[_NUMBER][0]), batch["path"]
        if ray().get(self._tries.begin.remote(first)) > _TRIES:
            raise ClusterError(
                f"{_TRIES} workers died at work on the {len(paths)} images from {os.fsdecode(paths[0])} to "
                f"{os.fsdecode(paths[-1])}: one of them may be what kills them, or the machines lack memory; leave it "
                f"out, and the same command goes on"
            )
        table = super().__call__(batch)
        self._tries.end.remote(first)
        return table


def _failure(error: SeewhyError) -> Any:
    """The error as a row."""
    table = table_columns.arrow_table(
        [({"path": None, "id": None, "error": str(error)}, type(error).__name__, None)], ""
    )
    table = table.append_column("record", table_columns.texts([None]))
    return table.append_column(_NUMBER, table_columns.pyarrow().array([_FAILURE]))


def _facts(explainer: Explainer) -> dict[str, Any]:
    return {**hashes(explainer), "providers": explainer.providers, "versions": provenance.software_versions()}


def hashes(explainer: Explainer) -> dict[str, str | None]:
    """Return the hashes of the model file and of the weights beside it, which all machines must share."""
    return {"sha256": explainer.sha256, "external_data_sha256": explainer.external_data_sha256}


def _go(place: str | None) -> None:
    """Make relative paths mean what they mean where the run was started; this process serves one run alone."""
    if place is not None:
        try:
            os.chdir(place)
        except OSError as error:
            raise ClusterError(
                f"{place}: a Ray worker cannot enter it: {error.strerror or error}; give absolute paths that all "
                f"workers see"
            ) from None


def input_tables(source: Iterator[ImageInput], size: int, numbers: Iterator[int]) -> list[Any]:
    """Tables of `size` images each, for a `Worker`. Names are bytes, since not all are UTF-8."""
    pa = table_columns.pyarrow()
    made = []
    while part := list(islice(source, size)):
        columns = {
            "path": [os.fsencode(item.path) for item in part],
            "id": [None if item.id is None else os.fsencode(item.id) for item in part],
            "target": [None if item.target is None else os.fsencode(str(item.target)) for item in part],
        }
        arrays = {name: pa.array(values, pa.binary()) for name, values in columns.items()}
        arrays[_NUMBER] = pa.array(list(islice(numbers, len(part))), pa.int64())
        made.append(pa.table(arrays))
    return made


def outcomes(table: Any) -> Iterator[tuple[int, Outcome]]:
    """What a `Worker` says of images, with their numbers.

    Raises:
        SeewhyError: as the worker raised it.
    """
    names = (_NUMBER, "record", "method", "target", "height", "width", "postprocessing", "error")
    values = zip(*(table[name].to_pylist() for name in names), table["heatmap"], strict=True)
    for number, lines in groupby(values, key=lambda line: line[0]):
        record: dict[str, Any] = {}
        rows = []
        for _, text, method, target, height, width, rule, error, heatmap in lines:
            if number == _FAILURE:
                raise rebuild_error(method, error)
            record = record or json.loads(text)
            if heatmap.is_valid:
                # A copy, so that the cluster's memory is given back.
                rows.append(ResultRow(method, target, np.array(heatmap.values.to_numpy()).reshape(height, width), rule))
        failed = SeewhyError(record["error"]) if record["status"] == FAILED else None
        yield number, Outcome(Path(record["path"]), error=failed, record=record, rows=rows)
