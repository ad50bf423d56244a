"""Tests of jobs that are killed at random moments or at every critical call, and then resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer, evaluate, explain_folder
from support.jobs import broken_jobs
from support.jobs.broken_jobs import FORMATS, assert_complete, assert_same, lines, write_images
from support.jobs.killed_jobs import EVALUATION
from support.repository import ROOT

PROGRAM = ROOT / "tests" / "support" / "jobs" / "killed_jobs.py"

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX processes")


@pytest.mark.parametrize(
    ("step", "form"),
    [
        *((17, form) for form in ("png", "npz")),
        *(pytest.param(step, form, marks=pytest.mark.slow) for step, form in [(1, "png"), (1, "npz"), (4, "parquet")]),
    ],
)
def test_killed_at_every_critical_call(
    step: int, form: str, model_path: Path, explainer: Explainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Jobs are killed at calls that change files, before the call or halfway through a write."""
    settings = broken_jobs.settings(form)
    image_folder, folder = tmp_path / "images", tmp_path / "killed"
    folder.mkdir()
    paths = write_images(image_folder, 12, 2)
    command = [sys.executable, PROGRAM, model_path, image_folder, folder, form, step]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    monkeypatch.setattr(os, "fsync", lambda file: None)
    explain_folder(explainer, image_folder, tmp_path / "uninterrupted", settings)
    kills = int(done.stdout)
    assert kills * step > 30
    before = []
    for number in range(1, 1 + kills * step, step):
        assert_files_are_complete(folder / str(number))
        before.append(explain_folder(explainer, image_folder, folder / str(number), settings).already_recorded)
        assert_same(folder / str(number), tmp_path / "uninterrupted", paths, form)
    # The killed jobs recorded from none to nearly all images. A large step may skip the few calls between two commits,
    # because threads change the order of the calls.
    assert before[0] == 0
    assert step > 4 or (len(set(before)) >= 3 and max(before) >= 8)


def test_evaluations_killed_at_every_critical_call(model_path: Path, explainer: Explainer, tmp_path: Path) -> None:
    """Killed evaluations go on, and end with the same files as one that was not killed."""
    image_folder, folder = tmp_path / "images", tmp_path / "killed"
    folder.mkdir()
    write_images(image_folder, 12, 2)
    command = [sys.executable, PROGRAM, model_path, image_folder, folder, "evaluation", 7]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    expected = evaluate(explainer, image_folder, tmp_path / "uninterrupted", **EVALUATION)
    kills = int(done.stdout)
    assert kills > 3
    for number in range(1, 1 + 7 * kills, 7):
        assert evaluate(explainer, image_folder, folder / str(number), **EVALUATION).metrics == expected.metrics
        for name in ("summary.json", "per-image.csv"):
            assert (folder / str(number) / name).read_bytes() == (tmp_path / "uninterrupted" / name).read_bytes()


def assert_files_are_complete(folder: Path) -> None:
    """Assert that all files are complete, except those with the names of unfinished files."""
    for path in folder.rglob("*.*"):
        if path.suffix == ".png":
            with Image.open(path) as image:
                image.load()
        elif path.suffix in (".npz", ".parquet"):
            assert list(broken_jobs.shard(path))
        elif path.name == "run.json":
            json.loads(path.read_bytes())
        else:
            assert path.name in ("manifest.jsonl", ".seewhy.lock", ".seewhy-unfinished") or path.suffix == ".tmp", path


def start_seewhy(command: list[object]) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "seewhy", *command]
    return subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def wait_until(process: subprocess.Popen[str], condition: Callable[[], object]) -> bool:
    """Wait until `condition` returns a true value; return False if the process ends first."""
    end = time.monotonic() + 120
    while not condition():
        if process.poll() is not None:
            return False
        assert time.monotonic() < end
        time.sleep(0.0005)
    return True


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMATS)
def test_killed_at_random_moments(form: str, model_path: Path, explainer: Explainer, tmp_path: Path) -> None:
    """A job over 500 images, some damaged, is killed 30 times while it explains images, and then resumed to its end."""
    image_folder, out = tmp_path / "images", tmp_path / "out"
    paths = write_images(image_folder, 500, 25)
    # The job is slow enough that images are left after 30 attempts, even if kills come late on a busy machine.
    shards = form != "png"
    slow: dict[str, Any] = {"methods": ["smoothgrad"], "options": {"smoothgrad": {"samples": 8}}, "full_size": shards}
    settings = broken_jobs.settings(form, 6, **slow)
    command = ["explain", model_path, image_folder, "-o", out, "-q", "--format", form, "--shard-size", 6]
    command += ["--method", "smoothgrad", "--option", "smoothgrad.samples=8", *["--full-size"] * shards]
    random = np.random.default_rng(FORMATS.index(form))
    manifest = out / "manifest.jsonl"

    def size() -> int:
        return manifest.stat().st_size if manifest.exists() else 0

    def results() -> Iterator[object]:
        """Yield the modification time and the number of files of each folder with results."""
        for folder in (out / ".seewhy-unfinished", out / "0", out / "1", out / "2", out / "shards"):
            try:
                found = folder.stat().st_mtime_ns, len(list(folder.iterdir()))
            except FileNotFoundError:  # not created yet, or a new attempt is deleting the files of a killed one
                continue
            yield found

    done = []
    for kill in range(30):
        before = size()
        process = start_seewhy(command)
        # Shards are recorded every 6 images, overlays every 64, so most kills come before the next record of overlays.
        if form != "png" or kill % 6 == 5:
            assert wait_until(process, lambda before=before: size() > before), process.stderr and process.stderr.read()
        else:
            assert wait_until(process, (out / ".seewhy-unfinished").exists)
            state = list(results())
            assert wait_until(process, lambda state=state: list(results()) != state)
        time.sleep(random.uniform(0, 0.02))
        process.kill()
        process.communicate()
        assert process.returncode == -signal.SIGKILL  # the job had not finished
        done.append(size())
        assert_files_are_complete(out)
    assert 0 < done[-1] and len(set(done)) >= 5
    with start_seewhy(command) as process:
        _, errors = process.communicate(timeout=300)
    assert process.returncode == 1 and "500 images" in errors and "25 failed" in errors
    explain_folder(explainer, image_folder, tmp_path / "uninterrupted", settings)
    assert_same(out, tmp_path / "uninterrupted", paths, form)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["png", "npz"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("times", [1, 2])
def test_signals(
    times: int, number: signal.Signals, form: str, model_path: Path, explainer: Explainer, tmp_path: Path
) -> None:
    """The first signal finishes the images in progress, the second stops at once. Both print how to resume."""
    image_folder, out = tmp_path / "images", tmp_path / "out"
    paths = write_images(image_folder, 400, 10)
    command = ["explain", model_path, image_folder, "-o", out, "-q", "--format", form, "--shard-size", 50]
    command += ["--method", "smoothgrad", "--option", "smoothgrad.samples=20", "--full-size"][
        : 4 if form == "png" else 5
    ]
    process = start_seewhy(command)
    manifest = out / "manifest.jsonl"
    assert wait_until(process, lambda: manifest.exists() and manifest.stat().st_size)
    process.send_signal(number)
    assert process.stderr is not None
    line = ""
    while "finishing the images in progress" not in line:
        line = process.stderr.readline()
        assert line or process.poll() is None
    if times == 2:
        process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert f"stopped by {number.name}" in errors and errors.endswith("Run the same command again to resume.\n")
    assert "Traceback" not in errors
    count = len(lines(out))
    assert 0 < count < 400
    if times == 1:
        assert_complete(out, paths[:count], form)
    else:
        assert_files_are_complete(out)
    method = broken_jobs.settings(
        form, 50, methods=["smoothgrad"], options={"smoothgrad": {"samples": 20}}, full_size=form != "png"
    )
    explain_folder(explainer, image_folder, out, method)
    explain_folder(explainer, image_folder, tmp_path / "uninterrupted", method)
    assert_same(out, tmp_path / "uninterrupted", paths, form)


@pytest.mark.parametrize("after", [0, 0.02, 0.04, 0.06])
def test_signals_during_shutdown(after: float, model_path: Path, tmp_path: Path) -> None:
    """They do not change the exit status and the messages."""
    write_images(tmp_path / "images", 400)
    command = ["explain", model_path, tmp_path / "images", "-o", tmp_path / "out", "-q", "--format", "npz"]
    process = start_seewhy([*command, "--full-size", "--method", "smoothgrad", "--option", "smoothgrad.samples=50"])
    assert wait_until(process, (tmp_path / "out" / "manifest.jsonl").exists)
    process.send_signal(signal.SIGTERM)
    assert process.stderr is not None
    line = ""
    while "to resume." not in line:
        line = process.stderr.readline()
        assert line or process.poll() is None
    time.sleep(after)
    while process.poll() is None:
        process.send_signal(signal.SIGTERM)
        time.sleep(0.0002)
    assert process.returncode == 128 + signal.SIGTERM
    repeated_message = "seewhy: stopped by SIGTERM at once. Run the same command again to resume.\n"
    assert process.stderr.read() in ("", repeated_message)
    process.stderr.close()


def test_the_second_signal_stops_at_once(model_path: Path, tmp_path: Path) -> None:
    """It waits neither for the image in progress nor for a closed standard error."""
    write_images(tmp_path / "images", 3)
    command = ["explain", model_path, tmp_path / "images", "-o", tmp_path / "out", "-q", "--method", "smoothgrad"]
    process = start_seewhy([*command, "--option", "smoothgrad.samples=100000"])
    assert wait_until(process, (tmp_path / "out" / "manifest.jsonl").exists)
    time.sleep(0.5)  # the first image is in progress
    assert process.stderr is not None
    process.stderr.close()
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    while process.poll() is None:  # two signals in quick succession may arrive as one
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
    assert process.returncode == 128 + signal.SIGINT
    assert lines(tmp_path / "out") == []


def test_exit_statuses(model_path: Path, tmp_path: Path) -> None:
    """Jobs that stop early record the finished images."""
    from support import command_line

    paths = write_images(tmp_path / "images", 300, 40)
    first = next(i for i, path in enumerate(paths) if not intact(path))
    base = ["explain", model_path, tmp_path / "images", "-q", "--format", "npz", "-o"]
    result = command_line.run(*base, tmp_path / "a", "--fail-fast")
    assert result.exit_code == 1 and "an image failed after " in result.stderr
    assert first < len(lines(tmp_path / "a")) < 300
    assert_complete(tmp_path / "a", paths[: len(lines(tmp_path / "a"))], "npz")
    result = command_line.run(*base, tmp_path / "a", "--fail-fast", "--restart")
    assert "Run the same command without --restart to resume." in result.stderr
    result = command_line.run(*base, tmp_path / "b", "--max-failure-rate", 0.05)
    assert result.exit_code == 1 and "images failed, more than 5 % after " in result.stderr
    assert 100 <= len(lines(tmp_path / "b")) < 300
    result = command_line.run(*base, tmp_path / "b", "--max-failure-rate", 0.5)
    assert result.exit_code == 1 and "300 images" in result.stderr and "40 failed" in result.stderr
    assert_complete(tmp_path / "b", paths, "npz")
    damaged = [path for path in paths if not intact(path)]
    result = command_line.run("explain", model_path, *damaged, "-q", "-o", tmp_path / "c")
    assert result.exit_code == 2 and "40 failed" in result.stderr
    assert_complete(tmp_path / "c", damaged, "png")
    good = [path for path in paths if intact(path)]
    assert command_line.run("explain", model_path, *good[:9], "-q", "-o", tmp_path / "d", "--fail-fast").exit_code == 0
    assert command_line.run("explain", model_path, *good[:9], "-q", "-o", tmp_path / "d", "--restart").exit_code == 0
    shutil.rmtree(tmp_path / "d")


def intact(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
    except Exception:  # noqa: BLE001  Pillow raises many exceptions for damaged files
        return False
    return True
