"""Limit of failures, beyond which a job stops."""

from __future__ import annotations

from numbers import Real

from seewhy._shared.text import brief
from seewhy.bulk.folder_job import FolderJob
from seewhy.bulk.outcomes import Outcome
from seewhy.errors import OutputError

# Fewer images say little about how many of a million will fail.
_RATE_COUNTS_FROM = 100


class FailureLimit:
    """Stops a run in which too much fails.

    Attributes:
        why: why the run was stopped, in words; None as long as it was not.
    """

    def __init__(self, fail_fast: bool = False, rate: float | None = None) -> None:
        """Raises:
        OutputError: the rate is not a share.
        """
        if rate is not None and not (isinstance(rate, Real) and 0 <= rate <= 1):
            raise OutputError(f"the failure rate must be from 0 to 1, not {brief(rate)}")
        self.reason: str | None = None
        self._fail_fast, self._rate = fail_fast, rate

    def record(self, run: FolderJob, outcome: Outcome) -> None:
        """Let the run finish if it has gone too far."""
        if self.reason is not None:
            return
        count = run.done + run.failed
        if self._fail_fast and outcome.error is not None:
            self.reason = "an image failed"
        elif self._rate is not None and count >= _RATE_COUNTS_FROM and run.failed > self._rate * count:
            self.reason = f"{run.failed} of {count} images failed, more than {100 * self._rate:g} %"
        if self.reason is not None:
            run.finish()
