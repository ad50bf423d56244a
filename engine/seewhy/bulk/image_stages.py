"""Stages of an image for `thread_pipeline.py`: load, explain, save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seewhy._shared.regular_files import file_stamp
from seewhy.bulk.outcomes import ExplainedClass, ImageTask, Outcome
from seewhy.bulk.settings import Settings
from seewhy.errors import ImageError, NonFiniteError, SeewhyError, TargetError
from seewhy.explainer.explainer import Explainer
from seewhy.explainer.explanation import Explanation, class_name
from seewhy.images.preprocessing import load_image
from seewhy.methods.registry import METHODS
from seewhy.storage import output_folder, result_files
from seewhy.tables import result_rows
from seewhy.targets.class_targets import resolve_targets
from seewhy.visualization.contact_sheet import contact_sheet
from seewhy.visualization.overlays import clip_gradients, gradient_figures, rgb


@dataclass(frozen=True)
class ImageStages:
    """What happens to an image, step by step. Each takes images, and returns as many; threads call them at once."""

    explainer: Explainer
    folder: output_folder.Folder | None
    """For pictures; None where there are only rows."""
    settings: Settings
    progress: Callable[[int, int], object] | None

    def load(self, items: Sequence[ImageTask]) -> list[ImageTask]:
        """Decode and resize.

        Raises:
            TargetError: a list asks for an image's class, and the settings for several.
        """
        return [self._load(item) for item in items]

    def _load(self, item: ImageTask) -> ImageTask:
        asked, settings, metadata = item.input.target, self.settings, self.explainer.metadata
        if isinstance(item.input.image, Path):
            item = replace(item, input=replace(item.input, stamp=file_stamp(item.input.path)))
        if asked is not None and (settings.top is not None or len(settings.targets) > 1):
            raise TargetError(
                f"{item.input.path}: the list asks for {asked!r}, and the run for several classes of each image; leave "
                f"one of them out"
            )
        try:
            if item.input.error is not None:
                raise item.input.error
            target = None if asked is None else int(resolve_targets(asked, 1, metadata.class_count, metadata.labels)[0])
            keep = settings.canvas == "original"
            read = load_image(item.input.image, metadata, item.input.path, settings.fast_decode, keep)
            if not keep:
                # A member's file would wait in memory until its picture is written, and is not looked at again.
                item = replace(item, input=replace(item.input, content=None))
            return replace(item, photograph=read, target=target)
        except TargetError as error:
            return item.failed(TargetError(f"{item.input.path}: {error}"))
        except ImageError as error:
            return item.failed(error)

    def explain(self, items: Sequence[ImageTask]) -> list[ImageTask]:
        """Run the graph for all of them together."""
        good = [item for item in items if item.error is None]
        explained = iter(self._explain(good))
        return [item if item.error is not None else next(explained) for item in items]

    def _explain(self, items: Sequence[ImageTask]) -> list[ImageTask]:
        if not items:
            return []
        try:
            results = self.explainer.explain(
                [item.photograph for item in items],
                list(self.settings.methods),
                target=self._targets(items),
                top=self.settings.top,
                batch_size=self.settings.batch_size,
                options=self.settings.options,
                progress=self.progress,
            )
        except NonFiniteError as error:
            if len(items) == 1:
                return [items[0].failed(NonFiniteError(f"{items[0].input.path}: {error}"))]
            # Each by itself, to find out which it is.
            return [done for item in items for done in self._explain([item])]
        return [replace(item, photograph=None, results=results, row=row) for row, item in enumerate(items)]

    def _targets(self, items: Sequence[ImageTask]) -> Any:
        """As `Explainer.explain` takes them."""
        targets = list(self.settings.targets)
        if len(targets) > 1:
            return [targets] * len(items)
        if not targets and all(item.target is None for item in items):
            return None  # `top` may be asked for instead
        asked = targets[0] if targets else None
        return [asked if item.target is None else item.target for item in items]

    def save(self, items: Sequence[ImageTask]) -> list[Outcome]:
        """Draw, encode and write; or keep the rows for a shard."""
        return [self._save(item) for item in items]

    def _save(self, item: ImageTask) -> Outcome:
        if item.error is not None:
            return self._failed(item, item.error)
        path = Path(item.input.path)
        try:
            record = result_rows.success_record(item.input, item.results, item.row)
            if self.settings.shards is not None:
                rows = result_rows.result_rows(item.results, item.row, self.settings.full_size)
                return Outcome(path, record=record, rows=rows)
            files, explained = self._write(item)
            return Outcome(path, explained, record=record, files=files)
        except (ImageError, TargetError) as error:  # it may have changed since it was read, or suit the format ill
            return self._failed(item, error)

    @staticmethod
    def _failed(item: ImageTask, error: SeewhyError) -> Outcome:
        return Outcome(Path(item.input.path), error=error, record=result_rows.failure_record(item.input, error))

    def _write(self, item: ImageTask) -> tuple[list[output_folder.WrittenFile], list[ExplainedClass]]:
        """Write one image's pictures and numbers; return the files, and an answer for each class explained."""
        assert self.folder is not None
        settings, results, image = self.settings, item.results, item.row
        written: dict[str, list[output_folder.WrittenFile]] = {}
        for method, result in results.items():
            pictures = result.only(image).figures(settings.colormap, settings.alpha, settings.canvas)
            arrays = result.arrays_of(image) if settings.raw else None
            own = result.with_classes(image, pictures)
            written[method] = result_files.save_figures(
                self.folder, item.input.name, method, own, arrays, settings.encoding
            )
        first = next(iter(results.values()))
        files = [file for saved in written.values() for file in saved]
        explained: list[ExplainedClass] = []
        for k, index in enumerate(first.targets_of(image)):
            label, score = class_name(index, first.class_labels), first.score_text(image, index)
            picture = written[first.method][k]
            if len(results) > 1:
                tiles = _tiles(results, image, k, settings)
                note = f"{self.explainer.metadata.model.name} · {item.input.short}"
                suffix = f"sheet.{index}" if first.targets.ndim == 2 else "sheet"
                sheet = contact_sheet(tiles, label, score, note)
                picture = result_files.save_figure(self.folder, item.input.name, suffix, sheet, settings.encoding)
                files.append(picture)
            explained.append(ExplainedClass(label, score + _completeness(results, image, k), picture.path))
        return files, explained


def _completeness(results: Mapping[str, Explanation], image: int, k: int) -> str:
    """How far attributions are from adding up, in words, where a method says so."""
    errors = [np.atleast_1d(r.completeness[image])[k] for r in results.values() if r.completeness is not None]
    return "".join(f", completeness error {error:.2g}" for error in errors)


def _tiles(results: Mapping[str, Explanation], image: int, k: int, settings: Settings) -> list[tuple[str, Image.Image]]:
    """The sheet's columns: the photograph as the model saw it, then the methods in the table's order, on that view.

    Gradients are clipped, so that they can be seen at this size; the pictures of their own are not.
    """
    photo = next(iter(results.values())).images[image]
    tiles = [("Photograph", Image.fromarray(rgb(photo.view)))]
    for name, method in METHODS.items():
        if name not in results:
            continue
        result = results[name].only(image)
        if method.is_map:
            picture = result.overlays(settings.colormap, settings.alpha)[k]
        else:
            values = result.attributions.reshape(-1, *result.attributions.shape[-3:])
            picture = gradient_figures(clip_gradients(values[k : k + 1]))[0]
        tiles.append((method.title, picture))
    return tiles
