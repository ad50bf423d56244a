"""Text that comes from files, made safe to print and to use as a file name."""

from __future__ import annotations

from typing import Any

_DEVICES = {"CON", "PRN", "AUX", "NUL", *(f"{port}{number}" for port in ("COM", "LPT") for number in range(10))}


def printable(text: str) -> str:
    """Return `text` with every character that does not print (control, bidirectional, line breaks) as an escape.

    A label or a file name may hold terminal commands or a line that imitates our own output.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def short(text: str, most: int = 100) -> str:
    """Return the printable form of `text`, without its middle where it has more than `most` characters."""
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[len(text) - most // 4 :]}"
    return printable(text)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, which may name whatever a file holds."""
    return short((str(error).strip().splitlines() or [type(error).__name__])[0], 500)


def brief(value: Any) -> str:
    """Return `repr(value)` where that is one short line, and else the name of its type."""
    text = repr(value)
    return text if len(text) <= 60 and text.isprintable() else type(value).__name__


def safe_name(text: str) -> str:
    """Return `text` as one component of a file name: no separator, nothing that does not print, and no name that stands
    for a folder or, on shared folders of Windows, for a device.
    """
    name = "".join(c if c.isprintable() and c not in "/\\" else percent(c) for c in text)
    reserved = name in (".", "..") or name.partition(".")[0].rstrip(" ").upper() in _DEVICES
    return percent(name[0]) + name[1:] if reserved else name


def percent(character: str) -> str:
    """`character` as its bytes are written in a URL."""
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
