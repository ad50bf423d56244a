"""Tests of jobs on full disks, with failing system calls, and with folders that change during the job."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy import Explainer, OutputError, explain_folder
from seewhy._shared import temp_tables
from seewhy.bulk import commit
from support import command_line
from support.jobs import broken_jobs
from support.jobs.broken_jobs import assert_complete, assert_same, lines, write_images


class Disk:
    """Patch of `os` that makes one call that changes files raise an error, and all later calls unless `only_one`."""

    CALLS = ("fsync", "replace", "pwrite", "unlink", "mkdir")

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int, error: BaseException, only_one: bool) -> None:
        self.count = 0
        self._lock = threading.Lock()  # several threads sync files
        self._number, self._error, self._only_one = number, error, only_one
        for name in self.CALLS:
            monkeypatch.setattr(os, name, self._failing(name, getattr(os, name)))

    def _failing(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            if threading.current_thread() is not threading.main_thread() and isinstance(self._error, KeyboardInterrupt):
                return real(*arguments, **keywords)
            with self._lock:
                self.count += 1
                fails = self.count == self._number or (self.count > self._number and not self._only_one)
            if fails:
                if name == "pwrite":  # write half of the data
                    file, data, offset = arguments
                    real(file, data[: len(data) // 2], offset)
                raise self._error
            return real(*arguments, **keywords)

        return call


@pytest.mark.parametrize("only_one", [True, False])
@pytest.mark.parametrize("form", ["png", "npz"])
@pytest.mark.parametrize("kind", ["full", "interrupt"])
@pytest.mark.parametrize("most", [4, pytest.param(1000, marks=pytest.mark.slow)])
def test_a_call_that_fails(
    most: int,
    kind: str,
    form: str,
    only_one: bool,
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    paths: list[Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The job ends with the error of the failing call, and the next attempt resumes it."""
    monkeypatch.setattr(commit, "IMAGES_PER_SYNC", 4)
    monkeypatch.setattr(commit, "SECONDS_PER_SYNC", float("inf"))  # syncs by time would vary the number of calls
    if kind == "interrupt":  # only calls of the main thread count, and its share of the syncs varies with more threads
        monkeypatch.setattr(commit, "_SYNC_THREADS", 1)
    error = OSError(errno.ENOSPC, "No space left on device") if kind == "full" else KeyboardInterrupt()

    def run(number: int) -> int:
        """Run a job in which this call fails, and return the number of calls."""
        with monkeypatch.context() as patch:
            disk = Disk(patch, number, error, only_one)
            try:
                explain_folder(explainer, image_folder, tmp_path / str(number), broken_jobs.settings(form))
            except OutputError as failure:
                assert kind == "full" and re.search("cannot be .*: No space left on device$", str(failure))
            except KeyboardInterrupt:
                assert kind == "interrupt"
        return disk.count

    calls = run(10**9)
    assert calls > 12
    for number in sorted({*np.linspace(1, calls, min(most, calls)).astype(int).tolist()}):
        assert run(number) >= number
        explain_folder(explainer, image_folder, tmp_path / str(number), broken_jobs.settings(form))
        assert_same(tmp_path / str(number), uninterrupted(form), paths, form)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Return a function that mounts a file system in memory, or changes its mount options."""
    folder = tmp_path / "disk"

    def mount(options: str) -> Path:
        again = folder.is_mount()
        folder.mkdir(exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"remount,{options}" if again else options, "tmpfs", str(folder)]
        try:
            done = subprocess.run(command, capture_output=True, timeout=20)
        except OSError:
            pytest.skip("needs the mount command")
        if done.returncode:
            pytest.skip("needs permission to mount file systems")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True, timeout=20)


@pytest.mark.parametrize("form", ["png", "npz"])
def test_a_full_disk(
    form: str,
    small_disk: Callable[[str], Path],
    model_path: Path,
    explainer: Explainer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(commit, "IMAGES_PER_SYNC", 8)
    paths = write_images(tmp_path / "images", 60, 5)
    out = small_disk("size=256k" if form == "png" else "size=64k") / "out"
    arguments = ["explain", model_path, tmp_path / "images", "-o", out, "-q", "--format", form, "--shard-size", 8]
    for _ in range(2):  # in the second attempt the disk is already full
        result = command_line.run(*arguments)
        assert result.exit_code == 2
        assert re.search(r"\nseewhy: error: .*cannot be .*: No space left on device\n$", f"\n{result.stderr}")
    small_disk("size=16m")
    result = command_line.run(*arguments)
    assert result.exit_code == 1 and "60 images" in result.stderr, result.stderr
    assert 0 < int(re.findall(r"(\d+) of the images in earlier", result.stderr)[0]) < 60
    explain_folder(explainer, tmp_path / "images", tmp_path / "whole", broken_jobs.settings(form, 8))
    assert_same(out, tmp_path / "whole", paths, form)


def test_a_read_only_disk(small_disk: Callable[[str], Path], model_path: Path, image_folder: Path) -> None:
    disk = small_disk("size=1m,ro")
    result = command_line.run("explain", model_path, image_folder, "-o", disk)
    command_line.failed(result, r"\.seewhy\.lock: cannot be opened: Read-only file")
    result = command_line.run("explain", model_path, image_folder, "-o", disk / "out")
    command_line.failed(result, "out: cannot be created: Read-only file system")


def test_no_space_for_the_list_of_images(
    model_path: Path, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The temporary SQLite database may be on another disk than the results."""
    made = temp_tables.temporary

    def small(schema: str) -> Any:
        database = made(schema)
        database.execute("PRAGMA max_page_count=8")
        return database

    (tmp_path / "list.txt").write_text("".join(f"/nowhere/{'x' * 100}{number}.jpg\n" for number in range(200)))
    arguments = ["explain", model_path, "--list", tmp_path / "list.txt", "-o", tmp_path / "out", "-q"]
    with monkeypatch.context() as patch:
        patch.setattr("seewhy.inputs.image_inputs.temporary", small)
        command_line.failed(
            command_line.run(*arguments), "the list of images cannot be stored on disk: database or disk is full"
        )
    assert command_line.run(*arguments).exit_code == 2  # because all images failed
    monkeypatch.setattr("seewhy.storage.manifest.temporary", small)
    command_line.failed(
        command_line.run(*arguments), "the list of images cannot be stored on disk: database or disk is full"
    )


def explain_and_disturb(
    explainer: Explainer, image_folder: Path, out: Path, disturb: Callable[[], object], form: str = "png"
) -> None:
    """Run a job and call `disturb` when the third image is done."""

    def progress(done: int, total: int | None) -> None:
        if done == 3:
            disturb()

    explain_folder(explainer, image_folder, out, broken_jobs.settings(form, 2, batch_size=1), progress=progress)


@pytest.mark.parametrize("form", ["png", "npz"])
@pytest.mark.parametrize("how", ["deleted", "moved", "replaced", "manifest deleted", "manifest replaced", "shared"])
def test_a_changed_output_folder_ends_the_job(
    how: str,
    form: str,
    explainer: Explainer,
    image_folder: Path,
    paths: list[Path],
    out: Path,
    uninterrupted: Callable[[str], Path],
) -> None:
    """The error names the change, and the next attempt keeps all recorded results that still exist."""
    manifest, aside = out / "manifest.jsonl", out.with_name("aside")

    def disturb() -> None:
        if how == "deleted":
            shutil.rmtree(out)
        elif how == "moved":
            out.rename(aside)
        elif how == "replaced":
            out.rename(aside)
            out.mkdir()
        elif how == "manifest deleted":
            manifest.unlink()
        elif how == "manifest replaced":
            shutil.copy(manifest, aside)
            os.replace(aside, manifest)
        else:  # another machine that does not see the lock appends a line
            with manifest.open("ab") as file:
                file.write(b'{"a": "line"}\n')

    words = "has vanished or been replaced|was deleted or replaced|was changed by another program"
    with pytest.raises(OutputError, match=words):
        explain_and_disturb(explainer, image_folder, out, disturb, form)
    if how == "moved":
        assert not out.exists()
        aside.rename(out)
    elif how == "shared":
        manifest.write_bytes(manifest.read_bytes().replace(b'{"a": "line"}\n', b""))
    elif how == "manifest deleted":
        shutil.rmtree(out)
    explain_folder(explainer, image_folder, out, broken_jobs.settings(form))
    assert_same(out, uninterrupted(form), paths, form)


def test_images_that_disappear_fail_alone(explainer: Explainer, tmp_path: Path, out: Path) -> None:
    """Images are deleted, replaced by a folder or a pipe, or emptied between listing and reading."""
    paths = write_images(tmp_path / "images", 24)

    def disturb() -> None:
        for path in paths[-4:-1]:
            path.unlink()
        paths[-3].mkdir()
        os.mkfifo(paths[-2])
        paths[-1].write_bytes(b"")

    explain_and_disturb(explainer, tmp_path / "images", out, disturb)
    assert_complete(out, paths, "png")
    assert [line.get("error", "").partition(": ")[2] for line in lines(out)[-5:]] == [
        "",
        "cannot be read: No such file or directory",
        "is a folder, not an image",
        "cannot be read: it is a pipe, not a regular file",
        "the file is empty",
    ]


@pytest.mark.parametrize("argument", ["{}", "{}/**/*", "{}/*/*"])
def test_a_folder_that_cannot_be_listed(
    argument: str, model_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One such folder ends the job, because the number of its images is unknown."""
    write_images(tmp_path / "images", 6)
    unlistable = tmp_path / "images" / "1"
    if os.geteuid():
        unlistable.chmod(0)
    else:  # permissions do not apply to root
        scandir = os.scandir

        def refuse(path: Any) -> Any:
            if os.fspath(path) == str(unlistable):
                raise PermissionError(errno.EACCES, "Permission denied", os.fspath(path))
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
    result = command_line.run("explain", model_path, argument.format(tmp_path / "images"), "-o", tmp_path / "out")
    command_line.failed(result, f"{unlistable}: cannot be listed: Permission denied")
    assert not (tmp_path / "out").exists()
