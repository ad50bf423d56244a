"""A resumable job over many images, whose results are recorded in the manifest of an output folder."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from seewhy._shared.temp_tables import explained
from seewhy._shared.text import printable
from seewhy.bulk.commit import FigureWriter, ResultWriter, ShardWriter, sync
from seewhy.bulk.common_scale import first_maxima
from seewhy.bulk.explain_files import explain_files
from seewhy.bulk.job_request import JobRequest
from seewhy.bulk.outcomes import ImageTask, Outcome
from seewhy.bulk.pending_images import pending_images
from seewhy.bulk.resume_checks import (
    check_manifest,
    check_new,
    delete_records,
    delete_unknown_shards,
    find_images,
)
from seewhy.errors import OutputError
from seewhy.inputs.image_inputs import Inputs
from seewhy.methods.registry import origins
from seewhy.storage import output_folder, provenance
from seewhy.storage.folder_lock import locked
from seewhy.storage.manifest import Manifest
from seewhy.storage.manifest_lines import DONE, FAILED
from seewhy.storage.manifest_lines import NAME as MANIFEST
from seewhy.storage.recorded_paths import RecordedPaths
from seewhy.tables.shard_files import ShardInfo
from seewhy.visualization.drawing_options import GRADIENT_QUANTILE
from seewhy.visualization.fonts import missing_note

_LOG = logging.getLogger("seewhy")
_LOG.addHandler(logging.NullHandler())  # programs add a handler of their own
_TEMPORARY = ".seewhy-unfinished"


@dataclass(frozen=True)
class JobSummary:
    """Result of a job."""

    done: int
    """Number of images that were explained, including images that earlier attempts explained."""
    failed: int
    """Number of images that failed, including failures recorded by earlier attempts."""
    already_recorded: int
    """Number of images that earlier attempts had already recorded."""
    stopped: str | None
    """Why the job ended before the last image, as text; None if it did not."""
    manifest: Path = Path()
    """Path of the manifest."""


class FolderJob:
    """A job that writes into an output folder and records each image in its manifest.

    Iterate over it to run it. It yields, in order, the outcomes of the images that earlier attempts have not recorded.
    Each comes when its results are on the disk or about to be. However the iteration ends, every outcome that was
    yielded is recorded, and a job with the same settings resumes from there.

    Attributes:
        request: The resolved settings.
        total: Number of images, including those that are done; None if the inputs have archives.
        done: Number of images that are explained and recorded, or about to be.
        failed: Number of images that failed and are recorded, or about to be.
        already_recorded: Number of images that earlier attempts recorded. Archive members count once they are skipped.
        stopped: Whether the job ended before the last image because of `stop` or `finish`.
        restart: Whether the job discards what earlier attempts recorded.
        retry_failed: Whether the job explains images again that failed in earlier attempts.
    """

    participle = "explained"
    """Word for an image that is done."""

    def __init__(
        self,
        request: JobRequest,
        inputs: Inputs,
        folder: str | os.PathLike[str],
        *,
        restart: bool = False,
        changed: bool = False,
        retry_failed: bool = False,
        stop: threading.Event | None = None,
        progress: Callable[[int, int], object] | None = None,
        notice: Callable[[str], object] | None = None,
    ) -> None:
        """Prepare the job; nothing is written yet.

        Args:
            request: Resolved settings, from `resolve_job`.
            inputs: The images.
            folder: Folder for the results; it is created if it does not exist.
            restart: Whether to discard what earlier attempts recorded. Their figures stay until they are replaced.
            changed: Whether to explain images again whose files have changed since they were explained.
            retry_failed: Whether to explain images again that failed in earlier attempts.
            stop: Event that stops the job once any thread sets it; images that have started are finished first.
            progress: As in `explain_files`.
            notice: Function called with one line of text about the state of the folder, such as the number of missing
                results. The logger `seewhy` gets the same text as a warning.
        """
        self.request = request
        self.total = inputs.total
        # Separate dicts, because other threads change the second one.
        self._now, self._earlier = {DONE: 0, FAILED: 0}, {DONE: 0, FAILED: 0}
        self.stopped = self._finishing = False
        self._inputs, self._path = inputs, Path(folder)
        self.restart, self.retry_failed, self._changed = restart, retry_failed, changed
        self._base: str | None = None
        self._progress, self._notice = progress, notice
        self._created_folders: list[Path] = []
        self._stop = threading.Event() if stop is None else stop

    def finish(self) -> None:
        """Start no more images. The iteration still yields those that have started."""
        self._finishing = True

    def _should_stop(self) -> bool:
        if self._finishing or self._stop.is_set():
            self.stopped = True
        return self.stopped

    def _count_skipped(self, status: str) -> None:
        self._earlier[status] += 1

    @property
    def done(self) -> int:
        """Number of images that are explained and recorded, or about to be."""
        return self._now[DONE] + self._earlier[DONE]

    @property
    def failed(self) -> int:
        """Number of images that failed and are recorded, or about to be."""
        return self._now[FAILED] + self._earlier[FAILED]

    @property
    def already_recorded(self) -> int:
        """Number of images that earlier attempts recorded."""
        return sum(self._earlier.values())

    def __iter__(self) -> Generator[Outcome, None, None]:
        self._now, self._earlier = {DONE: 0, FAILED: 0}, {DONE: 0, FAILED: 0}
        self._created_folders = [path.parent for path in (self._path, *self._path.parents) if not path.exists()]
        folder = output_folder.Folder(self._path, self._inputs.inside(self._path), _TEMPORARY)
        with locked(folder.path), folder:
            self._base = os.getcwd() if self._inputs.relative else None
            facts = self._facts()
            if self.restart:
                delete_records(folder)
            before = provenance.read(folder.path)
            if before is None:
                check_new(folder.path)
            else:
                check_manifest(folder.path, before)
            with closing(Manifest(folder.path, self._should_stop)) as manifest:
                counted = 0 if before is None else provenance.image_count(before)
                missing = max(0, counted - manifest.done - manifest.failed)
                begun = before is not None and manifest.done + manifest.failed + missing > 0
                if before is not None and begun:
                    provenance.check_resumable(folder.path, before, facts)
                    find_images(folder.path, before, manifest, self._inputs, self._should_stop)
                    self._base = manifest.paths.base
                    facts.update(self._base_facts())
                elif self._base is not None:
                    manifest.paths = RecordedPaths(self._base, self._base)
                manifest.begin()
                if begun:
                    self._detect_changes(folder, facts, manifest, missing)
                delete_unknown_shards(folder.path, manifest)
                if self.request.draws_labels and (note := missing_note(self.request.explainer.labels or ())):
                    self._notify(note)
                if not self._find_scales(facts, before if begun else None):
                    return
                facts.setdefault("started", provenance.utc_now())
                self._record(folder, facts, manifest)
                with self._result_writer(folder, manifest) as writer:
                    yield from self._outcomes(folder, manifest, writer)
                self._conclude(folder)
                facts["ended"] = provenance.utc_now()
                self._record(folder, facts, manifest)

    def _detect_changes(
        self, folder: output_folder.Folder, facts: provenance.Facts, manifest: Manifest, missing: int
    ) -> None:
        """Remove images that have to be explained again from the manifest, and report their number.

        `missing` is the number of lines that the manifest has lost.
        """
        try:
            with manifest.comparing():
                for image in takewhile(lambda _: not self._should_stop(), self._inputs.files()):
                    manifest.compare(image.key, image.path)
                for archive in self._inputs.archives():
                    manifest.compare_archive(archive)
            lost, changed = manifest.lost, manifest.changed
            again, others = 0, 0
            if not self.stopped:
                # run.json counts no images until it is written again. If the job is killed before, no image is counted
                # without a line.
                again, others = manifest.discard(
                    folder, self._changed, self.retry_failed, lambda: self._record(folder, facts)
                )
            self._earlier.update(manifest.given_files())
        except sqlite3.OperationalError as error:
            raise explained(error) from None
        if missing:
            self._notify(f"images that {provenance.NAME} counts and {MANIFEST} lacks: {missing}")
        if lost:
            self._notify(f"images whose results are missing or incomplete: {lost}")
        if changed:
            hint = "" if self._changed else "; --changed explains them again"
            self._notify(f"images whose files have changed since they were explained: {changed}{hint}")
        if again:
            self._notify(f"images that are explained again: {again}")
        if others:
            self._notify(
                f"images that are not explained again, because they or others of their shard are not given: {others}"
            )

    def _find_scales(self, facts: provenance.Facts, before: provenance.Facts | None) -> bool:
        """Find the common scale of the first images, or take it from an earlier attempt; return False to stop."""
        count = self.request.scale_images
        if count is None:
            return True
        names = [one.name for one in self.request.methods]
        scales = None if before is None else provenance.scales(before, names)
        if scales is None:
            scales = first_maxima(self.request, self._inputs, count, self._should_stop)
        if scales is None:
            return False
        facts["scales"] = scales
        self.request = replace(self.request, scales=scales)
        return True

    def _notify(self, text: str) -> None:
        _LOG.warning("%s", printable(text))
        if self._notice is not None:
            self._notice(text)

    def _outcomes(self, folder: output_folder.Folder, manifest: Manifest, writer: ResultWriter) -> Iterator[Outcome]:
        left = None if self.total is None else max(0, self.total - self.already_recorded)
        tasks = pending_images(self._inputs, manifest, self._should_stop, self._count_skipped)
        with closing(self._explained(tasks, folder, left)) as outcomes:
            for outcome in outcomes:
                writer.add(_recorded(outcome, manifest.paths))
                self._now[DONE if outcome.error is None else FAILED] += 1
                if outcome.error is not None:
                    _LOG.warning("failed: %s", printable(str(outcome.error)))
                elif "warning" in outcome.record:
                    self._notify(f"{outcome.path}: {outcome.record['warning']}")
                yield outcome

    def _explained(
        self, tasks: Iterator[ImageTask], folder: output_folder.Folder, left: int | None
    ) -> Generator[Outcome, None, None]:
        """Explain images and yield their outcomes in order; `left` is their number if it is known."""
        return explain_files(self.request, tasks, folder, self._progress, left)

    def _conclude(self, folder: output_folder.Folder) -> None:
        """Write what depends on all recorded images; a job that only explains has nothing of that kind."""

    @contextmanager
    def _result_writer(self, folder: output_folder.Folder, manifest: Manifest) -> Iterator[ResultWriter]:
        """Yield the writer of results, and flush it however the iteration ends."""
        request, settings = self.request, self.request.settings
        writer: ResultWriter
        if request.shard_format is None:
            writer = FigureWriter(folder, manifest)
        else:
            info = ShardInfo(list(settings.methods), request.explainer.sha256, self._facts())
            writer = ShardWriter(folder, manifest, request.shard_format, settings.shard_images, info)
        try:
            yield writer
        finally:
            writer.flush()

    def _facts(self) -> provenance.Facts:
        """Return the facts that determine the results, as `run.json` records them."""
        request, settings, explainer = self.request, self.request.settings, self.request.explainer
        metadata = explainer.metadata
        external = metadata.external_data and {
            "external_data": {**metadata.external_data, "sha256": explainer.external_data_sha256}
        }
        plugins = {one.name: dict(origins[one.name]) for one in request.methods if one.name in origins}
        facts: dict[str, Any] = {
            "schema": provenance.SCHEMA,
            "model": {
                "name": metadata.model.name,
                "source": metadata.model.source,
                "sha256": explainer.sha256,
                **(external or {}),
                "exported_with": dict(metadata.versions),
                **({} if metadata.quantization is None else {"quantization": asdict(metadata.quantization)}),
            },
            "versions": provenance.software_versions(),
            "providers": list(explainer.providers),
            "methods": list(settings.methods),
            **({"plugins": plugins} if plugins else {}),
            "options": {one.name: dict(one.options) for one in request.methods if one.options},
            "targets": list(request.targets) or None,
            "top": settings.top,
            "preprocessing": None if metadata.preprocessing is None else vars(metadata.preprocessing),
            "decode": "fast" if settings.fast_decode else "exact",
        }
        return {**facts, **self._result_facts(), **self._base_facts()}

    def _result_facts(self) -> provenance.Facts:
        """Return the facts about the form of the results."""
        request, settings = self.request, self.request.settings
        if request.shard_format is not None:
            return {"format": settings.format, "full_size": settings.full_size}
        return {
            "format": settings.format,
            # First, so that a folder of figures without captions from an earlier version is refused with this name.
            "figures": "plain" if settings.plain else "captioned",
            "quality": settings.quality,
            **{name: value for name, value in vars(request.style).items() if name not in ("scale", "plain")},
            "gradient_quantile": GRADIENT_QUANTILE,
            "scale": f"first:{request.scale_images}" if request.scale_images is not None else request.style.scale,
            "sheet": settings.sheet,
            "raw": settings.raw,
        }

    def _base_facts(self) -> provenance.Facts:
        return {} if self._base is None else provenance.base_facts(self._base, self._path)

    def summary(self, stopped: str | None = None) -> JobSummary:
        """Return the counts so far; `stopped` says why the job ended early, as text."""
        return JobSummary(self.done, self.failed, self.already_recorded, stopped, self._path / MANIFEST)

    def _record(self, folder: output_folder.Folder, facts: provenance.Facts, manifest: Manifest | None = None) -> None:
        counts = (0, 0) if manifest is None else (manifest.done, manifest.failed)
        facts["images"] = dict(zip((DONE, FAILED), counts, strict=True))
        data = provenance.encoded(facts)
        folder.write(PurePath(provenance.NAME), lambda file: file.write(data), flush=True)
        # Sync run.json before the first line of the manifest, which is not valid without it.
        sync([folder.path])
        with suppress(OutputError):  # the user may lack the permission to open the folders above
            sync(self._created_folders)
        self._created_folders = []


def _recorded(outcome: Outcome, paths: RecordedPaths) -> Outcome:
    """Return an outcome whose record has the paths that the manifest records."""
    record = outcome.record
    archive = record.get("input", {}).get("archive")
    path = paths.recorded(record["path"], archive)
    if archive is not None:
        record = {**record, "input": {**record["input"], "archive": paths.recorded(archive)}}
    elif path == record["path"]:
        return outcome
    return replace(outcome, record={**record, "path": path})
