"""Stages of an image for `thread_pipeline.py`: load, explain, save."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from seewhy._shared.regular_files import file_stamp
from seewhy.bulk.job_request import JobRequest
from seewhy.bulk.outcomes import ExplainedClass, ImageTask, Outcome
from seewhy.bulk.sheets import has_sheet, sheet_of
from seewhy.errors import ImageError, MissingExtraError, NonFiniteError, SeewhyError, TargetError
from seewhy.explainer.explanation import Explanation
from seewhy.explainer.prediction import class_name
from seewhy.images.preprocessing import load_image
from seewhy.storage import output_folder, result_files
from seewhy.storage.image_encoding import Figure
from seewhy.tables import result_rows
from seewhy.targets.class_targets import resolve_targets
from seewhy.visualization.captions import bare, captioned
from seewhy.visualization.drawings import Drawing
from seewhy.visualization.page import Page
from seewhy.visualization.svg import svg_document


@dataclass(frozen=True)
class ImageStages:
    """The stages of a job. Each takes some images and returns as many; threads call them concurrently."""

    request: JobRequest
    folder: output_folder.Folder | None
    """Folder for figures; None if there are only rows."""
    progress: Callable[[int, int], object] | None
    """Function called as progress(done, total) with numbers of passes."""

    def load(self, tasks: Sequence[ImageTask]) -> Iterator[ImageTask]:
        """Decode and preprocess images.

        Args:
            tasks: The images.

        Returns:
            The tasks with their preprocessed images, in the same order, loaded one by one. A task whose image or
            target is not usable has an error instead.

        Raises:
            TargetError: If the list gives a target for an image, and the settings explain several classes.
        """
        return map(self._load, tasks)

    def _load(self, task: ImageTask) -> ImageTask:
        given, settings, metadata = task.input.target, self.request.settings, self.request.explainer.metadata
        source, stamped = task.input.image, task.input
        if isinstance(source, Path):
            stamped = replace(stamped, stamp=file_stamp(source))
        if given is not None and self.request.explains_several:
            raise TargetError(
                f"{stamped.path}: the list gives the target {given!r}, and the job explains several classes of each "
                f"image; leave out one of them"
            )
        try:
            if stamped.error is not None:
                raise stamped.error
            target = None
            if given is not None:
                target = int(resolve_targets(given, 1, metadata.class_count, metadata.labels)[0])
            keep = settings.canvas == "original"
            image = load_image(source, metadata, stamped.path, settings.fast_decode, keep)
            if not keep and stamped.content is not None:
                # The content of an archive's member would stay in memory until the figures are written.
                stamped = replace(stamped, content=None)
            return ImageTask(stamped, task.result_name, image, target)
        except TargetError as error:
            return replace(task, input=stamped).failed(TargetError(f"{stamped.path}: {error}"))
        except (ImageError, MissingExtraError) as error:
            return replace(task, input=stamped).failed(error)

    def explain(self, tasks: Sequence[ImageTask]) -> list[ImageTask]:
        """Explain a batch of images."""
        explained = iter(self._explain([task for task in tasks if task.error is None]))
        return [task if task.error is not None else next(explained) for task in tasks]

    def _explain(self, tasks: Sequence[ImageTask]) -> list[ImageTask]:
        if not tasks:
            return []
        request = self.request
        targets = request.batch_targets([task.target for task in tasks])
        try:
            results = request.explainer.explain_resolved(
                [task.image for task in tasks if task.image is not None],
                request.methods,
                targets,
                request.settings.batch_size,
                self.progress,
            )
        except NonFiniteError as error:
            if len(tasks) == 1:
                return [tasks[0].failed(NonFiniteError(f"{tasks[0].input.path}: {error}"))]
            # Explain each image by itself, to find the one that fails.
            return [done for task in tasks for done in self._explain([task])]
        return [
            ImageTask(task.input, task.result_name, None, task.target, results, index)
            for index, task in enumerate(tasks)
        ]

    def save(self, tasks: Sequence[ImageTask]) -> Iterator[Outcome]:
        """Draw, encode and write figures, or keep the rows for a shard.

        What was written is yielded even if the next image cannot be written, so that it is recorded.
        """
        return map(self._save, tasks)

    def _save(self, task: ImageTask) -> Outcome:
        path = Path(task.input.path)
        if task.error is not None:
            return failed_outcome(task, task.error)
        try:
            record = result_rows.success_record(task.input, task.results, task.index)
            if self.request.shard_format is not None:
                rows = result_rows.result_rows(task.results, task.index, self.request.settings.full_size)
                return Outcome(path, record=record, rows=rows)
            files, explained = self._write(task)
            return Outcome(path, explained, record=record, files=files)
        except (ImageError, MissingExtraError) as error:
            # The file may have changed since it was read, or be too large for the format.
            return failed_outcome(task, error)

    def _write(self, task: ImageTask) -> tuple[list[output_folder.WrittenFile], list[ExplainedClass]]:
        """Write one image's figures and arrays; return the files, and the classes that were explained."""
        assert self.folder is not None
        request, results = self.request, task.own_results()
        drawn = self.drawn(results)
        written: dict[str, list[output_folder.WrittenFile]] = {}
        for name, result in results.items():
            captions = [result.caption(0, target) for target in result.targets_of(0)]
            pages = [
                bare(drawing) if request.style.plain else captioned(drawing, caption)
                for drawing, caption in zip(drawn[name], captions, strict=True)
            ]
            figures = list(zip(result.class_names(0), map(self._rendered, pages), strict=True))
            arrays = result.arrays_of(0) if request.settings.raw else None
            written[name] = result_files.save_figures(
                self.folder, task.result_name, name, figures, arrays, request.encoding
            )
        files = [file for saved in written.values() for file in saved]
        first, sheet = next(iter(results.values())), None
        targets = first.targets_of(0)
        if has_sheet(request.settings.sheet, len(results), len(targets)):
            one_row = request.settings.sheet == "side-by-side"
            page = sheet_of(results, drawn, request.style, task.input.file_name, one_row=one_row)
            sheet = result_files.save_figure(
                self.folder, task.result_name, "sheet", self._rendered(page), request.encoding
            )
            files.append(sheet)
        explained = []
        for k, target in enumerate(targets):
            figure = written[first.method][k] if sheet is None or len(results) == 1 < len(targets) else sheet
            details = _completeness(results, k) + _constants(drawn, k)
            label = class_name(target, first.class_labels)
            explained.append(ExplainedClass(label, first.score_text(0, target) + details, figure.path))
        return files, explained

    def drawn(self, results: Mapping[str, Explanation]) -> dict[str, list[Drawing]]:
        """Return the drawings of one image by method, one for each class, from its explanations by method."""
        return {name: list(result.draw(self.request.style_of(name))) for name, result in results.items()}

    def _rendered(self, page: Page) -> Figure:
        return svg_document(page) if self.request.encoding.format == "svg" else page.image()


def failed_outcome(task: ImageTask, error: SeewhyError) -> Outcome:
    """Return the outcome of an image that failed."""
    return Outcome(Path(task.input.path), error=error, record=result_rows.failure_record(task.input, error))


def _completeness(results: Mapping[str, Explanation], k: int) -> str:
    """Return the completeness error of one class as text, for methods that have one."""
    errors = [np.atleast_1d(r.completeness[0])[k] for r in results.values() if r.completeness is not None]
    return "".join(f", completeness error {error:.2g}" for error in errors)


def _constants(drawn: Mapping[str, Sequence[Drawing]], k: int) -> str:
    """Return the methods whose map of one class has the same value everywhere, as text."""
    remarks = [(name, drawings[k].scale.remark) for name, drawings in drawn.items()]
    return "".join(f", {name} is {remark}" for name, remark in remarks if remark)
