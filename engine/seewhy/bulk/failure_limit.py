"""Stop a job in which too many images fail."""

from __future__ import annotations

from numbers import Real

from seewhy._shared.text import brief
from seewhy.bulk.folder_job import FolderJob
from seewhy.bulk.outcomes import Outcome
from seewhy.errors import ArgumentError

# The failure rate of fewer images says little about the whole job.
_MIN_IMAGES_FOR_RATE = 100


class FailureLimit:
    """A limit that stops a job in which too many images fail.

    Attributes:
        reason: Why the job was stopped, as text; None if it was not.
    """

    def __init__(self, fail_fast: bool = False, rate: float | None = None) -> None:
        """Set the limit.

        Args:
            fail_fast: Whether to stop at the first image that fails.
            rate: Share of failed images, from 0 to 1, beyond which the job stops; None sets no such limit.

        Raises:
            ArgumentError: If the rate is not a number from 0 to 1.
        """
        if rate is not None and not (isinstance(rate, Real) and 0 <= rate <= 1):
            raise ArgumentError(f"max_failure_rate must be between 0 and 1, not {brief(rate)}")
        self.reason: str | None = None
        self._fail_fast, self._rate = fail_fast, rate

    def record(self, job: FolderJob, outcome: Outcome) -> None:
        """Check the limit after an outcome, and finish the job if it is exceeded."""
        if self.reason is not None:
            return
        count = job.done + job.failed
        if self._fail_fast and outcome.error is not None:
            self.reason = "an image failed"
        elif self._rate is not None and count >= _MIN_IMAGES_FOR_RATE and job.failed > self._rate * count:
            self.reason = f"{job.failed} of {count} images failed, more than {100 * self._rate:g} %"
        if self.reason is not None:
            job.finish()
