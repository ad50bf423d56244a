"""A table on disk that goes with the program: what would otherwise grow in memory with the number of images."""

from __future__ import annotations

import sqlite3

from seewhy.errors import OutputError

# SQLite's error codes of a disk that is full or does not work: SQLITE_IOERR, SQLITE_FULL, SQLITE_CANTOPEN.
_DISK = (10, 13, 14)
_CACHE_KIB = 2048


def temporary(schema: str) -> sqlite3.Connection:
    """An empty database in a file without a name, in the system's folder for temporary files.

    SQLite keeps 2 MiB of it in memory. Threads may use it in turns.
    """
    store = sqlite3.connect("", isolation_level=None, check_same_thread=False)
    store.executescript(
        f"PRAGMA journal_mode=OFF; PRAGMA synchronous=OFF; PRAGMA cache_size=-{_CACHE_KIB}; "
        f"PRAGMA temp_store=FILE; {schema}"
    )
    return store


def explained(error: sqlite3.OperationalError) -> OutputError:
    """What became of a temporary table, in a user's terms."""
    full = getattr(error, "sqlite_errorcode", 13) & 0xFF in _DISK
    remedy = "make room in the folder for temporary files, or set SQLITE_TMPDIR" if full else "report this as a bug"
    return OutputError(f"the list of images cannot be kept on disk: {error}; {remedy}")
