"""Text that comes from files, made safe to print and to use as a file name."""

from __future__ import annotations

from typing import Any


def printable(text: str) -> str:
    """Return `text` with every character that does not print (control, bidirectional, line breaks) as an escape.

    A label or a file name may hold terminal commands or a line that imitates our own output.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def brief(value: Any) -> str:
    """Return `repr(value)` where that is one short line, and else the name of its type."""
    text = repr(value)
    return text if len(text) <= 60 and text.isprintable() else type(value).__name__


def safe_name(text: str) -> str:
    """Return `text` as one component of a file name: no separator and nothing that does not print."""
    name = "".join(c if c.isprintable() and c not in "/\\" else _percent(c) for c in text)
    return "%2E" + name[1:] if name in (".", "..") else name


def _percent(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
