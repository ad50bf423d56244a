"""Many image files: find them, explain them batch by batch, write the pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from . import output, pipeline
from .decode import extensions
from .errors import ImageError, OutputError, SeewhyError
from .explainer import Explainer
from .explanation import Explanation, class_name
from .layout import BATCH_SIZE, share
from .methods import METHODS
from .pipeline import Stage
from .preprocess import Photograph, photograph
from .render import clip_gradients, gradient_pictures, rgb
from .sheet import contact_sheet
from .targets import resolve


@dataclass(frozen=True)
class Found:
    """An image file to explain."""

    path: Path
    relative: PurePath
    """Where its results belong below the output folder, with its own name still."""


@dataclass(frozen=True)
class Settings:
    """What to make of each image; see `Explainer.explain` and `Explanation.overlays`."""

    methods: Sequence[str] = ("gradcam",)
    targets: Sequence[int | str] = ()
    """None given: the predicted class. One: that class. Several: each of them."""
    top: int | None = None
    raw: bool = False
    colormap: str = "jet"
    alpha: float = 0.5
    canvas: str = "model"
    batch_size: int = BATCH_SIZE
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    encoding: output.Encoding = output.PNG


@dataclass(frozen=True)
class Answer:
    """One class explained for one image."""

    label: str
    score: str
    """Its probability or logit in words, and how far integrated gradients are from adding up, where they were asked."""
    picture: Path
    """The picture to look at first: the contact sheet where there is one."""


@dataclass(frozen=True)
class Outcome:
    """What became of one image: answers, or an error."""

    path: Path
    answers: Sequence[Answer] = ()
    error: SeewhyError | None = None


def find_images(paths: Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str]) -> list[Found]:
    """List files as they are given, and in folders every image, recursively and sorted; each file once.

    `folder`, the output folder, is left out where it lies inside one of the input folders.

    Raises:
        ImageError: a folder holds no images, or cannot be listed.
        OutputError: the output folder is one of the input folders, so that results would become inputs.
    """
    avoid = Path(folder).resolve()
    found: dict[Path, Found] = {}
    for path in map(Path, paths):
        if path.is_dir():
            if path.resolve() == avoid:
                raise OutputError(f"{folder}: the output folder is an input folder too; choose another output folder")
            inside = [Found(file, file.relative_to(path)) for file in _walk(path, avoid)]
            if not inside:
                raise ImageError(f"{path}: the folder holds no images")
        else:
            inside = [Found(path, PurePath(path.name))]
        for item in inside:
            found.setdefault(item.path.resolve(), item)
    return list(found.values())


def _walk(folder: Path, avoid: Path) -> Iterator[Path]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise ImageError(f"{folder}: cannot be listed: {error.strerror or error}") from None
    for entry in entries:
        if entry.is_dir():
            # A link to a folder could lead in circles.
            if not entry.is_symlink() and entry.resolve() != avoid:
                yield from _walk(entry, avoid)
        elif entry.suffix.lower() in extensions():
            yield entry


def explain_files(
    explainer: Explainer,
    found: Sequence[Found],
    folder: str | os.PathLike[str],
    settings: Settings,
    progress: Callable[[int, int], object] | None = None,
) -> Generator[Outcome, None, None]:
    """Explain each file and write its pictures below `folder`; yield what became of it, in order.

    Reading, running the graph and writing overlap, on as many threads as the explainer has for one run. Close the
    iterator to stop early: what is in work is finished first. An image that cannot be read, or for which the model
    produces NaN, is an `Outcome` with an error, and the others go on. Methods of many passes take one image at a time,
    so that it is finished before the next begins; `progress` is called as progress(done, total) with the number of
    passes for the image in work, by another thread.

    Raises:
        SeewhyError: what concerns all images: a wrong target or method, or a folder that cannot be written.
    """
    settings = replace(settings, targets=_classes(explainer, settings.targets))
    target = output.Folder(folder, [item.path for item in found])
    names = output.plan([item.relative for item in found])
    many = any(method.passes is not None for name, method in METHODS.items() if name in settings.methods)
    layout = share(len(found), explainer.threads, settings.batch_size, explainer.providers[0], many)
    if layout.run_threads is not None:
        explainer = explainer.with_threads(layout.run_threads)
    steps = _Steps(explainer, target, settings, progress)
    stages = [Stage(steps.load), Stage(steps.explain, layout.size, layout.runs), Stage(steps.save)]
    items = (_Item(item.path, name) for item, name in zip(found, names, strict=True))
    yield from pipeline.run(items, stages, layout.threads, layout.window)


def _classes(explainer: Explainer, targets: Sequence[int | str]) -> list[int]:
    """The classes asked for, each once, however it was named."""
    if not targets:
        return []
    return list(dict.fromkeys(resolve([list(targets)], 1, explainer.metadata.classes, explainer.labels)[0].tolist()))


@dataclass(frozen=True)
class _Item:
    """An image on its way."""

    path: Path
    name: PurePath
    """Of its results, below the output folder."""
    photograph: Photograph | None = None
    results: Mapping[str, Explanation] = field(default_factory=dict)
    """By method, for all images of its run; those are the run's alone, and go when its last image is written."""
    row: int = 0
    """Which of them it is."""
    error: SeewhyError | None = None
    """What is wrong with it; it passes the other steps as it is."""


@dataclass(frozen=True)
class _Steps:
    """What happens to an image, step by step. Each takes images, and returns as many; threads call them at once."""

    explainer: Explainer
    folder: output.Folder
    settings: Settings
    progress: Callable[[int, int], object] | None

    def load(self, items: Sequence[_Item]) -> list[_Item]:
        """Decode and resize."""
        return [self._load(item) for item in items]

    def _load(self, item: _Item) -> _Item:
        try:
            return replace(item, photograph=photograph(item.path, self.explainer.metadata))
        except ImageError as error:
            return replace(item, error=error)

    def explain(self, items: Sequence[_Item]) -> list[_Item]:
        """Run the graph for all of them together."""
        good = [item for item in items if item.error is None]
        explained = iter(self._explain(good))
        return [item if item.error is not None else next(explained) for item in items]

    def _explain(self, items: Sequence[_Item]) -> list[_Item]:
        if not items:
            return []
        targets = list(self.settings.targets)
        target: Any = None if not targets else targets[0] if len(targets) == 1 else [targets] * len(items)
        try:
            results = self.explainer.explain(
                [item.photograph for item in items],
                list(self.settings.methods),
                target=target,
                top=self.settings.top,
                batch_size=self.settings.batch_size,
                options=self.settings.options,
                progress=self.progress,
            )
        except OutputError as error:  # its numbers are not finite
            if len(items) == 1:
                return [replace(items[0], error=OutputError(f"{items[0].path}: {error}"))]
            # Each by itself, to find out which it is.
            return [done for item in items for done in self._explain([item])]
        return [replace(item, photograph=None, results=results, row=row) for row, item in enumerate(items)]

    def save(self, items: Sequence[_Item]) -> list[Outcome]:
        """Draw, encode and write."""
        return [self._save(item) for item in items]

    def _save(self, item: _Item) -> Outcome:
        if item.error is not None:
            return Outcome(item.path, error=item.error)
        try:
            return Outcome(item.path, self._write(item))
        except ImageError as error:  # it has changed since it was read, or is too large for the format
            return Outcome(item.path, error=error)

    def _write(self, item: _Item) -> list[Answer]:
        """Write one image's pictures and numbers; return one answer for each class explained."""
        settings, results, image = self.settings, item.results, item.row
        paths: dict[str, list[Path]] = {}
        for method, result in results.items():
            pictures = result.only(image).pictures(settings.colormap, settings.alpha, settings.canvas)
            paths[method] = output.save_method(
                self.folder, item.name, result, image, pictures, settings.raw, settings.encoding
            )
        first = next(iter(results.values()))
        answers = []
        for k, index in enumerate(first.targets_of(image)):
            label, score = class_name(index, first.classes), first.score(image, index)
            picture = paths[first.method][k]
            if len(results) > 1:
                tiles = _tiles(results, image, k, settings)
                note = f"{self.explainer.metadata.model.name} · {item.path.name}"
                suffix = f"sheet.{index}" if first.targets.ndim == 2 else "sheet"
                sheet = contact_sheet(tiles, label, score, note)
                picture = output.save_picture(self.folder, item.name, suffix, sheet, settings.encoding)
            answers.append(Answer(label, score + _completeness(results, image, k), picture))
        return answers


def _completeness(results: Mapping[str, Explanation], image: int, k: int) -> str:
    """How far attributions are from adding up, in words, where a method says so."""
    errors = [np.atleast_1d(r.completeness[image])[k] for r in results.values() if r.completeness is not None]
    return "".join(f", completeness error {error:.2g}" for error in errors)


def _tiles(results: Mapping[str, Explanation], image: int, k: int, settings: Settings) -> list[tuple[str, Image.Image]]:
    """The sheet's columns: the photograph as the model saw it, then the methods in the table's order, on that view.

    Gradients are clipped, so that they can be seen at this size; the pictures of their own are not.
    """
    photo = next(iter(results.values())).photographs[image]
    tiles = [("Photograph", Image.fromarray(rgb(photo.view)))]
    for name, method in METHODS.items():
        if name not in results:
            continue
        result = results[name].only(image)
        if method.is_map:
            picture = result.overlays(settings.colormap, settings.alpha)[k]
        else:
            values = result.attributions.reshape(-1, *result.attributions.shape[-3:])
            picture = gradient_pictures(clip_gradients(values[k : k + 1]))[0]
        tiles.append((method.title, picture))
    return tiles
