"""Workers of a job on a Ray cluster, and the functions that read their results on the driver.

Ray Data would turn an error that a worker raises into the text of a traceback, so workers return errors as rows.
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
from seewhy._shared.extras import missing_extra
from seewhy._shared.text import first_line
from seewhy.bulk.outcomes import Outcome
from seewhy.errors import ClusterError, SeewhyError
from seewhy.explainer.explainer import Explainer
from seewhy.inputs.image_inputs import ImageInput
from seewhy.ray.explain_batch import Batch, ExplainBatch
from seewhy.storage import provenance
from seewhy.storage.manifest_lines import FAILED
from seewhy.tables import table_columns
from seewhy.tables.result_rows import ResultRow

# Maximum number of times that a chunk of images is started. If a worker dies each time, an image may be the cause.
_MAX_ATTEMPTS = 4
_NUMBER = "number"
# Number in the row of an error that ends the job.
_FAILURE = -1


def ray() -> Any:
    """Import and return the module `ray`, with `ray.data`.

    Returns:
        The module.

    Raises:
        MissingExtraError: If Ray is not installed.
    """
    try:
        importlib.import_module("ray.data")
        return importlib.import_module("ray")
    except ImportError as error:
        raise missing_extra(f"{error.name} is not installed", "ray") from error


def worker_facts(job: Mapping[str, Any], working_folder: str | None) -> dict[str, Any]:
    """Return the facts about a worker that determine the results, or the name and text of an error as `failure`.

    Args:
        job: The arguments `model`, `providers`, `threads` and `verify` of an `Explainer`.
        working_folder: Folder that relative paths start from, or None.

    Returns:
        Facts by name, or `failure` with the class and the text of an error.
    """
    try:
        _change_folder(working_folder)
        return _facts(Explainer(job["model"], job["providers"], job["threads"], job["verify"]))
    except SeewhyError as error:
        return {"failure": (type(error).__name__, str(error))}


def rebuild_error(kind: str, text: str) -> SeewhyError:
    """Return the error that a worker raised, from the name of its class and its text."""
    error: SeewhyError = getattr(errors, kind)(text)
    return error


def require_same_facts(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Validate that a worker would return the expected results.

    Args:
        found: Facts about the worker.
        expected: Facts about the driver.

    Raises:
        ClusterError: If a fact differs.
    """
    for name, value in expected.items():
        if found[name] != value:
            raise ClusterError(
                f"a Ray worker has {name} {found[name]} instead of {value}; give all machines the same model file and "
                f"the same versions"
            )


class AttemptCounter:
    """Counts how often each chunk of images was started. It is a separate actor, so that it outlives the workers."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def begin(self, first: int) -> int:
        """Count an attempt at the chunk that starts with image `first`, and return the number of attempts."""
        self._counts[first] = self._counts.get(first, 0) + 1
        return self._counts[first]

    def end(self, first: int) -> None:
        """Forget the chunk that starts with image `first`, because it is done."""
        self._counts.pop(first, None)


class Worker(ExplainBatch):
    """An `ExplainBatch` with the driver's model and versions, which refuses a chunk that has killed several workers."""

    def __init__(
        self, attempts: Any, expected: Mapping[str, Any], working_folder: str | None, **arguments: Any
    ) -> None:
        """Start the worker; an error is returned by each call.

        Args:
            attempts: The actor of an `AttemptCounter`.
            expected: Facts about the driver.
            working_folder: Folder that relative paths start from, or None.
            **arguments: Arguments of `ExplainBatch`.
        """
        self._attempts = attempts
        self._error: SeewhyError | None = None
        try:
            _change_folder(working_folder)
            super().__init__(**arguments)
            require_same_facts(_facts(self.explainer), expected)
        except SeewhyError as error:
            self._error = error

    def __call__(self, batch: Batch) -> Any:
        """Explain a chunk of images, and return the rows, or a row with an error."""
        try:
            if self._error is not None:
                raise self._error
            return self._explain_counted(batch) if len(batch[_NUMBER]) else super().__call__(batch)
        except SeewhyError as error:
            return _failure(error)
        except (OSError, MemoryError) as error:  # a problem of the worker's machine
            message = f"a Ray worker failed: {first_line(error)}; the same command resumes the job"
            return _failure(ClusterError(message))

    def _explain_counted(self, batch: Batch) -> Any:
        first, paths = int(batch[_NUMBER][0]), batch["path"]
        if ray().get(self._attempts.begin.remote(first)) > _MAX_ATTEMPTS:
            raise ClusterError(
                f"{_MAX_ATTEMPTS} workers died while they explained the {len(paths)} images from "
                f"{os.fsdecode(paths[0])} to {os.fsdecode(paths[-1])}; one of the images may kill the workers, or the "
                f"machines lack memory; leave the image out, and run the same command again to resume"
            )
        table = super().__call__(batch)
        self._attempts.end.remote(first)
        return table


def _failure(error: SeewhyError) -> Any:
    """Return a table whose only row is an error."""
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


def _change_folder(folder: str | None) -> None:
    """Change to the driver's current folder, so that relative paths mean the same. The process serves one job only."""
    if folder is not None:
        try:
            os.chdir(folder)
        except OSError as error:
            raise ClusterError(
                f"{folder}: a Ray worker cannot use this folder: {error.strerror or error}; give absolute paths that "
                f"exist on all machines"
            ) from None


def input_tables(source: Iterator[ImageInput], size: int, numbers: Iterator[int]) -> list[Any]:
    """Return tables of images for a `Worker`, one for each chunk. Texts are bytes, because names may not be UTF-8.

    Args:
        source: The images.
        size: Number of images in a chunk; the last chunk may have fewer.
        numbers: Numbers of the images.

    Returns:
        Tables with one row for each image.
    """
    pa = table_columns.pyarrow()
    tables = []
    while chunk := list(islice(source, size)):
        columns = {
            "path": [os.fsencode(image.path) for image in chunk],
            "id": [None if image.id is None else os.fsencode(image.id) for image in chunk],
            "target": [None if image.target is None else os.fsencode(str(image.target)) for image in chunk],
        }
        arrays = {name: pa.array(values, pa.binary()) for name, values in columns.items()}
        arrays[_NUMBER] = pa.array(list(islice(numbers, len(chunk))), pa.int64())
        tables.append(pa.table(arrays))
    return tables


def read_outcomes(table: Any) -> Iterator[tuple[int, Outcome]]:
    """Read the result of a `Worker`.

    Args:
        table: The table that the worker returned.

    Yields:
        The number and the outcome of each image.

    Raises:
        SeewhyError: If the worker returned an error.
    """
    names = (_NUMBER, "record", "method", "target", "height", "width", "postprocessing", "error")
    values = zip(*(table[name].to_pylist() for name in names), table["heatmap"], strict=True)
    for number, group in groupby(values, key=lambda row: row[0]):
        record: dict[str, Any] = {}
        rows = []
        for _, text, method, target, height, width, rule, error, heatmap in group:
            if number == _FAILURE:
                raise rebuild_error(method, error)
            record = record or json.loads(text)
            if heatmap.is_valid:
                # Copy the values, so that the cluster can free its memory.
                rows.append(ResultRow(method, target, np.array(heatmap.values.to_numpy()).reshape(height, width), rule))
        failed = SeewhyError(record["error"]) if record["status"] == FAILED else None
        yield number, Outcome(Path(record["path"]), error=failed, record=record, rows=rows)
