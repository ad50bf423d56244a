"""`EvaluationResult`: the result of an evaluation, as Python sees it."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seewhy._shared import checks
from seewhy._shared.extras import missing_extra
from seewhy.errors import ArgumentError
from seewhy.evaluation import per_image, summary_file
from seewhy.evaluation.html_table import format_html
from seewhy.evaluation.image_records import ImageRow
from seewhy.evaluation.text_table import format_tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, eq=False, repr=False)
class EvaluationResult:
    """The result of `seewhy.evaluate`: means with intervals, values of single images, and a recommendation.

    `EvaluationResult.read(folder)` reads the result of an earlier evaluation.
    """

    folder: Path
    """Output folder of the evaluation."""
    summary: Mapping[str, Any]
    """Everything that `summary.json` holds. It must not be changed."""

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> EvaluationResult:
        """Read the result of an evaluation from its output folder.

        Args:
            folder: The output folder.

        Returns:
            The result. Values of single images are read when they are first asked for.

        Raises:
            ArgumentError: If `folder` is not a path.
            OutputError: If the folder holds no finished evaluation, or its `summary.json` is damaged.
        """
        path = Path(checks.path("the folder", folder))
        return cls(path, summary_file.read(path))

    @property
    def metrics(self) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
        """Results by metric and method.

        Each is a dict with the `mean` of `n` values, the ends `low` and `high` of its 95 % interval, the `direction`
        that is better (`higher`, `lower` or `neither`), the number of `unmeasured` images, and their `reasons` with
        counts. The mean is None if no image has a value, and the ends are None if all values are from one cluster.
        """
        metrics: Mapping[str, Mapping[str, Mapping[str, Any]]] = self.summary["metrics"]
        return metrics

    @property
    def recommendation(self) -> list[str]:
        """Sentences about what the evaluation shows."""
        return list(self.summary["recommendation"])

    # Read when it is first asked for, because an evaluation of many images has millions of values.
    @cached_property
    def per_image(self) -> list[ImageRow]:
        """Values of single images: one row for each image, metric and method, and one for each image that failed.

        Reading them raises `OutputError` if `per-image.csv` is missing, or is not the file that was written with the
        summary.
        """
        return per_image.read_csv(self.folder / per_image.CSV_NAME, self.summary["per_image_sha256"])

    def to_pandas(self) -> Any:
        """Return the values of single images as a table of pandas.

        Returns:
            A `pandas.DataFrame` in long form with a row for each of `per_image`, and the columns `path`, `id`,
            `cluster`, `target` (nullable integers), `label`, `metric`, `method`, `value` (NaN if there is none) and
            `reason`.

        Raises:
            MissingExtraError: If pandas is not installed.
            OutputError: As `per_image`.
        """
        try:
            pandas = importlib.import_module("pandas")
        except ImportError as error:
            raise missing_extra(f"{error.name} is not installed", "pandas") from error
        frame = pandas.DataFrame(self.per_image, columns=list(ImageRow._fields))
        return frame.astype({"target": "Int64", "value": "float64"})

    def plot(self, kind: str = "metrics") -> Figure:
        """Draw the results with matplotlib.

        Args:
            kind: `metrics` draws all metrics as dots with 95 % intervals. `curves` draws the mean scores along the
                steps of deletion and insertion, and the similarities along the stages of randomization.

        Returns:
            The `matplotlib.figure.Figure`, which notebooks show, and whose `savefig` writes a file.

        Raises:
            ArgumentError: If the kind is unknown, or no metric with curves was measured.
            MissingExtraError: If matplotlib is not installed.
        """
        from seewhy.evaluation import plots

        checks.one_of("kind", kind, plots.KINDS)
        if kind == "curves" and not self.summary["curves"]:
            raise ArgumentError("there are no curves: neither deletion, insertion nor randomization was measured")
        return plots.plot(self.summary, kind)

    def __repr__(self) -> str:
        """Return the tables of means."""
        return f"<EvaluationResult: {format_tables(self.summary).rstrip()}>"

    def _repr_html_(self) -> str:
        """Return the tables, notes and the recommendation for a notebook."""
        return format_html(self.summary)
