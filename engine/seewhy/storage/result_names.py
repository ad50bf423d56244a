"""Names for results: relative paths without extension that stay below a folder, each given out once."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from pathlib import PurePath

from seewhy._shared.temp_tables import temporary
from seewhy._shared.text import percent, safe_folder_name, safe_name

_SCHEMA = """
CREATE TABLE stems (stem BLOB PRIMARY KEY, count INTEGER) WITHOUT ROWID;
CREATE TABLE taken (name BLOB PRIMARY KEY, earlier INTEGER, next INTEGER DEFAULT 2) WITHOUT ROWID;
"""

# Of a component of a name, in bytes: Linux stops at 255, and the method, the class and the extension come behind.
_LONGEST = 160
# Of all folders of a name, in bytes: Linux stops at 4096 with the output folder's own path; and how many of them.
_LONGEST_FOLDERS, _MOST_FOLDERS = 1500, 50
# A path that ends in a slash has no last component.
_NAMELESS = "unnamed"
# What a run writes beside its results.
_OWN = ("manifest.jsonl", "run.json", ".seewhy.lock", ".seewhy-unfinished")
# Ends of results' names, NAME.METHOD.png; a folder of such a name could stand where a file must.
_RESULT = re.compile(r"\.([^.]+(\.\d+)?\.(png|jpg|webp|npz))$", re.IGNORECASE)
# Dots and spaces at the end of a folder's name, which Windows drops.
_FOLDER_ENDS = re.compile(r"[. ]+/")


class ResultNames:
    """Plans a different name for each input's relative path.

    The input's folders stay. Where names would collide, the input's own extension is appended, and then a number.
    Names also collide if they differ only in case or in Unicode form (NFC, NFD), because macOS and Windows would take
    them for one file. Linux, macOS and Windows can create every component, and none has characters that do not print.
    No folder is called as a file in the output folder may be. Where folders are too deep, the outer ones are left out.
    """

    def __init__(self) -> None:
        self._store = temporary(_SCHEMA)

    def expect(self, inputs: Iterable[PurePath]) -> None:
        """Say which inputs will come, so that all whose stems are the same get their extension, the first one too."""
        self._store.execute("BEGIN")
        self._store.executemany(
            "INSERT INTO stems VALUES (?, 1) ON CONFLICT (stem) DO UPDATE SET count = count + 1",
            ((_folded(_stem(path)),) for path in inputs),
        )
        # Those that keep their plain name get it first.
        self._store.execute("INSERT OR IGNORE INTO taken (name, earlier) SELECT stem, 0 FROM stems WHERE count = 1")
        self._store.execute("COMMIT")

    def reserve(self, names: Iterable[PurePath]) -> None:
        """Give nobody these names: an earlier run's results have them."""
        self._store.execute("BEGIN")
        self._store.executemany(
            "INSERT OR IGNORE INTO taken (name, earlier) VALUES (?, 1)", ((_folded(name),) for name in names)
        )
        self._store.execute("COMMIT")

    def skip(self, path: PurePath) -> None:
        """An input that has its name already, one of those reserved."""
        self._store.execute("UPDATE stems SET count = 2 WHERE stem = ? AND count = 1", (_folded(_stem(path)),))

    def take(self, path: PurePath) -> PurePath:
        """The name for an input. One that was not expected gets its plain name where nobody has it."""
        stem = _stem(path)
        found = self._store.execute("SELECT count FROM stems WHERE stem = ?", (_folded(stem),)).fetchone()
        if found == (1,):
            self._store.execute("UPDATE stems SET count = 2 WHERE stem = ?", (_folded(stem),))
            taken = self._store.execute("SELECT earlier FROM taken WHERE name = ?", (_folded(stem),)).fetchone()
            if taken == (0,):
                return stem
        base = stem.with_name(_component(path.name or _NAMELESS, safe_name))
        for name in [stem, base] if found is None else [base]:
            if self._reserve(name):
                return name
        # Where it went on the last time: an archive may hold a name many times.
        key = _folded(base)
        (number,) = self._store.execute("SELECT next FROM taken WHERE name = ?", (key,)).fetchone()
        while not self._reserve(name := base.with_name(f"{base.name}~{number}")):
            number += 1
        self._store.execute("UPDATE taken SET next = ? WHERE name = ?", (number + 1, key))
        return name

    def _reserve(self, name: PurePath) -> bool:
        values = (_folded(name),)
        return self._store.execute("INSERT OR IGNORE INTO taken (name, earlier) VALUES (?, 0)", values).rowcount == 1


def unique_names(inputs: Sequence[PurePath]) -> list[PurePath]:
    """Return a different name for each of a few inputs."""
    names = ResultNames()
    names.expect(inputs)
    return [names.take(path) for path in inputs]


def _stem(path: PurePath) -> PurePath:
    # Absolute paths and those that climb keep their folders' names, below the output folder.
    folders = [_component(part, _safe_folder) for part in path.parent.parts if part != path.anchor]
    if folders and _caseless(folders[0]) in _OWN:
        folders[0] = percent(folders[0][0]) + folders[0][1:]
    if len(folders) > _MOST_FOLDERS or sum(len(part.encode()) + 1 for part in folders) > _LONGEST_FOLDERS:
        folders = [folders[0], hashlib.sha256("/".join(folders).encode()).hexdigest()[:32]]
    return PurePath(*folders, _component(path.stem or _NAMELESS, safe_name))


def _safe_folder(text: str) -> str:
    return _RESULT.sub(lambda end: percent(".") + end[1], safe_folder_name(text))


def _component(text: str, safe: Callable[[str], str]) -> str:
    """Return `text` made safe and, if it is too long for a file system, without its end.

    Cut names may collide, and are numbered then.
    """
    name = safe(text)
    # What a cut leaves can be unsafe again: it may end in a dot, or be a device's name and spaces.
    while len(name.encode()) > _LONGEST:
        name = safe(name.encode()[:_LONGEST].decode("utf-8", "ignore"))
    return name


def _folded(name: PurePath) -> bytes:
    """Return a key that two names share if their files would be one file on Linux, macOS or Windows.

    The last component keeps dots and spaces at its end, since its file's name goes on behind them.
    """
    return _caseless(_FOLDER_ENDS.sub("/", str(name))).encode("utf-8", "surrogatepass")


def _caseless(text: str) -> str:
    """Return the canonical caseless form of `text` (The Unicode Standard, section 3.13, D145)."""
    if text.isascii():
        return text.lower()
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", text).casefold())
