"""Plan the names of results: unique relative paths, without extension, that stay below a folder."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import PurePath

from seewhy._shared.temp_tables import temporary
from seewhy._shared.text import percent, safe_folder_name, safe_name
from seewhy.storage.format_names import FIGURE_FORMATS

_SCHEMA = """
CREATE TABLE stems (stem BLOB PRIMARY KEY, count INTEGER) WITHOUT ROWID;
CREATE TABLE taken (name BLOB PRIMARY KEY, earlier INTEGER, next INTEGER DEFAULT 2) WITHOUT ROWID;
"""

# Maximum length of a component of a name, in bytes. Linux allows 255, including method, class and extension.
_LONGEST = 160
# Maximum length of all folders of a name, in bytes, and maximum number of folders. Linux allows 4096 bytes, including
# the path of the output folder.
_LONGEST_FOLDERS, _MOST_FOLDERS = 1500, 50
# Name for a path that ends in a slash and has no last component.
_NAMELESS = "unnamed"
# Files that a job writes beside its results.
_OWN = ("manifest.jsonl", "run.json", ".seewhy.lock", ".seewhy-unfinished")
CLASS = r"\.\d+(-\w+)?"
"""Regular expression for the part of a result's file name that names a class: .RANK-LABEL, or .INDEX of older jobs."""
# End of a result's file name, such as NAME.METHOD.png. A folder with such a name could be in the way of a result.
_RESULT = re.compile(rf"\.([^.]+({CLASS})?\.({'|'.join(FIGURE_FORMATS)}|npz))$", re.IGNORECASE)
# Maximum length of a label in a file name, in bytes: NAME, method, rank and extension need the rest of 255.
_LONGEST_LABEL = 40
# Dots and spaces at the end of a folder's name, which Windows removes.
_FOLDER_ENDS = re.compile(r"[. ]+/")


class ResultNames:
    """Planner of a unique name for the relative path of each input.

    A name keeps the folders of its input. If names would collide, the extension of the input is appended, and then a
    number. Names also collide if they differ only in case or in Unicode form (NFC, NFD), because macOS and Windows
    would use one file for both. Linux, macOS and Windows can create every component, and none has characters that do
    not print. No folder has the name of a file that a job may write. If the folders are too deep, a hash replaces all
    but the first.
    """

    def __init__(self) -> None:
        self._store = temporary(_SCHEMA)

    def expect(self, inputs: Iterable[PurePath]) -> None:
        """Announce inputs, so that all inputs with the same stem get their extension, including the first one.

        Args:
            inputs: Relative paths of the inputs.
        """
        self._store.execute("BEGIN")
        self._store.executemany(
            "INSERT INTO stems VALUES (?, 1) ON CONFLICT (stem) DO UPDATE SET count = count + 1",
            ((_folded(_stem(path)),) for path in inputs),
        )
        # Reserve the plain names of the inputs that keep them.
        self._store.execute("INSERT OR IGNORE INTO taken (name, earlier) SELECT stem, 0 FROM stems WHERE count = 1")
        self._store.execute("COMMIT")

    def reserve(self, names: Iterable[PurePath]) -> None:
        """Reserve names of existing results, so that no input gets them.

        Args:
            names: Names without extension.
        """
        self._store.execute("BEGIN")
        self._store.executemany(
            "INSERT OR IGNORE INTO taken (name, earlier) VALUES (?, 1)", ((_folded(str(name)),) for name in names)
        )
        self._store.execute("COMMIT")

    def skip(self, path: PurePath) -> None:
        """Skip an announced input that already has one of the reserved names.

        Args:
            path: Relative path of the input.
        """
        self._store.execute("UPDATE stems SET count = 2 WHERE stem = ? AND count = 1", (_folded(_stem(path)),))

    def take(self, path: PurePath) -> PurePath:
        """Choose the name for an input. An input that was not announced gets its plain name if that is free.

        Args:
            path: Relative path of the input.

        Returns:
            Relative path without extension. No other input gets it.
        """
        stem = _stem(path)
        key = _folded(stem)
        if self._store.execute("UPDATE stems SET count = 2 WHERE stem = ? AND count = 1", (key,)).rowcount:
            if self._store.execute("SELECT earlier FROM taken WHERE name = ?", (key,)).fetchone() == (0,):
                return PurePath(stem)
            announced = True
        else:
            announced = self._store.execute("SELECT 1 FROM stems WHERE stem = ?", (key,)).fetchone() is not None
        base = str(PurePath(stem).with_name(_component(path.name or _NAMELESS, safe_name)))
        for name in [base] if announced else [stem, base]:
            if self._reserve(name):
                return PurePath(name)
        # Continue with the number after the last one, because an archive may contain the same name many times.
        key = _folded(base)
        (number,) = self._store.execute("SELECT next FROM taken WHERE name = ?", (key,)).fetchone()
        while not self._reserve(name := f"{base}~{number}"):
            number += 1
        self._store.execute("UPDATE taken SET next = ? WHERE name = ?", (number + 1, key))
        return PurePath(name)

    def _reserve(self, name: str) -> bool:
        """Reserve a name, and return True if it was free."""
        values = (_folded(name),)
        return self._store.execute("INSERT OR IGNORE INTO taken (name, earlier) VALUES (?, 0)", values).rowcount == 1


def unique_names(inputs: Sequence[PurePath]) -> list[PurePath]:
    """Return a unique name for each input, in their order."""
    names = ResultNames()
    names.expect(inputs)
    return [names.take(path) for path in inputs]


def class_suffix(rank: int, label: str | None, index: int) -> str:
    """Return the part of a result's file name that names one of several classes: RANK-LABEL.

    Args:
        rank: Number of the class among those of the image, from 1. It keeps names apart.
        label: Label of the class, or None. Its letters and digits are kept, and `_` replaces all others.
        index: Class index, which is used if no letter or digit is left.

    Returns:
        Text such as `1-tabby_tabby_cat`, with at most 40 bytes of label.
    """
    words = re.sub(r"[\W_]+", "_", unicodedata.normalize("NFC", label or ""))
    name = words.encode()[:_LONGEST_LABEL].decode("utf-8", "ignore").strip("_")
    return f"{rank}-{name or index}"


def _stem(path: PurePath) -> str:
    """Return the name of an input without its extension, below the output folder."""
    folder = _folder(str(path.parent))
    name = _component(path.stem or _NAMELESS, safe_name)
    return f"{folder}/{name}" if folder else name


@lru_cache(maxsize=256)
def _folder(text: str) -> str:
    """Return the folder of the results of all inputs in a folder, below the output folder; empty for that one."""
    path = PurePath(text)
    # Absolute paths and paths with `..` keep the names of their folders.
    folders = [_component(part, _safe_folder) for part in path.parts if part != path.anchor]
    if folders and _caseless(folders[0]) in _OWN:
        folders[0] = percent(folders[0][0]) + folders[0][1:]
    if len(folders) > _MOST_FOLDERS or sum(len(part.encode()) + 1 for part in folders) > _LONGEST_FOLDERS:
        folders = [folders[0], hashlib.sha256("/".join(folders).encode()).hexdigest()[:32]]
    return "/".join(folders)


def _safe_folder(text: str) -> str:
    """Return the name of a folder that no result has."""
    return _RESULT.sub(lambda end: percent(".") + end[1], safe_folder_name(text))


def _component(text: str, safe: Callable[[str], str]) -> str:
    """Return `text` as a safe name, cut if it is too long. Cut names may collide and then get a number."""
    name = safe(text)
    # A cut name may be unsafe again: it may end in a dot, or be the name of a device with spaces.
    while len(name.encode()) > _LONGEST:
        name = safe(name.encode()[:_LONGEST].decode("utf-8", "ignore"))
    return name


def _folded(name: str) -> bytes:
    """Return a key that is equal for two names if their files would be the same on Linux, macOS or Windows.

    The last component keeps dots and spaces at its end, because more text is appended to it.
    """
    return _caseless(_FOLDER_ENDS.sub("/", name)).encode("utf-8", "surrogatepass")


def _caseless(text: str) -> str:
    """Return the canonical caseless form of `text` (The Unicode Standard, section 3.13, D145)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
