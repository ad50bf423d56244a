"""Make text from files safe to print, or to use as a file name."""

from __future__ import annotations

from typing import Any

# Reserved names of devices on Windows, which treats superscript digits like digits.
_DEVICES = {
    *("CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"),
    *(f"{port}{number}" for port in ("COM", "LPT") for number in "0123456789\u00b9\u00b2\u00b3"),
}
_NOT_IN_NAMES = frozenset('/\\<>:"|?*')


def printable(text: str) -> str:
    """Return `text` with all characters that do not print (control, bidirectional, line breaks) as escapes.

    A label or a file name may contain terminal commands, or a line that imitates the output of SeeWhy.
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def short(text: str, most: int = 100) -> str:
    """Return the printable form of `text`, without its middle if it has more than `most` characters."""
    if len(text) > most:
        text = f"{text[: most // 2]}...{text[len(text) - most // 4 :]}"
    return printable(text)


def first_line(error: BaseException) -> str:
    """Return the first line of another library's error, which may quote the content of a file."""
    return short((str(error).strip().splitlines() or [type(error).__name__])[0], 500)


def brief(value: Any) -> str:
    """Return `repr(value)` if that is one short line, or else the name of its type."""
    text = repr(value)
    return text if len(text) <= 60 and text.isprintable() else type(value).__name__


def safe_name(text: str) -> str:
    """Return `text` as a file name that Linux, macOS and Windows accept.

    Percent escapes replace separators, characters that do not print, characters that Windows does not allow, and the
    first character of a name that means a folder (`..`) or a device of Windows (`nul.txt`). A dot or a space at the end
    is kept, because callers append an extension; use `safe_folder_name` for folders.
    """
    name = "".join(c if c.isprintable() and c not in _NOT_IN_NAMES else percent(c) for c in text)
    reserved = name in (".", "..") or name.partition(".")[0].rstrip(" ").upper() in _DEVICES
    return percent(name[0]) + name[1:] if reserved else name


def safe_folder_name(text: str) -> str:
    """Return `text` as a folder name that Linux, macOS and Windows accept.

    In addition to `safe_name`, an escape replaces a dot or a space at the end, which Windows would remove.
    """
    name = safe_name(text)
    return name[:-1] + percent(name[-1]) if name.endswith((".", " ")) else name


def percent(character: str) -> str:
    """Return the percent escape of a character, as in a URL."""
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
