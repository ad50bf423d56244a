"""Tests of jobs that are interrupted, disturbed or started in a wrong folder: nothing is lost or repeated."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from seewhy import Explainer, OutputError, Settings, explain_folder
from seewhy.bulk.folder_job import FolderJob
from seewhy.bulk.job_request import resolve_job
from seewhy.inputs.image_inputs import Inputs
from seewhy.storage.folder_lock import locked
from support.jobs import broken_jobs
from support.jobs.broken_jobs import FORMATS, assert_complete, assert_same, lines
from support.jobs.resumed_jobs import (
    copied,
    refused,
)

COUNT = 13


# What a process that was killed, or a power failure, leaves.


@pytest.mark.parametrize("form", FORMATS)
def test_an_unbroken_run(form: str, whole: Callable[[str], Path], paths: list[Path]) -> None:
    """The comparison itself: all formats name the same failures."""
    assert_complete(whole(form), paths, form)
    assert [line["path"] for line in lines(whole(form)) if line["status"] == "failed"] == [
        str(path) for path in paths if "error" in dict(zip(paths, lines(whole("png")), strict=True))[path]
    ]
    assert sum(line["status"] == "failed" for line in lines(whole(form))) == 3


def test_unfinished_files_go_when_a_run_begins(explainer: Explainer, photos: Path, out: Path) -> None:
    """Not only when it ends: a disk that they have filled would be full for the next run too."""
    (out / ".seewhy-unfinished").mkdir(parents=True)
    (out / ".seewhy-unfinished" / "0.1.tmp").write_bytes(b"half a picture")
    with closing(iter(FolderJob(resolve_job(explainer, Settings()), Inputs([photos], out), out))) as outcomes:
        next(outcomes)
        assert not (out / ".seewhy-unfinished" / "0.1.tmp").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_torn_manifest(
    form: str, whole: Callable[[str], Path], explainer: Explainer, photos: Path, paths: list[Path], out: Path
) -> None:
    """Cut anywhere, with and without zeros where a line should be."""
    whole_lines = (whole(form) / "manifest.jsonl").read_bytes()
    cuts = np.random.default_rng(5).integers(0, len(whole_lines), 3).tolist()
    cuts += [len(whole_lines) - 1, whole_lines.index(b"\n")]  # a line without its end is torn, too
    for number, end in enumerate(cuts):
        manifest = copied(whole(form), out)
        manifest.write_bytes(manifest.read_bytes()[:end] + bytes(100 * (number % 2)))
        summary = explain_folder(explainer, photos, out, broken_jobs.settings(form))
        assert summary.already_recorded < COUNT == summary.done + summary.failed
        assert_same(out, whole(form), paths, form)
        shutil.rmtree(out)


@pytest.mark.parametrize("form", ["npz", "parquet"])
@pytest.mark.parametrize("left", [0, 1, 3])
def test_a_shard_that_lacks_lines_is_not_committed(
    left: int,
    form: str,
    whole: Callable[[str], Path],
    explainer: Explainer,
    photos: Path,
    paths: list[Path],
    out: Path,
) -> None:
    """All of its images are done again."""
    manifest = copied(whole(form), out)
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[: 8 + left]))
    summary = explain_folder(explainer, photos, out, broken_jobs.settings(form))
    assert summary.already_recorded == 8
    assert_same(out, whole(form), paths, form)


def test_a_shard_without_lines_goes(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, paths: list[Path], out: Path
) -> None:
    """Also where nothing takes its place: the images have been taken away meanwhile."""
    manifest = copied(whole("npz"), out)
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:8]))
    explain_folder(explainer, paths[:8], out, broken_jobs.settings("npz"))
    assert_complete(out, paths[:8], "npz")


@pytest.mark.parametrize("form", ["png", "npz"])
@pytest.mark.parametrize(
    "spoil",
    [
        lambda line: b"nonsense\n",
        lambda line: line[:20] + b"\n",
        lambda line: b"[]\n",
        lambda line: b'{"path": 1}\n',
        lambda line: re.sub(rb'"status": "\w+"', b'"status": "lost"', line),
        lambda line: line.replace(b'"path": "', b'"path": "\\q'),
        lambda line: b'{"path": "a", "id": null, "target": null, "status": "done", "files": [1], "explained": []}\n',
        lambda line: b"\n",
    ],
)
def test_a_damaged_line_in_the_middle_is_refused(
    spoil: Callable[[bytes], bytes],
    form: str,
    whole: Callable[[str], Path],
    explainer: Explainer,
    photos: Path,
    out: Path,
) -> None:
    manifest = copied(whole(form), out)
    parts = manifest.read_bytes().splitlines(keepends=True)
    parts[6] = spoil(parts[6])
    manifest.write_bytes(b"".join(parts))
    refused(out, "damaged at line 7", lambda: explain_folder(explainer, photos, out, broken_jobs.settings(form)))
    # What the message says to do helps.
    manifest.write_bytes(b"".join(parts[:6]))
    assert explain_folder(explainer, photos, out, broken_jobs.settings(form)).done == COUNT - 3


def test_lines_missing_or_twice_are_refused(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    manifest = copied(whole("npz"), out)
    parts = manifest.read_bytes().splitlines(keepends=True)
    for spoiled, words in [
        (parts[:6] + parts[8:], r"damaged at line 7: 2 lines of shards/00001\.npz are missing"),
        (parts[:4] + parts[:4] + parts[8:], "damaged at line 5: the image has a line already"),
    ]:
        manifest.write_bytes(b"".join(spoiled))
        refused(out, words, lambda: explain_folder(explainer, photos, out, broken_jobs.settings("npz")))


def test_what_is_gone_is_refused(whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path) -> None:
    def run() -> None:
        explain_folder(explainer, photos, out, broken_jobs.settings("npz"))

    manifest = copied(whole("npz"), out)
    for path, words in [
        (out / "run.json", r"manifest\.jsonl: the folder has no run\.json"),
        (manifest, r"manifest\.jsonl: is gone"),
    ]:
        content = path.read_bytes()
        path.unlink()
        refused(out, words, run)
        path.write_bytes(content)
    run()
    manifest.unlink()
    (out / "run.json").unlink()
    refused(out, r"00000\.npz: the folder has no run\.json", run)
    words = r"00000\.npz: the folder has no run\.json .* choose another output folder, or delete the file yourself$"
    # Another program may have written them.
    refused(out, words, lambda: explain_folder(explainer, photos, out, broken_jobs.settings("npz"), restart=True))


def test_a_manifest_that_is_gone_from_a_first_run(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    """That run was killed, so that its record counts nothing yet; but there are shards."""
    copied(whole("npz"), out).unlink()
    facts = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**facts, "images": {"done": 0, "failed": 0}}))
    words = r"manifest\.jsonl: is gone, although shards/00000\.npz exists"
    refused(out, words, lambda: explain_folder(explainer, photos, out, broken_jobs.settings("npz")))
    explain_folder(explainer, photos, out, broken_jobs.settings("npz"), restart=True)
    assert len(lines(out)) == COUNT


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_record_of_the_run_is_refused(
    content: bytes, whole: Callable[[str], Path], explainer: Explainer, photos: Path, out: Path
) -> None:
    copied(whole("png"), out)
    (out / "run.json").write_bytes(content)
    refused(out, r"run\.json: damaged", lambda: explain_folder(explainer, photos, out))


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize(
    "content", [b"{}", b"[1]", b'{"name": "training", "schema": 1}', b'{"versions": {"torch": "2"}}']
)
def test_another_program_s_record_stays(
    content: bytes, restart: bool, explainer: Explainer, photos: Path, out: Path
) -> None:
    """It is a common name."""
    (out / "shards").mkdir(parents=True)
    (out / "shards" / "00000.npz").write_bytes(b"mine")
    (out / "run.json").write_bytes(content)
    settings = broken_jobs.settings("npz")
    words = r"run\.json: not written by SeeWhy"
    refused(out, words, lambda: explain_folder(explainer, photos, out, settings, restart=restart))


@pytest.mark.parametrize("content", [b'{"mine": 1}', b'{"mine": 1}\n', b"\0" * 40])
def test_another_program_s_manifest_stays(content: bytes, explainer: Explainer, photos: Path, out: Path) -> None:
    out.mkdir()
    (out / "manifest.jsonl").write_bytes(content)
    refused(out, r"the folder has no run\.json that records", lambda: explain_folder(explainer, photos, out))


@pytest.mark.parametrize("form", ["png", "npz"])
def test_the_record_of_the_run_is_on_the_disk_before_the_first_line(
    form: str, explainer: Explainer, photos: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And every file before the line that speaks of it."""
    safe: set[str] = set()
    fsync, pwrite, replace = os.fsync, os.pwrite, os.replace

    def name(file: int) -> str:
        return os.path.relpath(os.readlink(f"/proc/self/fd/{file}"), os.path.realpath(out))

    def sync(file: int) -> None:
        fsync(file)
        safe.add(name(file))

    def move(source: Path, target: Path) -> None:
        replace(source, target)
        before, after = (os.path.relpath(path, os.path.realpath(out)) for path in (source, os.path.realpath(target)))
        if before in safe:
            safe.add(after)

    def write(file: int, data: bytes, offset: int) -> int:
        if name(file) == "manifest.jsonl":
            records = [json.loads(line) for line in data.splitlines()]
            named = {each["path"] for line in records for each in line.get("files", ())}
            named |= {line["shard"]["path"] for line in records if "shard" in line}
            assert named
            assert {"run.json", ".", *named, *map(os.path.dirname, named)} - {""} <= safe
            assert all((out / each).is_file() for each in named)
        return pwrite(file, data, offset)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", move)
    monkeypatch.setattr(os, "pwrite", write)
    explain_folder(explainer, photos, out, broken_jobs.settings(form))
    assert len(safe) > 5


# Two runs at once.


def test_the_second_run_is_refused(
    whole: Callable[[str], Path], explainer: Explainer, photos: Path, paths: list[Path], out: Path
) -> None:
    with closing(iter(FolderJob(resolve_job(explainer, Settings()), Inputs([photos], out), out))) as first:
        next(first)
        for restart in (False, True):
            with pytest.raises(OutputError, match=rf"another job \(process {os.getpid()} on .*\) is writing here"):
                explain_folder(explainer, photos, out, restart=restart)
        assert len(list(first)) == COUNT - 1
    assert_same(out, whole("png"), paths, "png")


def test_a_killed_process_holds_no_lock(tmp_path: Path) -> None:
    code = "import sys, time; from pathlib import Path; from seewhy.storage.folder_lock import locked\n"
    code += "with locked(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"held\n"
        with pytest.raises(OutputError, match=f"another job .process {process.pid} on"), locked(tmp_path):
            pass
        process.kill()
    with locked(tmp_path), pytest.raises(OutputError, match=f"process {os.getpid()} on"), locked(tmp_path):
        pass
