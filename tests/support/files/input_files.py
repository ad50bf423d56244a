"""Helpers that write input files, list the inputs that the engine finds, and compare their names."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path, PurePath
from types import SimpleNamespace
from typing import Any

from seewhy.bulk.outcomes import ImageTask
from seewhy.bulk.pending_images import pending_images
from seewhy.inputs.image_inputs import Inputs


def put(folder: Path, *names: str) -> Path:
    """Write small files with these names and return their folder."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    return folder


def found(*paths: object, lists: tuple[object, ...] = (), out: object = "/nowhere/out") -> list[Any]:
    """Return the inputs found for these paths and lists, each with its result name as `name`."""
    inputs = Inputs([os.fspath(p) for p in paths], out, [os.fspath(p) for p in lists])  # type: ignore[call-overload]
    return [with_name(task) for task in pending_images(inputs)]


def with_name(task: ImageTask) -> Any:
    """Return the fields of a task's input, together with its key and its result name."""
    return SimpleNamespace(**vars(task.input), name=task.result_name, key=task.input.key)


def names(folder: Path, inputs: list[Any]) -> list[str]:
    """Return the paths of inputs relative to a folder."""
    return [os.path.relpath(each.path, folder) for each in inputs]


def in_order(paths: list[str]) -> list[str]:
    """Sort paths by the bytes of their components."""
    return sorted(paths, key=lambda path: [os.fsencode(part) for part in PurePath(path).parts])


def tar(*files: tuple[str, bytes]) -> bytes:
    """Return a tar archive of the given (name, content) pairs."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def written(folder: Path, content: str, name: str = "list.csv") -> Path:
    """Write an image list and return its path."""
    path = folder / name
    path.write_bytes(content.encode("utf-8", "surrogateescape"))
    return path
