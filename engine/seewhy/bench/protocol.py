"""Messages from `seewhy bench` to the worker processes that measure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seewhy.errors import ModelFileError
from seewhy.explainer.explainer import Explainer
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.providers import Provider

FORWARD = "forward"
"""Value of `BenchCase.what` for the model alone, up to its logits."""


@dataclass(frozen=True)
class BenchCase:
    """One way to run. The fields are as in `measurement.Measurement`."""

    what: str
    workers: int
    threads: int | None


@dataclass(frozen=True)
class WorkerTask:
    """Order to a worker: the cases to measure, and for how long."""

    path: str
    providers: Sequence[Provider] | None
    batch: int
    cases: Sequence[BenchCase]
    seconds: float
    """Time for each case, over all rounds together."""
    rounds: int
    profile: bool = False
    sha256: Sequence[str | None] = ()
    """SHA-256 of the model file, and that of the weights file beside it or None."""

    def check(self, read: ModelFile | Explainer) -> None:
        """Check that the files have not changed since the order was made.

        Raises:
            ModelFileError: If they have changed since the order was made.
        """
        if [read.sha256, read.external_data_sha256] != list(self.sha256):
            raise ModelFileError(f"{self.path}: changed while it was measured; start again")
