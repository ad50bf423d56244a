"""Write the files of a finished evaluation into its output folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import PurePath
from typing import Any

from seewhy.evaluation import per_image, plots, summary_file
from seewhy.evaluation.image_records import coverage
from seewhy.evaluation.summary import Summary, summarise
from seewhy.metrics.base import EvaluatedMethod
from seewhy.metrics.metric import MetricRequest
from seewhy.storage.manifest_lines import Record
from seewhy.storage.output_folder import Folder


def write_results(
    folder: Folder,
    records: Callable[[], Iterable[Record]],
    methods: Sequence[EvaluatedMethod],
    requests: Sequence[MetricRequest],
    left_out: Sequence[Mapping[str, Any]],
    *,
    model: Mapping[str, Any],
    seed: int,
    note: str | None = None,
    is_complete: bool = True,
    parquet: bool = False,
    with_plots: bool = False,
) -> Summary:
    """Write `per-image.csv`, `summary.json` and, if asked for, `per-image.parquet` and plots.

    Args:
        folder: The output folder.
        records: Function that returns the records of all images from the first one. It is called several times.
        methods: Rows of the results, as for `summarise`.
        requests: The metrics, as for `summarise`.
        left_out: What is not measured, as for `summarise`.
        model: Facts about the model file.
        seed: Seed of the random numbers.
        note: As for `summarise`.
        is_complete: As for `summarise`.
        parquet: Whether to write `per-image.parquet`.
        with_plots: Whether to write `metrics.png`, `metrics.svg` and, if there are curves, `curves.png` and
            `curves.svg`.

    Returns:
        The summary.

    Raises:
        OutputError: If a record is damaged, or a file cannot be written.
        MissingExtraError: If an extra is not installed.
    """
    summary = summarise(
        records(), methods, requests, left_out, model=model, seed=seed, note=note, is_complete=is_complete
    )
    measured = coverage([one.name for one in requests], [one.name for one in methods], left_out)
    hasher = hashlib.sha256()

    def parts() -> Iterator[bytes]:
        for part in per_image.csv_parts(records(), measured):
            hasher.update(part)
            yield part

    folder.rewrite(PurePath(per_image.CSV_NAME), parts())
    if parquet:
        folder.write(PurePath(per_image.PARQUET_NAME), per_image.parquet_content(records(), measured), flush=True)
    if with_plots:
        for name, content in plots.plot_files(summary).items():
            folder.write(PurePath(name), content, flush=True)
    # The summary comes last: its hash of per-image.csv says that both belong together.
    data = summary_file.encoded(summary, hasher.hexdigest())
    folder.write(PurePath(summary_file.NAME), lambda file: file.write(data), flush=True)
    return summary
