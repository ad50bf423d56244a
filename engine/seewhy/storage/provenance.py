"""`run.json`: model, settings, versions and inputs from which the results of an output folder were made."""

from __future__ import annotations

import datetime
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnxruntime
import PIL

from seewhy._shared.regular_files import open_regular
from seewhy._shared.text import printable
from seewhy._version import __version__
from seewhy.errors import OutputError

NAME = "run.json"
SCHEMA = 2

Facts: TypeAlias = "dict[str, Any]"
"""Content of `run.json`."""


class Damaged(OutputError):
    """A `run.json` that is damaged."""


# Values that may differ when a job is resumed.
_MAY_DIFFER = ("started", "ended", "images", "scales", *(_BASE := ("relative_to", "from_output")))
# Maximum length of a value in an error message, in characters.
_LONGEST = 300
# Maximum size of the file, in bytes. The metadata of a model file has at most some megabytes.
_LARGEST = 64 * 2**20


def software_versions() -> dict[str, str]:
    """Return the versions of the software that affects the numbers, by name."""
    return {
        "seewhy": __version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def utc_now() -> str:
    """Return the current time in ISO 8601, in UTC and in seconds."""
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def read(folder: Path) -> Facts | None:
    """Read the `run.json` of an output folder.

    Args:
        folder: The output folder.

    Returns:
        Content of the file, or None if it does not exist.

    Raises:
        Damaged: If the file is damaged.
        OutputError: If the file cannot be read, or is not from SeeWhy.
    """
    path = folder / NAME
    try:
        with open_regular(path) as file:
            too_large = os.fstat(file.fileno()).st_size > _LARGEST
            facts: Facts | None = None if too_large else json.loads(file.read())
    except FileNotFoundError:
        return None
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{path}: cannot be read: {reason}; choose another output folder") from None
    except (ValueError, RecursionError):
        facts = None
    if facts is None:
        raise Damaged(f"{path}: damaged; start again with --restart, or choose another output folder")
    if not _is_ours(facts):
        raise OutputError(f"{path}: not written by SeeWhy but by another program; choose another output folder")
    return facts


def _is_ours(facts: Any) -> bool:
    """Return True if SeeWhy wrote this. Other programs may also write a file named `run.json`."""
    versions = facts.get("versions") if isinstance(facts, dict) else None
    return isinstance(versions, dict) and "seewhy" in versions and "schema" in facts


def check_resumable(folder: Path, before: Facts, facts: Facts) -> None:
    """Check that a job can resume in an output folder, and copy the time of its start.

    Args:
        folder: The output folder.
        before: Content of its `run.json`.
        facts: Content of the new `run.json`. It is changed in place: `started` is copied from `before`.

    Raises:
        OutputError: If the existing results were made with other settings, models, software or inputs. The message
            names the first difference.
    """
    facts["started"] = before.get("started", utc_now())
    # Convert both to JSON and back, so that their values have the same types.
    old, new = (_flat(json.loads(json.dumps(_fixed(each)))) for each in (before, facts))
    for name in dict.fromkeys((*new, *old)):
        if old.get(name) != new.get(name):
            raise OutputError(
                f"{folder}: holds results of another job: {printable(name)} was {_short(old.get(name))} and is "
                f"{_short(new.get(name))} now; choose another output folder, or start again there with --restart"
            )


def image_count(facts: Facts) -> int:
    """Count the images that were recorded when `run.json` was written.

    Args:
        facts: Content of `run.json`.

    Returns:
        Number of images, including those that failed.

    Raises:
        Damaged: If the numbers are not valid.
    """
    images = facts.get("images")
    counts: list[Any] = list(images.values()) if isinstance(images, dict) else [None]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise Damaged(f"{NAME}: damaged: it counts images as {_short(images)}; start again with --restart")
    return int(sum(counts))


def scales(facts: Facts, methods: Sequence[str]) -> dict[str, float] | None:
    """Return the common scales of figures that an earlier attempt computed.

    Args:
        facts: Content of `run.json`.
        methods: Names of the job's methods.

    Returns:
        Positive number by method, or None if the attempt ended before it had computed them.

    Raises:
        Damaged: If the numbers are not valid.
    """
    found = facts.get("scales")
    if found is None:
        return None
    if not isinstance(found, dict) or not all(
        type(found.get(name)) is float and 0 < found[name] < math.inf for name in methods
    ):
        raise Damaged(f"{NAME}: damaged: its scales are {_short(found)}; start again with --restart")
    return {name: found[name] for name in methods}


def base_facts(base: str, folder: Path) -> Facts:
    """Return the folder that relative paths in the manifest start from, as an absolute path and from the output folder.

    If the output folder and the images are moved together, the second path still leads to the images.
    """
    return dict(zip(_BASE, (base, os.path.relpath(base, os.path.realpath(folder))), strict=True))


def bases(facts: Facts, folder: Path) -> list[str]:
    """Return the folders that relative paths in the manifest may start from.

    Args:
        facts: Content of `run.json`.
        folder: The output folder.

    Returns:
        Absolute paths, the recorded one first; empty if all paths are absolute.

    Raises:
        Damaged: If the values are not valid.
    """
    texts = [facts[name] for name in _BASE if name in facts]
    if not all(isinstance(text, str) and text and "\0" not in text for text in texts):
        raise Damaged(f"{NAME}: damaged: relative paths start at {_short(texts)}; start again with --restart")
    return [os.path.normpath(os.path.join(os.path.realpath(folder), text)) for text in texts]


def encoded(facts: Facts) -> bytes:
    """Return the bytes of `run.json`."""
    return (json.dumps(facts, indent=2) + "\n").encode()


def _fixed(facts: Mapping[str, Any]) -> Facts:
    """Return the values that must not differ when a job is resumed."""
    return {name: value for name, value in facts.items() if name not in _MAY_DIFFER}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """Flatten nested dicts: {"a": {"b": 1}} becomes {"a.b": 1}."""
    if not isinstance(value, dict) or not value:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat.update(_flat(part, f"{name}.{key}" if name else str(key)))
    return flat


def _short(value: Any) -> str:
    """Return a value as one line of text, long enough to distinguish two hashes or paths."""
    text = printable(repr(value))
    return "not given" if value is None else text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
