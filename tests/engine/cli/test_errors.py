"""Tests of errors of the `seewhy` command: each is one line with exit status 2, without a traceback."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy.contract import checksum
from seewhy.storage import output_folder
from support.command_line import failed, results, run
from support.tiny_model import DEFAULT_OUTPUTS, Tiny, load, set_property

MakeImage = Callable[..., Image.Image]


def variants(tmp_path: Path) -> dict[str, Path]:
    tiny = Tiny()
    good = tiny.save(tmp_path / "good.onnx")
    bare = tiny.proto()
    del bare.metadata_props[:]
    files = {
        "text": b"hello",
        "empty": b"",
        "bare": bare.SerializeToString(),
        "newer": checksum.seal(set_property(tiny.proto(), "schema", 99).SerializeToString()),
        "cut": good.read_bytes()[:-500],
        "damaged": good.read_bytes().replace(tiny.weights()["fc.bias"].tobytes(), bytes(24)),
        "nan": checksum.seal(
            tiny.proto({**tiny.weights(), "fc.bias": np.full(6, np.nan, np.float32)}).SerializeToString()
        ),
    }
    for name, content in files.items():
        (tmp_path / f"{name}.onnx").write_bytes(content)
    tiny.save(tmp_path / "nocam.onnx", outputs=tuple(n for n in DEFAULT_OUTPUTS if n != "class_weights"))
    tiny.save(tmp_path / "nolabels.onnx", labels=None)
    return {path.stem: path for path in tmp_path.glob("*.onnx")}


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("none", [], r"none\.onnx: cannot be read: No such file"),
        ("text", [], r"text\.onnx: not an ONNX file"),
        ("empty", [], r"empty\.onnx: the file is empty"),
        ("bare", [], r"bare\.onnx: this ONNX file has no SeeWhy metadata; export the network with `seewhy export`"),
        ("newer", [], r"newer\.onnx: the file has schema 99, but this version of SeeWhy reads schema 3"),
        ("cut", [], r"cut\.onnx: not an ONNX file, or a truncated one"),
        ("damaged", [], r"damaged\.onnx: damaged or changed since it was exported"),
        ("nan", [], r"nan\.onnx: logits of image 0 holds NaN or infinity"),
        ("nocam", ["--method", "cam"], "cam needs a network that ends in global average pooling .* use gradcam"),
        ("good", ["--method", "magic"], "Unknown method 'magic'. Known methods: backprop"),
        ("good", ["--option", "samples=3"], "an option must have the form METHOD.NAME=VALUE, .* not 'samples=3'"),
        ("good", ["--option", "smoothgrad.samples=3"], "for smoothgrad, but the methods are gradcam"),
        ("good", ["--option", "gradcam.samples=3"], "gradcam has no option 'samples'; it has none"),
        ("good", ["--method", "smoothgrad", "--option", "smoothgrad.samples=x\x1b"], "from 1 to .*, not 'x.x1b'"),
        # Options are parsed before the model file is read.
        ("none", ["--option", "samples=3"], "an option must have the form METHOD.NAME=VALUE"),
        ("good", ["--method", "smoothgrad", "--option", "smoothgrad.samples=5e0"], "from 1 to 100000, not 5e0"),
        ("good", ["--target", "6"], "target 6 is out of range: the model has classes 0 to 5"),
        ("good", ["--target", "-1"], "target -1 is out of range"),
        ("good", ["--target", "expresso"], "Unknown label 'expresso' .* Did you mean 'espresso'"),
        ("good", ["--target", "crane"], "ambiguous: classes 2, 4"),
        ("nolabels", ["--target", "cat"], "holds no labels; give a class index"),
        ("good", ["--top", "7"], "top must be an integer from 1 to 6"),
        ("good", ["--top", "2", "--target", "1"], "target or top, not both"),
        ("good", ["--provider", "rocket"], "provider 'rocket' is not available .* CPUExecutionProvider"),
        ("good", ["--quality", "50"], "png is lossless and has no quality; leave the quality out"),
        ("good", ["--colormap", "rainbow"], "Unknown colormap 'rainbow'; choose one of inferno"),
    ],
)
def test_wrong_model_or_option(tmp_path: Path, cat: Path, model: str, options: list[str], words: str) -> None:
    path = variants(tmp_path).get(model, tmp_path / "none.onnx")
    failed(run("explain", path, cat, "-o", tmp_path / "out", *options), words)
    assert not results(tmp_path / "out")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "cannot be read: No such file"),
        (b"", "the file is empty"),
        (b"hello", "not an image in a supported format"),
        (b"\x89PNG\r\n\x1a\n", "x.png: "),
    ],
)
def test_wrong_image(model_path: Path, tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "x.png"
    if content is not None:
        path.write_bytes(content)
    failed(run("explain", model_path, path, "-o", tmp_path / "out"), words)


def test_decompression_bomb(model_path: Path, tmp_path: Path) -> None:
    from support.files.image_files import bomb

    # The second image is large enough for a warning of Pillow, which must not be printed, but not for its error.
    for side, words in [(60_000, "decompression bomb"), (12_000, "damaged image")]:
        (tmp_path / "bomb.png").write_bytes(bomb(side, side))
        command = [sys.executable, "-m", "seewhy", "explain", str(model_path), str(tmp_path / "bomb.png"), "-o"]
        done = subprocess.run([*command, str(tmp_path / f"{side}")], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        assert re.fullmatch(f"seewhy: error: .*{words}.*\n", done.stderr), done.stderr


def test_output_that_cannot_be_written(model_path: Path, cat: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    failed(run("explain", model_path, cat, "-o", tmp_path / "file"), "not a folder")
    failed(run("explain", model_path, cat, "-o", tmp_path / "file" / "out"), "cannot be created: Not a directory")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_no_permission_to_write(model_path: Path, cat: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    failed(run("explain", model_path, cat, "-o", tmp_path / "out"), "Permission denied")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_disk_full(model_path: Path, cat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_folder, "open", lambda *_, **__: open("/dev/full", "wb"), raising=False)
    failed(run("explain", model_path, cat, "-o", tmp_path / "out"), "No space left on device")


def test_results_never_replace_images(model_path: Path, cat: Path) -> None:
    image = cat.with_name("cat.gradcam.png")
    Image.fromarray(load(cat)).save(image)
    before = image.read_bytes()
    failed(run("explain", model_path, cat, image, "-o", cat.parent), "results would be written beside this image")
    failed(run("explain", model_path, cat.parent, "-o", cat.parent), "the output folder is also an input folder")
    assert image.read_bytes() == before


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain"],
        ["explain", "m.onnx"],
        ["explain", "m.onnx", "x.png"],
        ["explain", "m.onnx", "x.png", "-o", "out", "--alpha", "2"],
        ["explain", "m.onnx", "x.png", "-o", "out", "--canvas", "wall"],
        ["explain", "m.onnx", "x.png", "-o", "out", "--threads", "0"],
        ["explain", "m.onnx", "x.png", "-o", "out", "--batch-size", "0"],
        ["explain", "m.onnx", "x.png", "-o", "out", "--top", "two"],
        ["explain", "m.onnx", "x.png", "-o", "out", "--format", "gif"],
        ["explain", "m.onnx", "x.png", "-o", "out", "--format", "jpg", "--quality", "0"],
        ["inspect"],
    ],
)
def test_usage_errors(arguments: list[str]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2 and re.search("(?i)error: ", result.stderr)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["explian"], "Unknown command 'explian'. Did you mean 'explain'?"),
        (["nothing"], "Unknown command 'nothing'. Known commands: bench, .*, verify"),
        (["--vresion"], "No such option: --vresion. Did you mean --version?"),
        (["bench", "m.onnx", "--bach", "3"], "No such option: --bach. Did you mean --batch?"),
        (["inspect"], "Missing argument 'MODEL'."),
        (["explain", "m.onnx", "x.png", "-o", "out", "--format", "jpeg"], "'--format': 'jpeg' .* Did you mean 'jpg'?"),
    ],
)
def test_unknown_names_are_corrected(arguments: list[str], words: str) -> None:
    failed(run(*arguments), words.replace("?", r"\?"))


def test_memory_error(model_path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only commands that have --batch-size suggest a smaller one."""

    def exhaust(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("seewhy.contract.metadata.Metadata.from_properties", exhaust)
    failed(run("inspect", model_path), "not enough memory")
    assert "batch-size" not in run("inspect", model_path).stderr + run("bench", model_path).stderr
    result = run("explain", model_path, model_path, "-o", tmp_path / "out")
    failed(result, "not enough memory; try a smaller --batch-size")


def test_an_empty_path_is_refused(
    model_path: Path, make_image: MakeImage, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With an unset variable, results would be written into the current folder."""
    monkeypatch.chdir(tmp_path)
    make_image().save("a.png")
    failed(run("explain", model_path, "a.png", "-o", ""), "-o / --output is empty; is a variable not set")
    failed(run("explain", "", "a.png", "-o", "out"), "MODEL is empty; is a variable not set")
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


@pytest.mark.parametrize("arguments", ["--help", "--version", "explain --help", "verify --help"])
def test_help_on_a_full_disk(arguments: str) -> None:
    """The exit status is 2, because 1 would mean that some images failed."""
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "seewhy", *arguments.split()]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch("seewhy: error: (standard output: )?No space left on device\n", done.stderr), done.stderr
