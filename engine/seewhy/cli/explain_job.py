"""The command line of `seewhy explain`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import click

from seewhy._shared.text import printable
from seewhy.bulk.failure_limit import FailureLimit
from seewhy.bulk.folder_job import FolderJob, JobSummary
from seewhy.bulk.outcomes import Outcome
from seewhy.bulk.settings import Settings
from seewhy.cli.progress import Progress
from seewhy.cli.signals import EXIT_SIGNALLED, Stopped
from seewhy.errors import ClusterError, ImageError, OutputError
from seewhy.explainer.explainer import Explainer
from seewhy.inputs.image_inputs import Inputs
from seewhy.inputs.image_lists import STANDARD_INPUT
from seewhy.methods.options import parse_options
from seewhy.targets.class_targets import read_target
from seewhy.visualization.colormaps import palette

_NOTHING_FAILED, _SOME_FAILED, _ALL_FAILED = 0, 1, 2


def run(**chosen: Any) -> int:
    """Explain, and return the exit status."""
    stop = Stop(chosen["restart"])
    try:
        return _run(stop, **chosen)
    except KeyboardInterrupt as error:  # while images were listed
        number: int = error.number if isinstance(error, Stopped) else signal.SIGINT
        click.echo(stop.at_once(number), err=True, nl=False)
        return EXIT_SIGNALLED + number
    finally:
        stop.ends()


def _run(
    stop: Stop,
    model: Path,
    images: Sequence[str],
    lists: Sequence[str],
    folder: Path,
    methods: Sequence[str],
    targets: Sequence[str],
    options: Sequence[str],
    format_: str,
    quality: int | None,
    colormap: str,
    providers: Sequence[str],
    threads: int | None,
    no_verify: bool,
    restart: bool,
    changed: bool,
    fail_fast: bool,
    max_failure_rate: float | None,
    use_ray: bool,
    ray_address: str | None,
    ray_workers: int | None,
    quiet: bool,
    **others: Any,
) -> int:
    """`others` are fields of `Settings`."""
    # What is wrong is better found before images are listed.
    palette(colormap)
    settings = Settings(
        list(dict.fromkeys(methods)),
        [read_target(text) for text in targets],
        colormap=colormap,
        options=parse_options(options),
        format=format_,
        quality=quality,
        **others,
    )
    paths = [path for path in images if path != STANDARD_INPUT]
    if len(paths) < len(images):
        lists = [*lists, STANDARD_INPUT]
    if not paths and not lists:
        raise ImageError("no images given; name files or folders, or give a list with --list")
    if not use_ray and (ray_address is not None or ray_workers is not None):
        raise ClusterError("--ray-address and --ray-workers are for runs on a Ray cluster; add --ray")
    limit = FailureLimit(fail_fast, max_failure_rate)
    common: dict[str, Any] = {"restart": restart, "changed": changed, "stop": stop.event, "notice": stop.notice}
    if not use_ray:
        explainer = Explainer(model, list(providers) or None, threads, not no_verify)
        explainer.resolve_methods(settings.methods, settings.options)
        inputs = Inputs(paths, folder, lists)
        return _follow(
            FolderJob(explainer, inputs, folder, settings, progress=stop.passes, **common), limit, stop, quiet
        )
    from seewhy.ray import cluster_job

    cluster_job.check(settings)
    workers = cluster_job.WorkerPlan(ray_workers, threads, cluster_job.asks_for_gpu(providers))
    with cluster_job.connected(ray_address):
        inputs = Inputs(paths, folder, lists)
        job = cluster_job.RayJob(
            model, inputs, folder, settings, workers, providers=providers, verify=not no_verify, **common
        )
        return _follow(job, limit, stop, quiet)


def _follow(job: FolderJob, limit: FailureLimit, stop: Stop, quiet: bool) -> int:
    with Progress(job.total) as progress, stop.by_signals(progress), closing(iter(job)) as outcomes:
        for outcome in outcomes:
            limit.record(job, outcome)
            _print(outcome, progress, quiet, _goes_on(job.restart))
            progress.update(job.done + job.failed, job.already_recorded)
    summary = job.summary(stop.reason or limit.reason)
    _print_summary(summary, job, progress)
    if stop.signal is not None:
        return EXIT_SIGNALLED + stop.signal
    return _NOTHING_FAILED if not summary.failed else _SOME_FAILED if summary.done else _ALL_FAILED


class Stop:
    """Stops a run when a signal says so: the first one lets it finish what is in work, the second one does not."""

    def __init__(self, restart: bool = False) -> None:
        self.event = threading.Event()
        self.signal: int | None = None
        self._goes_on = _goes_on(restart)
        self._progress: Progress | None = None
        self._before: dict[int, Any] = {}

    @property
    def reason(self) -> str | None:
        return None if self.signal is None else f"stopped by {signal.Signals(self.signal).name}"

    def passes(self, done: int, total: int) -> None:
        if self._progress is not None:
            self._progress.passes(done, total)

    def notice(self, text: str) -> None:
        if self._progress is not None:
            self._progress.print(f"seewhy: {printable(text)}", error=True)

    def by_signals(self, progress: Progress) -> Stop:
        self._progress = progress
        return self

    def __enter__(self) -> Stop:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        # After a first signal ours stay: a second one may come while the run is summed up.
        if self.signal is None:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def ends(self) -> None:
        """After a signal only the end is left, of which Python lets another signal make a death: none is heard."""
        if self.signal is not None:
            for number in self._before:
                signal.signal(number, signal.SIG_IGN)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # Not by way of `Progress`, whose lock this thread may hold; and who reads it may have ended before us.
        if self.signal is not None:
            # What is in work may take minutes, and to be killed does no harm at any moment.
            _say(self.at_once(number))
            os._exit(EXIT_SIGNALLED + number)
        self.signal = number
        self.event.set()
        _say("\nseewhy: finishing what is in work; once more stops at once\n")

    def at_once(self, number: int) -> str:
        return f"seewhy: stopped by {signal.Signals(number).name} at once; {self._goes_on}\n"


def _goes_on(restart: bool) -> str:
    return f"the same command {'without --restart ' if restart else ''}goes on from there"


def _say(text: str) -> None:
    if sys.stderr is not None:  # or another file may have its number
        with suppress(OSError):
            os.write(2, text.encode())


def _print(outcome: Outcome, progress: Progress, quiet: bool, goes_on: str) -> None:
    if outcome.error is not None:
        progress.print(f"seewhy: error: {printable(str(outcome.error))}", error=True)
    if quiet:
        return
    for answer in outcome.explained:
        line = printable(f"{outcome.path}: {answer.label} ({answer.score}) -> {answer.figure}")
        try:
            progress.print(line)
        except OSError as error:  # its disk is full, or who reads it has gone
            with suppress(OSError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what it still holds is written when Python ends
            raise OutputError(
                f"standard output: {error.strerror or error}; with -q nothing is printed, and {goes_on}"
            ) from None


def _print_summary(summary: JobSummary, job: FolderJob, progress: Progress) -> None:
    """Where there is more to say than the lines of the images do."""
    count = summary.done + summary.failed
    of = count if job.total is None else job.total
    parts = [f"{count if count == of else f'{count} of {of}'} image{'' if of == 1 else 's'}"]
    parts += [f"{summary.already_recorded} of them before"] if summary.already_recorded else []
    parts += [f"{summary.failed} failed"] if summary.failed else []
    if summary.stopped is not None:
        text = f"{summary.stopped}: {', '.join(parts)}"
        text += f"; {_goes_on(job.restart)}" if job.stopped else f"; see {summary.manifest}"
    elif summary.already_recorded and summary.failed:
        text = f"{', '.join(parts)}, which are not tried again but with --restart; see {summary.manifest}"
    elif summary.already_recorded or job.request.shard_format is not None or (summary.failed and count > 1):
        text = f"{', '.join(parts)}; see {summary.manifest}"
    else:
        return
    progress.print(f"seewhy: {printable(text)}", error=True)
