"""Decide whether a job may go on in an output folder, and clear away what no line of the manifest refers to."""

from __future__ import annotations

import os
from pathlib import Path

from seewhy.errors import OutputError
from seewhy.storage import provenance
from seewhy.storage.format_names import SHARD_FORMATS
from seewhy.storage.manifest import Manifest
from seewhy.storage.manifest_lines import NAME as MANIFEST
from seewhy.storage.output_folder import Folder
from seewhy.tables import shard_files


def forget(folder: Folder) -> None:
    """Delete what remembers earlier runs. The manifest goes first: without it a shard counts for nothing.

    What another program may have left stays.

    Raises:
        OutputError: If `run.json` is another program's, or something cannot be deleted.
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
        raise OutputError(f"{inside}: a link, which may lead out of the output folder; choose another output folder")
    endings = {f".{form}" for form in SHARD_FORMATS}
    try:
        there = [Path(path) for path in os.scandir(inside)]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:  # it is unknown whether shards are missing
        raise OutputError(f"{inside}: cannot be listed: {error.strerror or error}") from None
    return sorted(path for path in there if path.suffix in endings and _is_number(path.stem))


def _is_number(stem: str) -> bool:
    """Tell whether this is a shard's number as a job writes it: 00007, but not 2024."""
    return stem.isascii() and stem.isdecimal() and len(stem) < 20 and stem == f"{int(stem):05}"


def check_new(folder: Path) -> None:
    """Refuse a folder that has results but no `run.json`, which another program may have made.

    Raises:
        OutputError: If there is a manifest or a shard.
    """
    manifest = folder / MANIFEST
    there = [manifest] if os.path.lexists(manifest) and manifest.stat(follow_symlinks=False).st_size else []
    for path in [*there, *_shards(folder)]:
        raise OutputError(
            f"{path}: there is no {provenance.NAME} that says how these results were made, perhaps by another "
            f"program; choose another output folder, or delete them yourself"
        )


def check_manifest(folder: Path, before: provenance.Facts) -> None:
    """Refuse a folder whose manifest is gone or empty, so that everything would be done again.

    Raises:
        OutputError: If there are results that a manifest must have listed.
    """
    path = folder / MANIFEST
    is_there = os.path.lexists(path)
    if is_there and path.stat(follow_symlinks=False).st_size:
        return
    counted = provenance.image_count(before)
    found = f"{provenance.NAME} counts {counted} images" if counted else ""
    if not is_there:  # an empty one may be of a run that was killed before its first line
        found = found or next((f"there is {shard.relative_to(folder)}" for shard in _shards(folder)), "")
    if found:
        state = "is empty" if is_there else "is gone"
        raise OutputError(f"{path}: {state}, though {found}; put it back, or start anew with --restart")


def delete_unknown_shards(folder: Path, manifest: Manifest) -> None:
    """Delete shards that no line refers to: the run ended before their lines were written, or lines were removed."""
    there = [path for path in _shards(folder) if path.is_file()]
    _delete(*(path for path in there if path.relative_to(folder).as_posix() not in manifest.shards))
