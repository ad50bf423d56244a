"""Tasks that `seewhy bench` sends to the worker processes that measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seewhy.errors import ModelFileError
from seewhy.explainer.explainer import Explainer
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.providers import Provider

FORWARD = "forward"
"""Value of `BenchCase.method` for the model alone, up to its logits."""


@dataclass(frozen=True)
class BenchCase:
    """Method, number of workers and number of threads to measure, as in `measurement.Measurement`."""

    method: str
    workers: int
    threads: int | None


@dataclass(frozen=True)
class WorkerTask:
    """Task of a worker process: the cases to measure, and how."""

    path: str
    """Path of the model file."""
    providers: Sequence[Provider] | None
    """Execution providers, as `Explainer` takes them."""
    batch: int
    """Batch size."""
    cases: Sequence[BenchCase]
    """Cases to measure."""
    seconds: float
    """Time for each case in seconds, over all rounds together."""
    rounds: int
    """Number of rounds. Each round measures all cases once."""
    profile: bool = False
    """True to measure the operators of each case instead of its total time."""
    sha256: Sequence[str | None] = ()
    """SHA-256 of the model file, and of the weights file beside it or None."""

    def check(self, read: ModelFile | Explainer) -> None:
        """Check that the files have not changed since the task was created.

        Args:
            read: The model file as the worker has read it.

        Raises:
            ModelFileError: If a file has changed.
        """
        if [read.sha256, read.external_data_sha256] != list(self.sha256):
            raise ModelFileError(f"{self.path}: the file changed during the measurement; start again")
