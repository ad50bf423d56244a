"""Hidden files and folders, which are skipped in folders and archives."""

from __future__ import annotations

# Archives from macOS keep metadata in this folder, under the names of the images.
_METADATA_FOLDER = "__MACOSX"


def is_hidden(path: str) -> bool:
    """Return whether a component of a path begins with a dot, as in `.DS_Store` and `._IMG.jpg`, or is `__MACOSX`.

    The components `.` and `..` are not hidden.

    Args:
        path: Name of a file or folder, or path inside an archive, with slashes.

    Returns:
        True if the file is skipped, unless it is named explicitly.
    """
    return any(
        part == _METADATA_FOLDER or (part.startswith(".") and part not in (".", "..")) for part in path.split("/")
    )
