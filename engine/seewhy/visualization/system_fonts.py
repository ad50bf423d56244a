"""Find fonts of the operating system for characters that Pillow's own font lacks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_FOLDERS = {
    "darwin": ("/System/Library/Fonts", "/Library/Fonts", "~/Library/Fonts"),
    "win32": (r"%WINDIR%\Fonts", r"%LOCALAPPDATA%\Microsoft\Windows\Fonts"),
}
_OTHER_FOLDERS = ("/usr/share/fonts", "/usr/local/share/fonts", "~/.local/share/fonts", "~/.fonts")
_EXTENSIONS = (".ttf", ".otf", ".ttc")
# Fonts with plain letters and many scripts come first. Names are compared without spaces and case.
_PREFERRED = ("notosans", "dejavusans", "arialunicode", "arial", "segoeui", "msyh", "pingfang", "hiragino", "malgun")
# Parts of the names of fonts that are not plain.
_STYLES = ("bold", "italic", "oblique", "light", "thin", "black", "mono", "serif", "condensed")
# Maximum number of characters in one question to fontconfig, and of seconds for its answer.
_CHARACTERS, _SECONDS = 50, 10
# A number of a font in fontconfig also holds the number of a named instance, in its upper bits.
_INDEX = 0xFFFF


def candidates(characters: str) -> Iterator[tuple[str, int]]:
    """Yield fonts that may cover some characters, the most likely one first.

    Args:
        characters: The characters.

    Yields:
        Path of a font file, and number of the font in it.
    """
    seen = set()
    charset = "charset=" + " ".join(f"{ord(one):x}" for one in characters[:_CHARACTERS])
    for found in (
        _fontconfig("fc-match", "--format=%{file}\n%{index}\n", f"sans-serif:{charset}"),
        _fontconfig("fc-list", "--format=%{file}\n%{index}\n", f":{charset}"),
        ((path, 0) for path in _font_files()),
    ):
        for path, index in found:
            if path.lower().endswith(_EXTENSIONS) and (path, index) not in seen:
                seen.add((path, index))
                yield path, index


def _fontconfig(program: str, *arguments: str) -> Iterator[tuple[str, int]]:
    """Yield the fonts that a program of fontconfig names; none if it is not installed or fails."""
    found = shutil.which(program)
    if found is None:
        return
    try:
        done = subprocess.run([found, *arguments], capture_output=True, timeout=_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return
    lines = os.fsdecode(done.stdout).splitlines()
    for path, index in sorted(zip(lines[::2], lines[1::2], strict=False), key=lambda pair: _rank(Path(pair[0]))):
        yield path, int(index) & _INDEX if index.isdecimal() else 0


def _font_files() -> list[str]:
    """Return the font files in the usual folders of this operating system, preferred ones first."""
    folders = _FOLDERS.get(sys.platform, _OTHER_FOLDERS)
    paths = []
    for folder in folders:
        for place, _, names in os.walk(os.path.expandvars(os.path.expanduser(folder))):
            paths += [Path(place, name) for name in names if name.lower().endswith(_EXTENSIONS)]
    return [str(path) for path in sorted(paths, key=_rank)]


def _rank(path: Path) -> tuple[bool, int, int, str]:
    """Return a key that sorts fonts: plain ones first, and among them known families and short names."""
    name = path.stem.lower().replace(" ", "").replace("-", "")
    family = next((i for i, known in enumerate(_PREFERRED) if name.startswith(known)), len(_PREFERRED))
    return any(style in name for style in _STYLES), family, len(name), str(path)
