"""Stages of an image for `thread_pipeline.py`: load, explain, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from seewhy._shared.regular_files import file_stamp
from seewhy.bulk.job_request import JobRequest
from seewhy.bulk.outcomes import ExplainedClass, ImageTask, Outcome
from seewhy.bulk.settings import Settings
from seewhy.errors import ImageError, NonFiniteError, SeewhyError, TargetError
from seewhy.explainer.explanation import Explanation
from seewhy.explainer.prediction import class_name
from seewhy.images.preprocessing import load_image
from seewhy.methods.registry import METHODS
from seewhy.storage import output_folder, result_files
from seewhy.tables import result_rows
from seewhy.targets.class_targets import resolve_targets
from seewhy.visualization.contact_sheet import contact_sheet
from seewhy.visualization.overlays import clip_gradients, gradient_figures, rgb


@dataclass(frozen=True)
class ImageStages:
    """The stages of a job. Each takes some images and returns as many; threads call them concurrently."""

    request: JobRequest
    folder: output_folder.Folder | None
    """Folder for figures; None if there are only rows."""
    progress: Callable[[int, int], object] | None
    """Function called as progress(done, total) with numbers of passes."""

    def load(self, tasks: Sequence[ImageTask]) -> list[ImageTask]:
        """Decode and preprocess images.

        Args:
            tasks: The images.

        Returns:
            The tasks with their preprocessed images, in the same order. A task whose image or target is
            not usable has an error instead.

        Raises:
            TargetError: If the list gives a target for an image, and the settings explain several classes.
        """
        return [self._load(task) for task in tasks]

    def _load(self, task: ImageTask) -> ImageTask:
        given, settings, metadata = task.input.target, self.request.settings, self.request.explainer.metadata
        if isinstance(task.input.image, Path):
            task = replace(task, input=replace(task.input, stamp=file_stamp(task.input.path)))
        if given is not None and self.request.explains_several:
            raise TargetError(
                f"{task.input.path}: the list gives the target {given!r}, and the job explains several classes of each "
                f"image; leave out one of them"
            )
        try:
            if task.input.error is not None:
                raise task.input.error
            target = None
            if given is not None:
                target = int(resolve_targets(given, 1, metadata.class_count, metadata.labels)[0])
            keep = settings.canvas == "original"
            image = load_image(task.input.image, metadata, task.input.path, settings.fast_decode, keep)
            if not keep:
                # The content of an archive's member would stay in memory until the figures are written.
                task = replace(task, input=replace(task.input, content=None))
            return replace(task, image=image, target=target)
        except TargetError as error:
            return task.failed(TargetError(f"{task.input.path}: {error}"))
        except ImageError as error:
            return task.failed(error)

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
        return [replace(task, image=None, results=results, index=index) for index, task in enumerate(tasks)]

    def save(self, tasks: Sequence[ImageTask]) -> list[Outcome]:
        """Draw, encode and write figures, or keep the rows for a shard."""
        return [self._save(task) for task in tasks]

    def _save(self, task: ImageTask) -> Outcome:
        path = Path(task.input.path)
        if task.error is not None:
            return self._failed(task, task.error)
        try:
            record = result_rows.success_record(task.input, task.results, task.index)
            if self.request.shard_format is not None:
                rows = result_rows.result_rows(task.results, task.index, self.request.settings.full_size)
                return Outcome(path, record=record, rows=rows)
            files, explained = self._write(task)
            return Outcome(path, explained, record=record, files=files)
        except ImageError as error:  # the file may have changed since it was read, or be too large for the format
            return self._failed(task, error)

    @staticmethod
    def _failed(task: ImageTask, error: SeewhyError) -> Outcome:
        return Outcome(Path(task.input.path), error=error, record=result_rows.failure_record(task.input, error))

    def _write(self, task: ImageTask) -> tuple[list[output_folder.WrittenFile], list[ExplainedClass]]:
        """Write one image's figures and arrays; return the files, and the classes that were explained."""
        assert self.folder is not None
        settings, results, encoding = self.request.settings, task.results, self.request.encoding
        written: dict[str, list[output_folder.WrittenFile]] = {}
        for method, result in results.items():
            figures = result[task.index].figures(settings.colormap, settings.alpha, settings.canvas)
            arrays = result.arrays_of(task.index) if settings.raw else None
            own = result.with_classes(task.index, figures)
            written[method] = result_files.save_figures(self.folder, task.result_name, method, own, arrays, encoding)
        first = next(iter(results.values()))
        files = [file for saved in written.values() for file in saved]
        explained = []
        for k, target in enumerate(first.targets_of(task.index)):
            label, score = class_name(target, first.class_labels), first.score_text(task.index, target)
            figure = written[first.method][k]
            if len(results) > 1:
                tiles = _tiles(results, task.index, k, settings)
                note = f"{self.request.explainer.metadata.model.name} · {task.input.file_name}"
                suffix = f"sheet.{target}" if first.targets.ndim == 2 else "sheet"
                sheet = contact_sheet(tiles, label, score, note)
                figure = result_files.save_figure(self.folder, task.result_name, suffix, sheet, encoding)
                files.append(figure)
            explained.append(ExplainedClass(label, score + _completeness(results, task.index, k), figure.path))
        return files, explained


def _completeness(results: Mapping[str, Explanation], index: int, k: int) -> str:
    """Return the completeness error of one image and class as text, for methods that have one."""
    errors = [np.atleast_1d(r.completeness[index])[k] for r in results.values() if r.completeness is not None]
    return "".join(f", completeness error {error:.2g}" for error in errors)


def _tiles(results: Mapping[str, Explanation], index: int, k: int, settings: Settings) -> list[tuple[str, Image.Image]]:
    """Return the columns of a contact sheet: the image as the model saw it, and the methods in the registry's order.

    Gradients are clipped, so that they can be seen at this size; figures of a single method are not.
    """
    view = next(iter(results.values())).images[index].view
    tiles = [("Input", Image.fromarray(rgb(view)))]
    for name, method in METHODS.items():
        if name not in results:
            continue
        result = results[name][index]
        if method.is_map:
            figure = result.overlays(settings.colormap, settings.alpha)[k]
        else:
            values = result.attributions.reshape(-1, *result.attributions.shape[-3:])
            figure = gradient_figures(clip_gradients(values[k : k + 1]))[0]
        tiles.append((method.title, figure))
    return tiles
