"""Tests of `seewhy.images.heif_files`: pixels as in the originals, within the codec's error."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seewhy import Explainer, ImageError, MissingExtraError, explain_folder
from seewhy.images.decoding import decode_bytes, decode_file
from seewhy.images.heif_files import is_heif
from support.jobs.broken_jobs import lines
from support.repository import ROOT

DATA = ROOT / "tests" / "data" / "heif"
CODEC_ERROR = 4


def original() -> np.ndarray:
    """Return the pixels that all files were made from, of shape (48, 64, 3)."""
    y, x = np.mgrid[:48, :64]
    return np.clip(np.stack([x * 4, y * 5, 255 - (x + y) * 2], -1), 0, 255)


def expected(name: str) -> np.ndarray:
    pixels = original()
    if name == "grey":
        return np.repeat(pixels[:, :, 1:2], 3, axis=2)
    if name == "rgba":
        alpha = np.where(np.arange(64) < 32, 255, 64)[None, :, None]
        return np.rint((pixels * alpha + 255 * (255 - alpha)) / 255)
    return np.rot90(pixels, 3) if name == "irot" else pixels


@pytest.mark.parametrize("name", ["rgb", "rgba", "grey", "deep", "irot"])
def test_pixels(name: str) -> None:
    pytest.importorskip("pi_heif")
    path = DATA / f"{name}.heic"
    decoded = decode_file(path, "RGB")
    wanted = expected(name)
    assert decoded.size == wanted.shape[1::-1]
    assert np.abs(np.asarray(decoded.image) - wanted).max() <= CODEC_ERROR
    assert np.array_equal(np.asarray(decode_bytes(path.read_bytes(), "RGB", "x").image), np.asarray(decoded.image))
    grey = np.asarray(decode_file(path, "L").image)
    assert np.abs(grey - wanted @ [0.299, 0.587, 0.114]).max() <= CODEC_ERROR + 1


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    pytest.importorskip("pi_heif")
    path = tmp_path / "renamed.jpg"
    path.write_bytes((DATA / "rgb.heic").read_bytes())
    assert decode_file(path, "RGB").size == (64, 48)


def test_truncated_files_never_give_pixels() -> None:
    pytest.importorskip("pi_heif")
    content = (DATA / "rgb.heic").read_bytes()
    for size in [*range(13, len(content), 7), len(content) - 1]:
        with pytest.raises(ImageError):
            decode_bytes(content[:size], "RGB", "x")


def test_damaged_files_end_in_an_error_or_an_image() -> None:
    """HEVC has no checksum, so a changed bit may pass for another image, as in a JPEG."""
    pytest.importorskip("pi_heif")
    content = (DATA / "rgba.heic").read_bytes()
    random = np.random.default_rng(0)
    for _ in range(150):
        damaged = bytearray(content)
        for place in random.integers(0, len(content), 3):
            damaged[place] ^= int(random.integers(1, 256))
        try:
            image = decode_bytes(bytes(damaged), "RGB", "x").image
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert image.mode == "RGB"


def test_huge_images_are_refused_before_they_are_decoded() -> None:
    pytest.importorskip("pi_heif")
    content = (DATA / "rgb.heic").read_bytes()
    size = (64).to_bytes(4, "big") + (48).to_bytes(4, "big")
    huge = content.replace(b"ispe\0\0\0\0" + size, b"ispe\0\0\0\0" + (30000).to_bytes(4, "big") * 2)
    assert huge != content
    with pytest.raises(ImageError, match="30000x30000 pixels are more than"):
        decode_bytes(huge, "RGB", "x")


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", True),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1heic", True),
        (b"\0\0\0\x18ftypmif1\0\0\0\0mif1avif", False),
        (b"\0\0\0\x18ftypavif\0\0\0\0mif1avif", False),
        (b"\0\0\0\x18ftypisom\0\0\0\0mp41isom", False),
        (b"\x89PNG\r\n\x1a\n", False),
        (b"", False),
    ],
)
def test_recognition(header: bytes, found: bool) -> None:
    assert is_heif(header) == found


def test_without_the_extra(explainer: Explainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A single image is an error that names the extra; in a folder it is a recorded failure, and the job goes on."""
    monkeypatch.setitem(sys.modules, "pi_heif", None)
    path = tmp_path / "in" / "photo.HEIC"
    path.parent.mkdir()
    path.write_bytes((DATA / "rgb.heic").read_bytes())
    words = r'photo.HEIC: HEIC images need an extra; run: pip install "\.\[heif\]"'
    with pytest.raises(MissingExtraError, match=words):
        explainer.explain(path)
    summary = explain_folder(explainer, path.parent, tmp_path / "out")
    assert (summary.done, summary.failed) == (0, 1)
    assert "HEIC images need an extra" in lines(tmp_path / "out")[0]["error"]


def test_other_images_import_neither_extra(model_path: Path, tmp_path: Path) -> None:
    from PIL import Image

    Image.fromarray(original().astype(np.uint8)).save(tmp_path / "a.png")
    code = (
        f"import seewhy, sys; seewhy.Explainer({str(model_path)!r}).explain({str(tmp_path / 'a.png')!r}); "
        "assert not {'pi_heif', 'pydicom'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
