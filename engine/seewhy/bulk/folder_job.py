"""A run into an output folder: what is done is recorded, so that nothing is lost and nothing is done twice."""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path, PurePath
from typing import Any

from seewhy._shared.temp_tables import explained
from seewhy.bulk.commit import FigureWriter, ResultWriter, ShardWriter, sync
from seewhy.bulk.explain_files import explain_files, job_targets, validate_settings
from seewhy.bulk.outcomes import Outcome
from seewhy.bulk.pending_images import pending_images
from seewhy.bulk.resume_checks import check_manifest, check_new, delete_unknown_shards, forget
from seewhy.bulk.settings import Settings
from seewhy.errors import MethodError, OutputError
from seewhy.explainer.explainer import Explainer
from seewhy.inputs.image_inputs import ImageInput, Inputs
from seewhy.storage import output_folder, provenance
from seewhy.storage.folder_lock import locked
from seewhy.storage.manifest import Manifest
from seewhy.storage.manifest_lines import DONE, FAILED
from seewhy.storage.manifest_lines import NAME as MANIFEST
from seewhy.tables.shard_files import ShardInfo

_LOG = logging.getLogger("seewhy")
_LOG.addHandler(logging.NullHandler())  # who wants to see it adds another
_TEMPORARY = ".seewhy-unfinished"


@dataclass(frozen=True)
class JobSummary:
    """What became of a run."""

    done: int
    failed: int
    """Of this run's images, those included that earlier runs have done or failed at."""
    already_recorded: int
    """How many of both earlier runs have left."""
    stopped: str | None = None
    """Why it ended before the last image, in words; None where it did not."""
    manifest: Path = Path()


class FolderJob:
    """One run into an output folder, whose manifest remembers what is done.

    Iterate over it for the outcomes of the images that earlier runs have not done, in order, each when it is safe on
    the disk or about to be. Whatever ends the iteration, what came out of it is recorded, and a run with the same
    settings goes on from there.

    Attributes:
        total: how many images there are, done ones included; None where archives are among them.
        done, failed: how many of them the manifest speaks of, or is about to.
        before: how many of both are of earlier runs; members of archives count once they are passed over.
        stopped: whether it ended before the last image because it was told to.
        restart: whether it forgets what earlier runs have done.
    """

    def __init__(
        self,
        explainer: Explainer,
        inputs: Inputs,
        folder: str | os.PathLike[str],
        settings: Settings | None = None,
        *,
        restart: bool = False,
        changed: bool = False,
        stop: threading.Event | None = None,
        progress: Callable[[int, int], object] | None = None,
        notice: Callable[[str], object] | None = None,
    ) -> None:
        """Settle what to do; nothing is written yet.

        Args:
            explainer: of the model.
            inputs: the images.
            folder: for the results; it is made.
            settings: None is `Settings()`.
            restart: forget what earlier runs in the folder have done. Their pictures stay until they are replaced.
            changed: explain images again whose files have changed since an earlier run read them.
            stop: set it, from any thread, to finish what is in work and stop.
            progress: as in `explain_files`.
            notice: called with one line of text about what was found in the folder, for instance how many results are
                missing. The logger `seewhy` gets the same as a warning.

        Raises:
            SeewhyError: a method, a target or an option is wrong, or the shards' format lacks a package.
        """
        self.settings = Settings() if settings is None else settings
        self.total = inputs.total
        # Apart, since the second are counted by other threads, too.
        self._now, self._earlier = {DONE: 0, FAILED: 0}, {DONE: 0, FAILED: 0}
        self.stopped = self._finishing = False
        self._explainer, self._inputs, self._path = explainer, inputs, Path(folder)
        self.restart, self._changed = restart, changed
        self._progress, self._notice = progress, notice
        self._made: list[Path] = []
        self._stop = threading.Event() if stop is None else stop
        self._check()

    def _check(self) -> None:
        settings = self.settings
        validate_settings(self._explainer, settings)
        if settings.shards is None:
            if settings.full_size:
                raise MethodError("full-size heatmaps are for shards (npz, parquet); pictures always have that size")
            return
        if settings.raw:
            raise MethodError(f"raw numbers are for pictures; {settings.shards} shards hold numbers already")

    def finish(self) -> None:
        """Begin no more images; those in work still come out."""
        self._finishing = True

    def _stops(self) -> bool:
        if self._finishing or self._stop.is_set():
            self.stopped = True
        return self.stopped

    def _passed(self, status: str) -> None:
        self._earlier[status] += 1

    @property
    def done(self) -> int:
        return self._now[DONE] + self._earlier[DONE]

    @property
    def failed(self) -> int:
        return self._now[FAILED] + self._earlier[FAILED]

    @property
    def already_recorded(self) -> int:
        return sum(self._earlier.values())

    def __iter__(self) -> Generator[Outcome, None, None]:
        self._now, self._earlier = {DONE: 0, FAILED: 0}, {DONE: 0, FAILED: 0}
        self._made = [path.parent for path in (self._path, *self._path.parents) if not path.exists()]
        folder = output_folder.Folder(self._path, self._inputs.inside(self._path), _TEMPORARY)
        with locked(folder.path), folder:
            facts = self._facts()
            if self.restart:
                forget(folder)
            before = provenance.read(folder.path)
            if before is None:
                check_new(folder.path)
            else:
                check_manifest(folder.path, before)
            with closing(Manifest(folder.path, self._stops)) as manifest:
                counted = 0 if before is None else provenance.image_count(before)
                missing = max(0, counted - manifest.done - manifest.failed)
                begun = before is not None and manifest.done + manifest.failed + missing > 0
                if before is not None and begun:
                    provenance.check_resumable(folder.path, before, facts)
                manifest.begin()
                if begun:
                    self._look_for_changes(folder, facts, manifest, missing)
                delete_unknown_shards(folder.path, manifest)
                facts.setdefault("started", provenance.utc_now())
                self._record(folder, facts, manifest)
                with self._committed(folder, manifest) as commit:
                    yield from self._outcomes(folder, manifest, commit)
                facts["ended"] = provenance.utc_now()
                self._record(folder, facts, manifest)

    def _look_for_changes(
        self, folder: output_folder.Folder, facts: provenance.Facts, manifest: Manifest, missing: int
    ) -> None:
        """Remove images from the manifest that have to be explained again, and report how many there are.

        `missing` is the number of lines that the manifest has lost.
        """
        try:
            with manifest.comparing():
                for item in takewhile(lambda _: not self._stops(), self._inputs.files()):
                    manifest.compare(item.key, item.path)
                for archive in self._inputs.archives():
                    manifest.compare_archive(archive)
            lost, changed = manifest.lost, manifest.changed
            again, others = 0, 0
            if not self.stopped:
                # For a moment run.json counts nothing, so that a kill in between leaves no count without its line.
                again, others = manifest.discard(folder, self._changed, lambda: self._record(folder, facts))
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
                f"images that are not explained again, since they or others of their shard are not given: {others}"
            )

    def _notify(self, text: str) -> None:
        _LOG.warning("%s", text)
        if self._notice is not None:
            self._notice(text)

    def _outcomes(self, folder: output_folder.Folder, manifest: Manifest, commit: ResultWriter) -> Iterator[Outcome]:
        left = None if self.total is None else max(0, self.total - self.already_recorded)
        source = pending_images(self._inputs, manifest, self._stops, self._passed)
        with closing(self._explained(source, folder, left)) as outcomes:
            for outcome in outcomes:
                commit.add(outcome)
                self._now[DONE if outcome.error is None else FAILED] += 1
                if outcome.error is not None:
                    _LOG.warning("failed: %s", outcome.error)
                yield outcome

    def _explained(
        self, source: Iterator[ImageInput], folder: output_folder.Folder, left: int | None
    ) -> Generator[Outcome, None, None]:
        """What becomes of the images, in order; `left` is how many there are, where that is known."""
        return explain_files(self._explainer, source, folder, self.settings, self._progress, left)

    @contextmanager
    def _committed(self, folder: output_folder.Folder, manifest: Manifest) -> Iterator[ResultWriter]:
        """What was added is made safe however the iteration ends, but where making it safe has failed."""
        settings = self.settings
        commit: ResultWriter
        if settings.shards is None:
            commit = FigureWriter(folder, manifest)
        else:
            about = ShardInfo(list(settings.methods), self._explainer.sha256, self._facts())
            commit = ShardWriter(folder, manifest, settings.shards, settings.shard_images, about)
        try:
            yield commit
        finally:
            commit.flush()

    def _facts(self) -> provenance.Facts:
        """What the results are made of."""
        settings, explainer = self.settings, self._explainer
        metadata = explainer.metadata
        resolved = explainer.resolve_methods(list(settings.methods), settings.options)
        external = metadata.external_data and {
            "external_data": {**metadata.external_data, "sha256": explainer.external_data_sha256}
        }
        pictures = settings.shards is None
        drawn = {
            "quality": settings.encoding.quality,
            "colormap": settings.colormap,
            "alpha": settings.alpha,
            "canvas": settings.canvas,
            "raw": settings.raw,
        }
        facts: dict[str, Any] = {
            "schema": provenance.SCHEMA,
            "model": {
                "name": metadata.model.name,
                "source": metadata.model.source,
                "sha256": explainer.sha256,
                **(external or {}),
                "exported_with": dict(metadata.versions),
            },
            "versions": provenance.software_versions(),
            "providers": list(explainer.providers),
            "methods": list(settings.methods),
            "options": {name: chosen for name, chosen in resolved.items() if chosen},
            "targets": job_targets(explainer, settings.targets) or None,
            "top": settings.top,
            "preprocessing": None if metadata.preprocessing is None else vars(metadata.preprocessing),
            "decode": "fast" if settings.fast_decode else "exact",
            "format": settings.encoding.format if pictures else settings.shards,
            **(drawn if pictures else {"full_size": settings.full_size}),
        }
        if self._inputs.relative:
            facts["relative_to"] = os.getcwd()
        return facts

    def summary(self, stopped: str | None = None) -> JobSummary:
        """What became of it so far; `stopped` says why no more did, in words."""
        return JobSummary(self.done, self.failed, self.already_recorded, stopped, self._path / MANIFEST)

    def _record(self, folder: output_folder.Folder, facts: provenance.Facts, manifest: Manifest | None = None) -> None:
        counts = (0, 0) if manifest is None else (manifest.done, manifest.failed)
        facts["images"] = dict(zip((DONE, FAILED), counts, strict=True))
        data = provenance.encoded(facts)
        folder.write(PurePath(provenance.NAME), lambda file: file.write(data), flush=True)
        # Before the first line of the manifest is: a manifest without it is worth nothing. The folder may be new, too.
        sync([folder.path])
        with suppress(OutputError):  # not everybody may read the folders above
            sync(self._made)
        self._made = []
