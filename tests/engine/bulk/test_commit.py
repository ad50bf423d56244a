"""Tests of `seewhy.bulk.commit.sync`: every file is synced, and errors name the file."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from seewhy import OutputError
from seewhy.bulk.commit import sync


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that were synced."""
    names, fsync = [], os.fsync

    def note(file: int) -> None:
        fsync(file)
        names.append(os.readlink(f"/proc/self/fd/{file}"))

    monkeypatch.setattr(os, "fsync", note)
    return names


def write_files(folder: Path) -> list[Path]:
    for number in range(20):
        (folder / str(number)).write_bytes(b"content")
    return [*folder.iterdir(), folder]


def test_all_files_are_synced(tmp_path: Path, synced: list[str]) -> None:
    paths = write_files(tmp_path)
    sync(paths)
    assert sorted(synced) == sorted(map(str, paths))


@pytest.mark.parametrize("most", [0, 2])
def test_a_system_that_gives_no_more_threads(
    most: int, tmp_path: Path, synced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    start, begun = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if len(begun) == most:
            raise RuntimeError("can't start new thread")
        begun.append(thread)
        start(thread)

    paths = write_files(tmp_path)
    monkeypatch.setattr(threading.Thread, "start", limited)
    sync(paths)
    assert len(begun) <= most
    assert set(synced) == set(map(str, paths))


def test_a_file_that_has_vanished(tmp_path: Path) -> None:
    paths = write_files(tmp_path)
    paths[7].unlink()
    with pytest.raises(OutputError, match=f"^{paths[7]}: has vanished or been replaced; run the job again$"):
        sync(paths)
