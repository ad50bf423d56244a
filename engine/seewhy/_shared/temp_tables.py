"""Temporary SQLite tables on disk, for data that would grow in memory with the number of images."""

from __future__ import annotations

import sqlite3

from seewhy.errors import OutputError

# SQLite's error codes for a disk that is full or does not work: SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN.
_DISK_ERRORS = (10, 13, 14)
_CACHE_KIB = 2048


def temporary(schema: str) -> sqlite3.Connection:
    """Create an empty database in an unnamed file in the system's temporary folder.

    The file disappears when the connection is closed. SQLite keeps at most 2 MiB of it in memory. Several threads may
    use the connection, but only one at a time.

    Args:
        schema: SQL statements that create the tables.

    Returns:
        The connection.
    """
    store = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    store.executescript(
        f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{_CACHE_KIB}; "
        f"PRAGMA temp_store=FILE; {schema}"
    )
    return store


def explained(error: sqlite3.OperationalError) -> OutputError:
    """Build the error that tells a user about a failure of a temporary table.

    Args:
        error: SQLite's error.

    Returns:
        The error to raise. Its message says what the user can do.
    """
    disk_error = getattr(error, "sqlite_errorcode", 13) & 0xFF in _DISK_ERRORS
    remedy = (
        "make room in the folder for temporary files, or set SQLITE_TMPDIR" if disk_error else "report this as a bug"
    )
    return OutputError(f"the list of images cannot be stored on disk: {error}; {remedy}")
