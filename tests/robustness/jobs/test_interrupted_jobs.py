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


# State after a kill or a power failure.


@pytest.mark.parametrize("form", FORMATS)
def test_an_uninterrupted_job(form: str, uninterrupted: Callable[[str], Path], paths: list[Path]) -> None:
    """Check the job that the other tests compare with: all formats record the same failures."""
    assert_complete(uninterrupted(form), paths, form)
    assert [line["path"] for line in lines(uninterrupted(form)) if line["status"] == "failed"] == [
        str(path) for path in paths if "error" in dict(zip(paths, lines(uninterrupted("png")), strict=True))[path]
    ]
    assert sum(line["status"] == "failed" for line in lines(uninterrupted(form))) == 3


def test_unfinished_files_are_deleted_at_the_start(explainer: Explainer, image_folder: Path, out: Path) -> None:
    """They must not wait for the end of the job, because they may have filled the disk."""
    (out / ".seewhy-unfinished").mkdir(parents=True)
    (out / ".seewhy-unfinished" / "0.1.tmp").write_bytes(b"half an image")
    with closing(iter(FolderJob(resolve_job(explainer, Settings()), Inputs([image_folder], out), out))) as outcomes:
        next(outcomes)
        assert not (out / ".seewhy-unfinished" / "0.1.tmp").exists()


@pytest.mark.parametrize("form", FORMATS)
def test_a_truncated_manifest(
    form: str,
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    paths: list[Path],
    out: Path,
) -> None:
    """The manifest ends anywhere, with or without zeros in place of a line."""
    complete_manifest = (uninterrupted(form) / "manifest.jsonl").read_bytes()
    cuts = np.random.default_rng(5).integers(0, len(complete_manifest), 3).tolist()
    cuts += [
        len(complete_manifest) - 1,
        complete_manifest.index(b"\n"),
    ]  # a line without its line break is incomplete, too
    for number, end in enumerate(cuts):
        manifest = copied(uninterrupted(form), out)
        manifest.write_bytes(manifest.read_bytes()[:end] + bytes(100 * (number % 2)))
        summary = explain_folder(explainer, image_folder, out, broken_jobs.settings(form))
        assert summary.already_recorded < COUNT == summary.done + summary.failed
        assert_same(out, uninterrupted(form), paths, form)
        shutil.rmtree(out)


@pytest.mark.parametrize("form", ["npz", "parquet"])
@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_shard_with_missing_lines_is_not_committed(
    kept: int,
    form: str,
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    paths: list[Path],
    out: Path,
) -> None:
    """All images of the shard are explained again."""
    manifest = copied(uninterrupted(form), out)
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[: 8 + kept]))
    summary = explain_folder(explainer, image_folder, out, broken_jobs.settings(form))
    assert summary.already_recorded == 8
    assert_same(out, uninterrupted(form), paths, form)


def test_a_shard_without_lines_is_deleted(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, paths: list[Path], out: Path
) -> None:
    """It is deleted even if nothing replaces it, because its images are no longer inputs."""
    manifest = copied(uninterrupted("npz"), out)
    manifest.write_bytes(b"".join(manifest.read_bytes().splitlines(keepends=True)[:8]))
    explain_folder(explainer, paths[:8], out, broken_jobs.settings("npz"))
    assert_complete(out, paths[:8], "npz")


@pytest.mark.parametrize("form", ["png", "npz"])
@pytest.mark.parametrize(
    "damage",
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
    damage: Callable[[bytes], bytes],
    form: str,
    uninterrupted: Callable[[str], Path],
    explainer: Explainer,
    image_folder: Path,
    out: Path,
) -> None:
    manifest = copied(uninterrupted(form), out)
    manifest_lines = manifest.read_bytes().splitlines(keepends=True)
    manifest_lines[6] = damage(manifest_lines[6])
    manifest.write_bytes(b"".join(manifest_lines))
    refused(out, "damaged at line 7", lambda: explain_folder(explainer, image_folder, out, broken_jobs.settings(form)))
    # Follow the advice of the error message.
    manifest.write_bytes(b"".join(manifest_lines[:6]))
    assert explain_folder(explainer, image_folder, out, broken_jobs.settings(form)).done == COUNT - 3


def test_missing_and_repeated_lines_are_refused(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    manifest = copied(uninterrupted("npz"), out)
    manifest_lines = manifest.read_bytes().splitlines(keepends=True)
    for damaged, words in [
        (manifest_lines[:6] + manifest_lines[8:], r"damaged at line 7: 2 lines of shards/00001\.npz are missing"),
        (
            manifest_lines[:4] + manifest_lines[:4] + manifest_lines[8:],
            "damaged at line 5: the image has a line already",
        ),
    ]:
        manifest.write_bytes(b"".join(damaged))
        refused(out, words, lambda: explain_folder(explainer, image_folder, out, broken_jobs.settings("npz")))


def test_missing_files_of_the_job_are_refused(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    def run() -> None:
        explain_folder(explainer, image_folder, out, broken_jobs.settings("npz"))

    manifest = copied(uninterrupted("npz"), out)
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
    # Without run.json, the owner of the shards is unknown.
    refused(out, words, lambda: explain_folder(explainer, image_folder, out, broken_jobs.settings("npz"), restart=True))


def test_a_missing_manifest_of_a_killed_first_attempt(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    """The attempt was killed, so run.json does not count images yet, but shards exist."""
    copied(uninterrupted("npz"), out).unlink()
    facts = json.loads((out / "run.json").read_text())
    (out / "run.json").write_text(json.dumps({**facts, "images": {"done": 0, "failed": 0}}))
    words = r"manifest\.jsonl: is gone, although shards/00000\.npz exists"
    refused(out, words, lambda: explain_folder(explainer, image_folder, out, broken_jobs.settings("npz")))
    explain_folder(explainer, image_folder, out, broken_jobs.settings("npz"), restart=True)
    assert len(lines(out)) == COUNT


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[" * 100_000])
def test_a_damaged_run_json_is_refused(
    content: bytes, uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, out: Path
) -> None:
    copied(uninterrupted("png"), out)
    (out / "run.json").write_bytes(content)
    refused(out, r"run\.json: damaged", lambda: explain_folder(explainer, image_folder, out))


@pytest.mark.parametrize("restart", [True, False])
@pytest.mark.parametrize(
    "content", [b"{}", b"[1]", b'{"name": "training", "schema": 1}', b'{"versions": {"torch": "2"}}']
)
def test_run_json_of_another_program_stays(
    content: bytes, restart: bool, explainer: Explainer, image_folder: Path, out: Path
) -> None:
    """`run.json` is a common file name."""
    (out / "shards").mkdir(parents=True)
    (out / "shards" / "00000.npz").write_bytes(b"mine")
    (out / "run.json").write_bytes(content)
    settings = broken_jobs.settings("npz")
    words = r"run\.json: not written by SeeWhy"
    refused(out, words, lambda: explain_folder(explainer, image_folder, out, settings, restart=restart))


@pytest.mark.parametrize("content", [b'{"mine": 1}', b'{"mine": 1}\n', b"\0" * 40])
def test_manifest_of_another_program_stays(content: bytes, explainer: Explainer, image_folder: Path, out: Path) -> None:
    out.mkdir()
    (out / "manifest.jsonl").write_bytes(content)
    refused(out, r"the folder has no run\.json that records", lambda: explain_folder(explainer, image_folder, out))


@pytest.mark.parametrize("form", ["png", "npz"])
def test_run_json_is_on_disk_before_the_first_line(
    form: str, explainer: Explainer, image_folder: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every result file must be on disk before the manifest line that names it, too."""
    on_disk: set[str] = set()
    fsync, pwrite, replace = os.fsync, os.pwrite, os.replace

    def name(file: int) -> str:
        return os.path.relpath(os.readlink(f"/proc/self/fd/{file}"), os.path.realpath(out))

    def sync(file: int) -> None:
        fsync(file)
        on_disk.add(name(file))

    def move(source: Path, target: Path) -> None:
        replace(source, target)
        before, after = (os.path.relpath(path, os.path.realpath(out)) for path in (source, os.path.realpath(target)))
        if before in on_disk:
            on_disk.add(after)

    def write(file: int, data: bytes, offset: int) -> int:
        if name(file) == "manifest.jsonl":
            records = [json.loads(line) for line in data.splitlines()]
            named = {each["path"] for line in records for each in line.get("files", ())}
            named |= {line["shard"]["path"] for line in records if "shard" in line}
            assert named
            assert {"run.json", ".", *named, *map(os.path.dirname, named)} - {""} <= on_disk
            assert all((out / each).is_file() for each in named)
        return pwrite(file, data, offset)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "replace", move)
    monkeypatch.setattr(os, "pwrite", write)
    explain_folder(explainer, image_folder, out, broken_jobs.settings(form))
    assert len(on_disk) > 5


# Two jobs in one folder at the same time.


def test_the_second_job_is_refused(
    uninterrupted: Callable[[str], Path], explainer: Explainer, image_folder: Path, paths: list[Path], out: Path
) -> None:
    with closing(iter(FolderJob(resolve_job(explainer, Settings()), Inputs([image_folder], out), out))) as first:
        next(first)
        for restart in (False, True):
            with pytest.raises(OutputError, match=rf"another job \(process {os.getpid()} on .*\) is writing here"):
                explain_folder(explainer, image_folder, out, restart=restart)
        assert len(list(first)) == COUNT - 1
    assert_same(out, uninterrupted("png"), paths, "png")


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
