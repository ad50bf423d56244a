"""Check whether a job may resume in an output folder, and delete shards that no line of the manifest names."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from itertools import takewhile
from pathlib import Path

from seewhy._shared.temp_tables import explained
from seewhy.errors import OutputError
from seewhy.inputs.image_inputs import Inputs
from seewhy.storage import provenance
from seewhy.storage.format_names import SHARD_FORMATS
from seewhy.storage.manifest import Manifest
from seewhy.storage.manifest_lines import NAME as MANIFEST
from seewhy.storage.output_folder import Folder
from seewhy.storage.recorded_paths import RecordedPaths
from seewhy.tables import shard_files


def delete_records(folder: Folder) -> None:
    """Delete the manifest, the shards and `run.json` of earlier attempts.

    The manifest is deleted first, because shards are not valid without it. Nothing is deleted if the folder has no
    `run.json`, because the files may then be another program's.

    Args:
        folder: The output folder.

    Raises:
        OutputError: If `run.json` belongs to another program, or a file cannot be deleted.
    """
    try:
        if provenance.read(folder.path) is None:
            return
    except provenance.Damaged:
        pass
    _delete(folder.path / MANIFEST, *_shards(folder.path), folder.path / provenance.NAME)


def _delete(*paths: Path) -> None:
    for path in paths:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise OutputError(f"{path}: cannot be deleted: {error.strerror or error}") from None


def _shards(folder: Path) -> list[Path]:
    inside = folder / shard_files.FOLDER
    if inside.is_symlink():
        raise OutputError(f"{inside}: is a link, which may lead out of the output folder; choose another output folder")
    extensions = {f".{form}" for form in SHARD_FORMATS}
    try:
        paths = [Path(path) for path in os.scandir(inside)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:  # shards may exist, but cannot be listed
        raise OutputError(f"{inside}: cannot be listed: {error.strerror or error}") from None
    return sorted(path for path in paths if path.suffix in extensions and _is_number(path.stem))


def _is_number(stem: str) -> bool:
    """Return whether this is the number of a shard as a job writes it: 00007, but not 2024."""
    return stem.isascii() and stem.isdecimal() and len(stem) < 20 and stem == f"{int(stem):05}"


def check_new(folder: Path) -> None:
    """Refuse a folder that has results but no `run.json`, because another program may have written them.

    Args:
        folder: The output folder, which has no `run.json`.

    Raises:
        OutputError: If the folder has a manifest that is not empty, or a shard.
    """
    manifest = folder / MANIFEST
    results = [manifest] if os.path.lexists(manifest) and manifest.stat(follow_symlinks=False).st_size else []
    for path in [*results, *_shards(folder)]:
        raise OutputError(
            f"{path}: the folder has no {provenance.NAME} that records how this file was made, so it may be another "
            f"program's; choose another output folder, or delete the file yourself"
        )


def check_manifest(folder: Path, before: provenance.Facts) -> None:
    """Refuse a folder whose manifest is gone or empty, because all images would be explained again.

    Args:
        folder: The output folder.
        before: The content of its `run.json`.

    Raises:
        OutputError: If the folder has results that the manifest should list.
    """
    path = folder / MANIFEST
    exists = os.path.lexists(path)
    if exists and path.stat(follow_symlinks=False).st_size:
        return
    counted = provenance.image_count(before)
    found = f"{provenance.NAME} counts {counted} images" if counted else ""
    if not exists:  # an empty manifest may be left by a job that was killed before its first line
        found = found or next((f"{shard.relative_to(folder)} exists" for shard in _shards(folder)), "")
    if found:
        state = "is empty" if exists else "is gone"
        raise OutputError(f"{path}: {state}, although {found}; restore it, or start over with --restart")


def find_images(
    folder: Path, before: provenance.Facts, manifest: Manifest, inputs: Inputs, should_stop: Callable[[], bool]
) -> None:
    """Find the folder that relative paths in a manifest start from, so that the same files count as the same images.

    The job may be resumed from another folder, and the images may have been moved: together with the output folder and
    without a change of their sizes, or alone and without a change of their sizes and modification times.

    Args:
        folder: The output folder.
        before: Content of its `run.json`.
        manifest: The manifest. Its attribute `paths` is set.
        inputs: The images that are given now.
        should_stop: Function that returns whether to stop comparing.

    Raises:
        OutputError: If the paths of other images are those of recorded ones, from another folder.
    """
    known = provenance.bases(before, folder)
    current = os.getcwd() if inputs.relative else "/"
    if not known or current == known[0]:
        manifest.paths = RecordedPaths(current if inputs.relative else None, current)
        return
    for base in dict.fromkeys(known):
        manifest.paths = RecordedPaths(base, current)
        found = {*_comparisons(manifest, inputs, should_stop, sizes_only=True)} - {None}
        # Below another base, the same path may mean another image. Copies have the sizes of their originals, not always
        # their times.
        if False in found and base != known[0]:
            raise _other_images(folder, known[0], base)
        if found:
            return
    if inputs.relative and current not in known:
        # Here the same path may mean another image, so every file must be the same.
        manifest.paths = RecordedPaths(current, current)
        found = {*_comparisons(manifest, inputs, should_stop)} - {None}
        if found == {True} and not should_stop():
            return
        if False in found:
            raise _other_images(folder, known[0], current)
    manifest.paths = RecordedPaths(known[0], current)


def _other_images(folder: Path, recorded: str, base: str) -> OutputError:
    return OutputError(
        f"{folder}: holds results of other images: its relative paths start at {recorded}, and the same paths from "
        f"{base} lead to other or changed files; run the command in the first folder, or choose another output folder"
    )


def _comparisons(
    manifest: Manifest, inputs: Inputs, should_stop: Callable[[], bool], sizes_only: bool = False
) -> Iterator[bool | None]:
    """Yield for each file and archive whether it is as it was recorded; None if it is not recorded."""
    try:
        for image in takewhile(lambda _: not should_stop(), inputs.files()):
            yield manifest.is_same(image.key, image.path, sizes_only)
        for archive in inputs.archives():
            yield manifest.is_same_archive(archive, sizes_only)
    except sqlite3.OperationalError as error:
        raise explained(error) from None


def delete_unknown_shards(folder: Path, manifest: Manifest) -> None:
    """Delete shards that no line names: the job ended before their lines were written, or lines were removed."""
    files = [path for path in _shards(folder) if path.is_file()]
    _delete(*(path for path in files if path.relative_to(folder).as_posix() not in manifest.shards))
