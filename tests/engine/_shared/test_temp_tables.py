"""Tests of `seewhy._shared.temp_tables`: tables on disk that disappear with the process."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from seewhy import OutputError
from seewhy._shared.temp_tables import explained, temporary
from seewhy.inputs.image_inputs import Inputs


def test_tables_are_separate() -> None:
    one, two = (temporary("CREATE TABLE t (n INTEGER PRIMARY KEY)") for _ in range(2))
    one.execute("INSERT INTO t VALUES (1)")
    assert one.execute("SELECT n FROM t").fetchall() == [(1,)] and two.execute("SELECT n FROM t").fetchall() == []


def test_several_threads_may_use_a_table() -> None:
    store = temporary("CREATE TABLE t (n INTEGER PRIMARY KEY)")
    for number in range(3):
        thread = threading.Thread(target=store.execute, args=("INSERT INTO t VALUES (?)", (number,)))
        thread.start()
        thread.join()
    assert store.execute("SELECT count(*) FROM t").fetchone() == (3,)


def filled(store: sqlite3.Connection) -> sqlite3.OperationalError:
    """Return the error that SQLite raises on a full disk."""
    store.execute(f"PRAGMA max_page_count={store.execute('PRAGMA page_count').fetchone()[0] + 2}")
    with pytest.raises(sqlite3.OperationalError) as raised:
        for number in range(100_000):
            store.execute("INSERT INTO t VALUES (?, ?)", (number, b"x" * 1000))
    return raised.value


def test_a_full_disk_is_reported() -> None:
    error = explained(filled(temporary("CREATE TABLE t (n INTEGER PRIMARY KEY, x BLOB)")))
    assert isinstance(error, OutputError)
    assert str(error) == (
        "the list of images cannot be stored on disk: database or disk is full; make room in the folder for temporary "
        "files, or set SQLITE_TMPDIR"
    )


def test_other_errors_are_reported_as_bugs() -> None:
    with pytest.raises(sqlite3.OperationalError) as raised:
        temporary("CREATE TABLE t (n INTEGER)").execute("SELECT nothing FROM t")
    if hasattr(raised.value, "sqlite_errorcode"):  # from Python 3.11
        assert str(explained(raised.value)).endswith("; report this as a bug")


def test_a_full_disk_while_images_are_listed(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    def small(schema: str) -> sqlite3.Connection:
        store = temporary(schema)
        store.execute(f"PRAGMA max_page_count={store.execute('PRAGMA page_count').fetchone()[0] + 2}")
        return store

    monkeypatch.setattr("seewhy.inputs.image_inputs.temporary", small)
    listing = tmp_path / "list"
    listing.write_text("".join(f"{'x' * 100}/{number}.jpg\n" for number in range(1000)))
    with pytest.raises(OutputError, match="the list of images cannot be stored on disk: database or disk is full"):
        Inputs([], "out", [listing])
