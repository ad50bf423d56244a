"""Many image files: find them, explain them batch by batch, write the pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from . import output
from .decode import extensions
from .errors import ImageError, OutputError, SeewhyError
from .explainer import Explainer
from .explanation import Explanation, class_name
from .methods import METHODS
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
    batch_size: int = 32
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


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
) -> Iterator[Outcome]:
    """Explain each file and write its pictures below `folder`; yield what became of it, in order.

    An image that cannot be read, or for which the model produces NaN, is an `Outcome` with an error, and the others
    go on. Methods of many passes take one image at a time, so that it is finished before the next begins; `progress`
    is called as progress(done, total) with the number of passes for the image in work.

    Raises:
        SeewhyError: what concerns all images: a wrong target or method, or a folder that cannot be written.
    """
    settings = replace(settings, targets=_classes(explainer, settings.targets))
    target = output.Folder(folder, [item.path for item in found])
    names = output.plan([item.relative for item in found])
    many = any(method.passes is not None for name, method in METHODS.items() if name in settings.methods)
    step = 1 if many else settings.batch_size
    for start in range(0, len(found), step):
        part = slice(start, start + step)
        yield from _explain_batch(explainer, found[part], names[part], target, settings, progress)


def _classes(explainer: Explainer, targets: Sequence[int | str]) -> list[int]:
    """The classes asked for, each once, however it was named."""
    if not targets:
        return []
    return list(dict.fromkeys(resolve([list(targets)], 1, explainer.metadata.classes, explainer.labels)[0].tolist()))


def _explain_batch(
    explainer: Explainer,
    found: Sequence[Found],
    names: Sequence[PurePath],
    folder: output.Folder,
    settings: Settings,
    progress: Callable[[int, int], object] | None,
) -> Iterator[Outcome]:
    loaded: list[Photograph | SeewhyError] = [_load(explainer, item.path) for item in found]
    good = [i for i, photo in enumerate(loaded) if isinstance(photo, Photograph)]
    results: dict[int, tuple[dict[str, Explanation], int] | SeewhyError] = {
        i: photo for i, photo in enumerate(loaded) if isinstance(photo, SeewhyError)
    }
    try:
        together = _explain(explainer, [loaded[i] for i in good], settings, progress)
        results.update({i: (together, row) for row, i in enumerate(good)})
    except OutputError as one_of_them:  # its numbers are not finite: explain each by itself to find out which it is
        for i in good:
            try:
                if len(good) == 1:
                    raise one_of_them
                results[i] = (_explain(explainer, [loaded[i]], settings, progress), 0)
            except OutputError as error:
                results[i] = OutputError(f"{found[i].path}: {error}")
    for i, (item, name) in enumerate(zip(found, names, strict=True)):
        result = results[i]
        if isinstance(result, SeewhyError):
            yield Outcome(item.path, error=result)
        else:
            yield Outcome(item.path, _save(explainer, result[0], result[1], name, folder, settings))


def _load(explainer: Explainer, path: Path) -> Photograph | SeewhyError:
    try:
        return photograph(path, explainer.metadata)
    except ImageError as error:
        return error


def _explain(
    explainer: Explainer,
    photos: Sequence[Any],
    settings: Settings,
    progress: Callable[[int, int], object] | None,
) -> dict[str, Explanation]:
    if not photos:
        return {}
    targets = list(settings.targets)
    target: Any = None if not targets else targets[0] if len(targets) == 1 else [targets] * len(photos)
    return explainer.explain(
        list(photos),
        list(settings.methods),
        target=target,
        top=settings.top,
        batch_size=settings.batch_size,
        options=settings.options,
        progress=progress,
    )


def _save(
    explainer: Explainer,
    results: dict[str, Explanation],
    image: int,
    name: PurePath,
    folder: output.Folder,
    settings: Settings,
) -> list[Answer]:
    """Write one image's pictures and numbers; return one answer for each class explained."""
    paths: dict[str, list[Path]] = {}
    for method, result in results.items():
        pictures = result.only(image).pictures(settings.colormap, settings.alpha, settings.canvas)
        paths[method] = output.save_method(folder, name, result, image, pictures, settings.raw)
    first = next(iter(results.values()))
    classes = first.targets_of(image)
    answers = []
    for k, index in enumerate(classes):
        label, score = class_name(index, first.classes), first.score(image, index)
        picture = paths[first.method][k]
        if len(results) > 1:
            tiles = _tiles(results, image, k, settings)
            note = f"{explainer.metadata.model.name} · {Path(first.photographs[image].name).name}"
            suffix = f"sheet.{index}" if first.targets.ndim == 2 else "sheet"
            picture = output.save_picture(folder, name, suffix, contact_sheet(tiles, label, score, note))
        answers.append(Answer(label, score + _completeness(results, image, k), picture))
    return answers


def _completeness(results: Mapping[str, Explanation], image: int, k: int) -> str:
    """How far attributions are from adding up, in words, where a method says so."""
    errors = [np.atleast_1d(r.completeness[image])[k] for r in results.values() if r.completeness is not None]
    return "".join(f", completeness error {error:.2g}" for error in errors)


def _tiles(results: dict[str, Explanation], image: int, k: int, settings: Settings) -> list[tuple[str, Image.Image]]:
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
