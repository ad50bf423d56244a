"""Fonts of figures: Pillow's own font, and fonts of the system for characters that it lacks.

Rendered texts are cached, because rendering takes far longer than pasting. No font is shipped.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from threading import Lock

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from seewhy._shared.arrays import Bytes
from seewhy._shared.text import printable, short
from seewhy.visualization.system_fonts import candidates

_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
# A character that no font has, because Unicode reserves it: fonts draw their glyph for missing characters.
_NO_CHARACTER = "\U0010ffff"
_TEST_SIZE = 24
# Small hinted letters are spaced unevenly, so texts of up to this size are rendered this many times larger and reduced.
_OVERSAMPLING, _LARGEST_OVERSAMPLED = 4, 40
# Digits are rendered one by one, because most numbers occur only once.
_PART = re.compile(r"[0-9.]|[^0-9.]+")


class Face:
    """A font in any size."""

    def __init__(self, path: str | None, index: int = 0) -> None:
        """Open a font.

        Args:
            path: Font file, or None for Pillow's own font.
            index: Number of the font in a collection.

        Raises:
            OSError: If the file is not a font that Pillow can read.
        """
        self._path, self._index = path, index
        self._sizes: dict[int, _Font] = {}
        self._covered: dict[str, bool] = {}
        basic = ImageFont.Layout.BASIC
        self._test = self.font(_TEST_SIZE) if path is None else ImageFont.truetype(path, _TEST_SIZE, index, "", basic)
        self._missing = self._bitmap(_NO_CHARACTER)

    def font(self, size: int) -> _Font:
        """Return the font in a size in pixels."""
        if size not in self._sizes:
            self._sizes[size] = (
                ImageFont.load_default(size)
                if self._path is None
                else ImageFont.truetype(self._path, size, self._index)
            )
        return self._sizes[size]

    def _bitmap(self, character: str) -> tuple[tuple[int, int], bytes]:
        mask = self._test.getmask(character)
        return mask.size, bytes(mask)

    def covers(self, text: str) -> bool:
        """Return whether the font has a glyph of its own for each character that is not a space."""
        for character in set(text):
            if character not in self._covered:
                self._covered[character] = character.isspace() or self._bitmap(character) != self._missing
        return all(self._covered[character] for character in text)


class _Library:
    """Fonts that are open: Pillow's own, and those of the system that texts needed."""

    def __init__(self) -> None:
        self.own = Face(None)
        self._faces = [self.own]
        self._seen: set[tuple[str, int]] = set()
        self._complete = False
        self._lock = Lock()

    def find(self, text: str) -> Face | None:
        """Return the first font that covers a text, or None."""
        with self._lock:
            face = next((face for face in self._faces if face.covers(text)), None)
            if face is not None or self._complete:
                return face
            for one in candidates("".join(sorted({c for c in text if not self.own.covers(c)}))):
                if one in self._seen:
                    continue
                self._seen.add(one)
                with suppress(OSError):
                    self._faces.append(Face(*one))
                    if self._faces[-1].covers(text):
                        return self._faces[-1]
            # All fonts of the system are open now, so do not search again for each further label.
            self._complete = True
            return None


@lru_cache(maxsize=1)
def _library() -> _Library:
    return _Library()


@lru_cache(maxsize=4096)
def _face(text: str) -> Face | None:
    """Return the first font that covers a text, or None."""
    return _library().find(text)


def covered(text: str) -> bool:
    """Return whether one font has all characters of a text that prints."""
    return _face(text) is not None


@lru_cache(maxsize=4096)
def readable(text: str) -> str:
    """Return a text in characters that a font covers, and that print; others are shown as escapes."""
    text = printable(text)
    if covered(text):
        return text
    own = _library().own
    return "".join(c if own.covers(c) else c.encode("unicode_escape").decode("ascii") for c in text)


def readable_label(label: str, index: int) -> str:
    """Return the label of a class, with the class index before it if no font covers the label."""
    return printable(label) if covered(printable(label)) else f"class {index}: {readable(label)}"


def missing_note(labels: Iterable[str]) -> str | None:
    """Return a line about the labels that no font covers, with the remedy, or None if there are none."""
    lacking = [label for label in dict.fromkeys(map(printable, labels)) if not covered(label)]
    if not lacking:
        return None
    return (
        f"no font of this machine has the characters of {len(lacking)} label{'s' * (len(lacking) > 1)}, such as "
        f"{short(lacking[0], 20).encode('unicode_escape').decode('ascii')}; figures show class indices and "
        f"escapes instead. To show labels, install a font that has them, such as Noto (https://fonts.google.com/noto)"
    )


@lru_cache(maxsize=4096)
def width(text: str, size: int) -> int:
    """Return the width of a readable text in pixels."""
    return sum(round(_length(part, size)) for part in _parts(text))


def draw(canvas: Bytes, x: int, baseline: int, text: str, size: int, color: tuple[int, int, int]) -> None:
    """Draw a readable text onto light pixels. What reaches beyond the canvas is cut off.

    Args:
        canvas: RGB pixels, uint8 of shape (H, W, 3), which are changed.
        x: Left end of the text, in pixels.
        baseline: Distance of the baseline from the top, in pixels.
        text: The text.
        size: Size of the font in pixels.
        color: RGB colour.
    """
    # Large texts, for which the cache would take much memory, belong to large images, which take longer anyway.
    render = _cached if size <= _LARGEST_OVERSAMPLED else _rendered
    for part in _parts(text):
        letters, ascent, advance = render(part, size, color)
        top, left = baseline - ascent, x
        if top < 0 or left < 0:
            letters = letters[max(0, -top) :, max(0, -left) :]
            top, left = max(0, top), max(0, left)
        place = canvas[top : top + letters.shape[0], left : left + letters.shape[1]]
        np.minimum(place, letters[: place.shape[0], : place.shape[1]], out=place)
        x += advance


@lru_cache(maxsize=4096)
def _parts(text: str) -> tuple[str, ...]:
    """Return the parts of a text that are rendered by themselves, so that most are found in the cache."""
    # Other scripts than Latin may be written from right to left, or change letters beside others.
    return tuple(_PART.findall(text)) if text.isascii() else (text,)


def _rendered(text: str, size: int, color: tuple[int, int, int]) -> tuple[Bytes, int, int]:
    """Return a text on white as pixels (h,w,3), the distance of its baseline from their top, and its width."""
    factor = _OVERSAMPLING if size <= _LARGEST_OVERSAMPLED else 1
    font = (_face(text) or _library().own).font(factor * size)
    # Glyphs may reach beyond the line (accents) and beyond the advance (slanted letters).
    ascent, height = 2 * size, 3 * size
    mask = Image.new("L", (factor * (math.ceil(_length(text, size)) + size), factor * height))
    ImageDraw.Draw(mask).text((0, factor * ascent), text, 255, font, anchor="ls")
    mask = mask.reduce(factor) if factor > 1 else mask
    box = mask.getbbox() or (0, 0, 1, 1)
    letters = Image.new("RGB", mask.size, (255, 255, 255))
    letters.paste(color, (0, 0), mask)
    return np.asarray(letters.crop((0, box[1], box[2], box[3]))), ascent - box[1], round(_length(text, size))


_cached = lru_cache(maxsize=1024)(_rendered)


def shorten(text: str, size: int, most: int) -> str:
    """Cut a readable text to a width in pixels, with an ellipsis at its end."""
    if measured(text, size) <= most:
        return text
    low, high = 0, len(text)
    while low < high:  # find the largest number of characters that fit with the ellipsis
        middle = (low + high + 1) // 2
        low, high = (middle, high) if measured(text[:middle] + "...", size) <= most else (low, middle - 1)
    return text[:low].rstrip() + "..."


@lru_cache(maxsize=4096)
def measured(text: str, size: int) -> float:
    """Return the width of a text in pixels without rendering it."""
    return sum(_length(part, size) for part in _parts(text))


@lru_cache(maxsize=4096)
def _length(text: str, size: int) -> float:
    factor = _OVERSAMPLING if size <= _LARGEST_OVERSAMPLED else 1
    return (_face(text) or _library().own).font(factor * size).getlength(text) / factor


def wrap(text: str, size: int, most: int, lines: int) -> list[str]:
    """Break a readable text between words into at most `lines` lines, and shorten lines that are too long."""
    if measured(text, size) <= most:
        return [text]
    found = [""]
    for word in text.split(" "):
        longer = f"{found[-1]} {word}".strip()
        if found[-1] and measured(longer, size) > most and len(found) < lines:
            found.append(word)
        else:
            found[-1] = longer
    return [shorten(line, size, most) for line in found]
