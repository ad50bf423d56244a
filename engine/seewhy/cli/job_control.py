"""Run a job of a command: print its lines and summary, and stop it on signals."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from types import FrameType
from typing import Any

import click

from seewhy._shared.text import printable
from seewhy.bulk.failure_limit import FailureLimit
from seewhy.bulk.folder_job import FolderJob, JobSummary
from seewhy.bulk.outcomes import Outcome
from seewhy.cli.progress import Progress
from seewhy.cli.signals import EXIT_SIGNALLED, Stopped
from seewhy.errors import ArgumentError, OutputError
from seewhy.inputs.image_lists import STANDARD_INPUT

_NOTHING_FAILED, _SOME_FAILED, _ALL_FAILED = 0, 1, 2


def with_stop(work: Callable[..., int], **chosen: Any) -> int:
    """Run a command's work, which signals may stop.

    Args:
        work: Function of a `Stop` and the command's options that returns the exit status.
        **chosen: The options, `restart` among them.

    Returns:
        The exit status.
    """
    stop = Stop(chosen["restart"])
    try:
        return work(stop, **chosen)
    except KeyboardInterrupt as error:  # a signal while images were listed
        number: int = error.number if isinstance(error, Stopped) else signal.SIGINT
        click.echo(stop.message(number), err=True, nl=False)
        return EXIT_SIGNALLED + number
    finally:
        stop.ignore_signals()


def image_arguments(images: Sequence[str], lists: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the paths and the lists of images that a command was given; `-` among the paths is a list.

    Args:
        images: Arguments of the command.
        lists: Values of `--list`.

    Returns:
        The paths, and the lists.

    Raises:
        ArgumentError: If there are neither.
    """
    paths = [path for path in images if path != STANDARD_INPUT]
    found = [*lists, *([STANDARD_INPUT] if len(paths) < len(images) else [])]
    if not paths and not found:
        raise ArgumentError("no images given; give files, folders or patterns, or a list with --list")
    return paths, found


def run_job(job: FolderJob, limit: FailureLimit, stop: Stop, quiet: bool) -> int:
    """Run a job, print a line for each image and a summary, and return the exit status."""
    with Progress(job.total) as progress, stop.by_signals(progress), closing(iter(job)) as outcomes:
        for outcome in outcomes:
            limit.record(job, outcome)
            _print_outcome(outcome, progress, quiet, _resume_hint(job.restart))
            progress.update(job.done + job.failed, job.already_recorded)
    summary = job.summary(stop.reason or limit.reason)
    _print_summary(summary, job, progress)
    if stop.signal is not None:
        return EXIT_SIGNALLED + stop.signal
    return _NOTHING_FAILED if not summary.failed else _SOME_FAILED if summary.done else _ALL_FAILED


class Stop:
    """Stops a job on signals: the first lets images in progress finish, the second exits at once."""

    def __init__(self, restart: bool = False) -> None:
        """Prepare to stop.

        Args:
            restart: Whether the command has the option --restart. The hint then says to resume without it.
        """
        self.event = threading.Event()
        self.signal: int | None = None
        self._hint = _resume_hint(restart)
        self._progress: Progress | None = None
        self._before: dict[int, Any] = {}

    @property
    def reason(self) -> str | None:
        """Why the job stopped, or None."""
        return None if self.signal is None else f"stopped by {signal.Signals(self.signal).name}"

    def show_passes(self, done: int, total: int) -> None:
        """Show how many passes are done for the current image."""
        if self._progress is not None:
            self._progress.update_passes(done, total)

    def notice(self, text: str) -> None:
        """Print a notice of the job."""
        if self._progress is not None:
            self._progress.print(f"seewhy: {printable(text)}", error=True)

    def by_signals(self, progress: Progress) -> Stop:
        """Return a context in which signals stop the job."""
        self._progress = progress
        return self

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        # After the first signal our handlers stay, because a second one may come while the summary is printed.
        if self.signal is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def ignore_signals(self) -> None:
        """Ignore further signals during shutdown: a second one would kill the process while Python ends."""
        if self.signal is not None:
            for number in self._before:
                signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Do not print through `Progress`: this thread may hold its lock.
        if self.signal is not None:
            # Images in progress may take minutes. Exit now: a job may be killed at any moment without harm.
            _write_error(self.message(number))
            os._exit(EXIT_SIGNALLED + number)
        self.signal = number
        self.event.set()
        _write_error("\nseewhy: finishing the images in progress; interrupt again to stop at once\n")

    def message(self, number: int) -> str:
        """Return the message about a job that a signal stopped at once."""
        return f"seewhy: stopped by {signal.Signals(number).name} at once. {self._hint}\n"


def _resume_hint(restart: bool) -> str:
    return f"Run the same command {'without --restart' if restart else 'again'} to resume."


def _write_error(text: str) -> None:
    if sys.stderr is not None:  # if standard error is closed, another file may have its descriptor
        with suppress(OSError):
            os.write(2, text.encode())


def _print_outcome(outcome: Outcome, progress: Progress, quiet: bool, hint: str) -> None:
    """Print a line for each explained class of an image, or its error."""
    if outcome.error is not None:
        progress.print(f"seewhy: error: {printable(str(outcome.error))}", error=True)
    if quiet:
        return
    for one in outcome.explained:
        line = printable(f"{outcome.path}: {one.label} ({one.score}) -> {one.figure}")
        try:
            progress.print(line)
        except OSError as error:  # the disk is full, or the process that reads the pipe has ended
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Python flushes its buffer when it ends
            raise OutputError(f"standard output: {error.strerror or error}; use -q to print no lines. {hint}") from None


def _print_summary(summary: JobSummary, job: FolderJob, progress: Progress) -> None:
    """Print a summary, unless it would only repeat the lines of the images."""
    count = summary.done + summary.failed
    resumed, shards = summary.already_recorded, job.request.shard_format is not None
    if not (summary.stopped or resumed or shards or (summary.failed and count > 1)):
        return
    total = count if job.total is None else job.total
    text = f"{count:,}{'' if count == total else f' of {total:,}'} image{'' if total == 1 else 's'}"
    text += f": {summary.done:,} {job.participle}, {summary.failed:,} failed"
    text += f" ({resumed:,} of the images in earlier attempts)." if resumed else "."
    if summary.stopped is not None:
        text = f"{summary.stopped} after {text}"
    if job.stopped:
        text += f" {_resume_hint(job.restart)}"
    elif resumed and summary.failed and not job.retry_failed:
        text += " Failed images are skipped on resume; use --retry-failed to retry them."
    if not job.stopped:
        text += f" See {summary.manifest}"
    progress.print(f"seewhy: {printable(text)}", error=True)
