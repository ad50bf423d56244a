"""Tests of `seewhy.cli`: output and files of the commands, and one line with exit status 2 for each error."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer, __version__
from seewhy.methods.registry import METHODS
from support.command_line import failed, results, run
from support.tiny_model import Tiny, load

MakeImage = Callable[..., Image.Image]


def test_version() -> None:
    assert run("--version").output == f"seewhy {__version__}\n"


def test_module_and_script() -> None:
    done = subprocess.run([sys.executable, "-m", "seewhy", "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout == f"seewhy {__version__}\n"


def test_explain(model_path: Path, cat: Path, tmp_path: Path) -> None:
    result = run("explain", model_path, cat, "-o", tmp_path / "out")
    assert result.exit_code == 0 and result.stderr == ""
    expected = Explainer(model_path).explain(cat)
    figure = tmp_path / "out" / "cat.gradcam.png"
    score = 100 * expected.probabilities[0, expected.targets[0]]  # type: ignore[index]
    assert result.stdout == f"{cat}: {expected.labels[0]} ({score:.1f} %) -> {figure}\n"
    assert np.array_equal(load(figure), np.asarray(expected.figures()[0]))


def test_explain_with_every_option(model_path: Path, cat: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--method", "backprop", "--method", "gradcam", "--target", "espresso", "--target", "3", "--save-raw"]
    options += ["--colormap", "viridis", "--alpha", "0.7", "--canvas", "original", "--provider", "cpu", "--plain"]
    result = run("explain", model_path, cat, "-o", out, *options, "--threads", 1, "--batch-size", 2, "--no-verify")
    assert result.exit_code == 0, result.stderr
    assert [line.split(": ")[1].split(" (")[0] for line in result.stdout.splitlines()] == ["espresso", "moped"]
    assert results(out) == [
        *("cat.backprop.1-espresso.png", "cat.backprop.2-moped.png", "cat.backprop.npz"),
        *("cat.gradcam.1-espresso.png", "cat.gradcam.2-moped.png", "cat.gradcam.npz", "cat.sheet.png"),
    ]
    expected = Explainer(model_path).explain(cat, target="espresso").overlays("viridis", 0.7, "original")[0]
    assert np.array_equal(load(out / "cat.gradcam.1-espresso.png"), np.asarray(expected))


@pytest.mark.parametrize("options", [["--format", "jpg"], ["--format", "jpg", "--quality", "30"], ["--format", "webp"]])
def test_formats(model_path: Path, cat: Path, tmp_path: Path, options: list[str]) -> None:
    result = run("explain", model_path, cat, "-o", tmp_path / "out", *options)
    assert result.exit_code == 0, result.stderr
    [figure] = (tmp_path / "out").glob("cat*")
    assert result.stdout.endswith(f"-> {figure}\n") and figure.name == f"cat.gradcam.{options[1]}"
    file = io.BytesIO()
    expected = Explainer(model_path).explain(cat).figures()[0]
    expected.save(file, {"jpg": "JPEG", "webp": "WEBP"}[options[1]], quality=int(options[3]) if options[2:] else 90)
    assert figure.read_bytes() == file.getvalue()


def test_options_are_checked_before_folders_are_searched(model_path: Path, tmp_path: Path) -> None:
    arguments = ["explain", model_path, tmp_path, "-o", tmp_path / "out"]
    failed(run(*arguments), "the folder holds no images")
    failed(run(*arguments, "--method", "magic"), "Unknown method 'magic'")
    failed(run(*arguments, "--method", "smoothgrad", "--option", "smoothgrad.samples=0"), "samples must be an integer")
    assert not (tmp_path / "out").exists()


def test_a_class_named_twice(model_path: Path, cat: Path, tmp_path: Path) -> None:
    result = run("explain", model_path, cat, "-o", tmp_path / "out", *("--target", 1, "--target", "espresso"))
    assert len(result.stdout.splitlines()) == 1
    assert results(tmp_path / "out") == ["cat.gradcam.png"]


def test_options_of_methods(model_path: Path, cat: Path, tmp_path: Path) -> None:
    """Options reach the method, and the raw arrays record them."""
    out = tmp_path / "out"
    options = ["--method", "smoothgrad", "--option", "smoothgrad.samples=3", "--option", "smoothgrad.noise=0.3"]
    result = run("explain", model_path, cat, "-o", out, *options, "--save-raw")
    assert result.exit_code == 0, result.stderr
    used = {"samples": 3, "noise": 0.3, "seed": 0}
    expected = Explainer(model_path).explain(cat, "smoothgrad", options={"smoothgrad": {"samples": 3, "noise": 0.3}})
    with np.load(out / "cat.smoothgrad.npz") as saved:
        assert np.array_equal(saved["attributions"], expected.attributions[0])
        assert json.loads(str(saved["options"])) == used == expected.options
        assert "completeness" not in saved


def test_completeness_is_shown(model_path: Path, cat: Path, tmp_path: Path) -> None:
    methods = ["--method", "gradcam", "--method", "integrated-gradients", "--option", "integrated-gradients.steps=2"]
    result = run("explain", model_path, cat, "-o", tmp_path / "out", *methods, "--top", 2, "--save-raw")
    assert result.exit_code == 0, result.stderr
    with np.load(tmp_path / "out" / "cat.integrated-gradients.npz") as saved:
        errors = saved["completeness"]
    assert errors.shape == (2,)
    shown = re.findall(r" %, completeness error ([^)]+)\) -> ", result.stdout)
    assert shown == [f"{error:.2g}" for error in errors]


def test_help_lists_the_options() -> None:
    help_text = run("explain", "--help").stdout
    for method in METHODS.values():
        for option in method.options:
            assert f"{method.name}.{option.name}={option.default}" in help_text


def test_top(model_path: Path, cat: Path, tmp_path: Path) -> None:
    result = run("explain", model_path, cat, "-o", tmp_path / "out", "--top", 6)
    shares = [float(re.findall(r"\(([\d.]+) %\)", line)[0]) for line in result.stdout.splitlines()]
    assert len(shares) == 6 and shares == sorted(shares, reverse=True) and sum(shares) == pytest.approx(100, abs=0.4)


def test_folder_with_a_bad_image(model_path: Path, cat: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.jpg", "c.jpg"):
        (folder / name).write_bytes(cat.read_bytes())
    (folder / "b.jpg").write_bytes(cat.read_bytes()[:200])
    out = tmp_path / "out"
    result = run("explain", model_path, folder, "-o", out)
    assert result.exit_code == 1
    error, summary = result.stderr.splitlines()
    assert error.startswith(f"seewhy: error: {folder / 'b.jpg'}: ")
    assert summary == f"seewhy: 3 images: 2 explained, 1 failed. See {out / 'manifest.jsonl'}"
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [str(folder / "a.jpg"), str(folder / "c.jpg")]
    assert results(out) == ["a.gradcam.png", "c.gradcam.png"]


def test_text_from_files_cannot_control_the_terminal(tmp_path: Path, make_image: MakeImage) -> None:
    labels = ("\x1b]0;owned\x07", "b\r\nfake: line", "\u202ec", "\x9bd", "e", "f")
    model = Tiny(labels=labels).save(tmp_path / "m\x1b[2J.onnx")
    path = tmp_path / "evil\x1b[31m\nname.png"
    make_image().save(path)
    for result in [
        run("explain", model, path, "-o", tmp_path / "out", "--top", 6, "--method", "gradcam", "--method", "cam"),
        run("explain", model, tmp_path / "no\x1b\n.png", "-o", tmp_path / "out"),
        run("explain", tmp_path / "no\x1b\n.onnx", path, "-o", tmp_path / "out"),
        run("inspect", model),
    ]:
        text = result.stdout + result.stderr
        assert text and all(character.isprintable() or character == "\n" for character in text)
        assert not any(line.startswith("fake") for line in text.splitlines())
    assert all(path.name.isprintable() for path in (tmp_path / "out").iterdir())
    assert json.loads(run("inspect", model, "--json").stdout)["labels"] == list(labels)


def test_output_encoding_without_the_characters(tmp_path: Path, cat: Path) -> None:
    model = Tiny(labels=("犬",) * 6).save(tmp_path / "m.onnx")
    command = [sys.executable, "-m", "seewhy", "explain", str(model), str(cat), "-o", str(tmp_path / "out")]
    done = subprocess.run(
        command, capture_output=True, timeout=60, env={**os.environ, "PYTHONIOENCODING": "latin-1", "PYTHONUTF8": "0"}
    )
    assert done.returncode == 0, done.stderr
    assert b"\\u72ac" in done.stdout


def test_quiet_when_piped(model_path: Path, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("seewhy.cli.progress.DELAY", -1.0)
    result = run("explain", model_path, cat, "-o", tmp_path / "out")
    assert result.stderr == "" and "\r" not in result.stdout and len(result.stdout.splitlines()) == 1


def test_keyboard_interrupt(monkeypatch: pytest.MonkeyPatch, model_path: Path, cat: Path, tmp_path: Path) -> None:
    def interrupt(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Explainer, "explain_resolved", interrupt)
    result = run("explain", model_path, cat, "-o", tmp_path / "out")
    assert result.exit_code == 128 + signal.SIGINT
    assert result.stderr == "seewhy: stopped by SIGINT at once. Run the same command again to resume.\n"


@pytest.mark.skipif(os.name != "posix", reason="POSIX signals")
def test_interrupt_from_the_terminal(model_path: Path, cat: Path, tmp_path: Path) -> None:
    """Images in progress are finished, no incomplete file stays, and the process ends by itself."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2000):
        (folder / f"{number}.jpg").write_bytes(cat.read_bytes())
    command = [sys.executable, "-m", "seewhy", "explain", model_path, folder, "-o", tmp_path / "out", "--plain"]
    # Unbuffered, because `communicate` does not see lines that `readline` has buffered.
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0) as process:
        assert process.stdout is not None and b"0.jpg: " in process.stdout.readline()
        process.send_signal(signal.SIGINT)
        rest, errors = (text.decode() for text in process.communicate(timeout=60))
    assert process.returncode == 128 + signal.SIGINT
    written = results(tmp_path / "out")
    assert len(rest.splitlines()) + 1 == len(written) < 2000
    expected = f"stopped by SIGINT after {len(written)} of 2,000 images: {len(written)} explained, 0 failed."
    assert "finishing the images in progress" in errors
    assert errors.endswith(f"seewhy: {expected} Run the same command again to resume.\n")
    assert all(load(tmp_path / "out" / name).shape == (12, 16, 3) for name in written)
    assert len((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()) == len(written)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux")
@pytest.mark.parametrize("reader", ["full", "gone"])
def test_standard_output_that_cannot_be_written(reader: str, model_path: Path, cat: Path, tmp_path: Path) -> None:
    """The error does not blame the output folder, and the job can resume."""
    command = [sys.executable, "-m", "seewhy", "explain", model_path, cat, "-o", tmp_path / "out"]
    ends = os.pipe()
    os.close(ends[0])
    with open("/dev/full", "wb") if reader == "full" else open(ends[1], "wb", closefd=False) as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(ends[1])
    reason = "No space left on device" if reader == "full" else "Broken pipe"
    hint = "use -q to print no lines. Run the same command again to resume."
    assert (done.returncode, done.stderr) == (2, f"seewhy: error: standard output: {reason}; {hint}\n")
    assert len((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()) == 1


@pytest.mark.skipif(os.name != "posix", reason="a POSIX shell")
@pytest.mark.parametrize("closed", ["1>&-", "2>&-", "1>&- 2>&-"])
def test_without_standard_streams(closed: str, model_path: Path, cat: Path, tmp_path: Path) -> None:
    command = f'"$0" -m seewhy explain "$1" "$2" -o "$3" {closed}'
    done = subprocess.run(["sh", "-c", command, sys.executable, model_path, cat, tmp_path / "out"], timeout=60)
    assert done.returncode == 0
    assert len((tmp_path / "out" / "manifest.jsonl").read_text().splitlines()) == 1


def test_an_interrupt_before_the_job_starts(model_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The exit status is not click's, which would mean that some images failed."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("seewhy.runtime.model_file.ModelFile.inspect", interrupt)
    result = run("inspect", model_path)
    assert (result.exit_code, result.stderr) == (130, "seewhy: stopped by SIGINT\n")


def test_changed_images(model_path: Path, make_image: MakeImage, tmp_path: Path) -> None:
    make_image(seed=1).save(tmp_path / "a.png")
    make_image(seed=2).save(tmp_path / "b.png")
    command = ("explain", model_path, tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "out")
    assert run(*command).exit_code == 0
    make_image(60, 50, seed=3).save(tmp_path / "a.png")
    result = run(*command)
    assert result.exit_code == 0 and result.stderr.splitlines()[0] == (
        "seewhy: images whose files have changed since they were explained: 1; --changed explains them again"
    )
    result = run(*command, "--changed")
    assert "a.png: " in result.stdout and "b.png: " not in result.stdout
    assert "2 images: 2 explained, 0 failed (1 of the images in earlier attempts)" in result.stderr
    assert run("verify", tmp_path / "out").exit_code == 0


def test_a_job_that_its_last_image_stops(model_path: Path, make_image: MakeImage, tmp_path: Path) -> None:
    """The summary does not offer to resume, because no image is left."""
    make_image().save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"no image")
    result = run("explain", model_path, tmp_path / "a.png", tmp_path / "b.png", "-o", tmp_path / "out", "--fail-fast")
    assert result.exit_code == 1
    assert result.stderr.endswith(
        f"seewhy: an image failed after 2 images: 1 explained, 1 failed. See {tmp_path / 'out'}/manifest.jsonl\n"
    )
