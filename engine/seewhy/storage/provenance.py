"""`run.json`: what the results of an output folder were made of, for whoever has to answer for them."""

from __future__ import annotations

import datetime
import json
import os
from collections.abc import Mapping
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


class Damaged(OutputError):
    """What an earlier run wrote is no JSON any more."""


# What may differ between runs that go on with each other's work.
_MAY_DIFFER = ("started", "ended", "images")
_LONGEST = 300
# Bytes of a whole file; a model file says at most some megabytes of itself.
_LARGEST = 64 * 2**20


def software_versions() -> dict[str, str]:
    """Versions of what takes part in the numbers."""
    return {
        "seewhy": __version__,
        "onnxruntime": onnxruntime.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
    }


def utc_now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")


def read(folder: Path) -> Facts | None:
    """What an earlier run in this folder wrote; None where there was none.

    Raises:
        OutputError: it cannot be read, or is damaged.
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
        raise Damaged(f"{path}: damaged; start anew with --restart, or choose another output folder")
    if not _is_ours(facts):
        raise OutputError(f"{path}: not of a run of seewhy, but another program's; choose another output folder")
    return facts


def _is_ours(facts: Any) -> bool:
    """It is a common name for a file."""
    versions = facts.get("versions") if isinstance(facts, dict) else None
    return isinstance(versions, dict) and "seewhy" in versions and "schema" in facts


def check_resumable(folder: Path, before: Facts, facts: Facts) -> None:
    """Take over into `facts` what is told of the earlier run alone.

    Raises:
        OutputError: the folder's results were made otherwise than this run would make them; the message says how.
    """
    facts["started"] = before.get("started", utc_now())
    for one, other in ((before, facts), (facts, before)):
        if "relative_to" in one:  # one of the two runs may have absolute paths alone
            other.setdefault("relative_to", one["relative_to"])
    # Through JSON, so that what was written and what would be are of the same types.
    old, new = (_flat(json.loads(json.dumps(_fixed(each)))) for each in (before, facts))
    for name in dict.fromkeys((*new, *old)):
        if old.get(name) != new.get(name):
            raise OutputError(
                f"{folder}: holds results of another run: {printable(name)} was {_short(old.get(name))} and is "
                f"{_short(new.get(name))} now; choose another output folder, or start anew there with --restart"
            )


def image_count(facts: Facts) -> int:
    """Return how many images an earlier run had recorded when it wrote this: at its beginning, or at its end.

    Raises:
        OutputError: If the numbers are none.
    """
    images = facts.get("images")
    counts: list[Any] = list(images.values()) if isinstance(images, dict) else [None]
    if not all(type(count) is int and count >= 0 for count in counts):
        raise Damaged(f"{NAME}: damaged: it counts images as {_short(images)}; start anew with --restart")
    return int(sum(counts))


def encoded(facts: Facts) -> bytes:
    return (json.dumps(facts, indent=2) + "\n").encode()


def _fixed(facts: Mapping[str, Any]) -> Facts:
    return {name: value for name, value in facts.items() if name not in _MAY_DIFFER}


def _flat(value: Any, name: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}"""
    if not isinstance(value, dict) or not value:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, part in value.items():
        flat.update(_flat(part, f"{name}.{key}" if name else str(key)))
    return flat


def _short(value: Any) -> str:
    """On one line, and long enough to tell two hashes or two paths apart."""
    text = printable(repr(value))
    return "not given" if value is None else text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
