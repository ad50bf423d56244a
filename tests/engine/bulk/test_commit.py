"""Tests of `seewhy.bulk.commit`: every file and folder is synced, and errors name the file."""

from __future__ import annotations

import os
import threading
import time
from contextlib import closing
from pathlib import Path, PurePath

import pytest

from seewhy import OutputError
from seewhy.bulk.commit import FigureWriter, sync
from seewhy.bulk.outcomes import Outcome
from seewhy.storage.manifest import Manifest
from seewhy.storage.output_folder import Folder


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


def test_all_folders_above_a_result_are_synced_before_its_line(tmp_path: Path, synced: list[str]) -> None:
    with closing(Manifest(tmp_path)) as manifest:
        folder = Folder(tmp_path)
        writer = FigureWriter(folder, manifest)
        names = ["a.png", "sub/deeper/b.png"]
        files = [folder.write(PurePath(name), lambda file: file.write(b"content")) for name in names]
        writer.add(Outcome(tmp_path, record={"path": "a", "status": "done"}, files=files))
        writer.flush()
    assert sorted(synced[:-1]) == sorted(str(tmp_path / name) for name in [*names, "sub", "sub/deeper", "."])
    assert synced[-1] == str(manifest.path)


def test_an_error_of_any_thread_is_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths, failed = write_files(tmp_path), threading.Event()
    caller = threading.current_thread()

    def fsync(file: int) -> None:
        if threading.current_thread() is caller:
            failed.wait(60)  # until another thread has taken a file
        elif not failed.is_set():
            failed.set()
            raise OSError(5, "Input/output error")
        else:
            time.sleep(0.1)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(OutputError, match="cannot be synced to the disk: Input/output error$"):
        sync(paths)
    assert "seewhy-sync" not in {thread.name for thread in threading.enumerate()}


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
