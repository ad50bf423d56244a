"""Tests of image files given as bytes or `BytesIO`: they are explained like the file itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer, ImageError


@pytest.fixture
def file(tmp_path: Path) -> Path:
    noise = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "a.jpg")
    return tmp_path / "a.jpg"


def test_bytes_are_explained_like_the_file(file: Path, explainer: Explainer) -> None:
    content = file.read_bytes()
    stream = io.BytesIO(content)
    stream.seek(0, io.SEEK_END)  # as after writing
    expected = explainer.explain(file)
    for given in (content, bytearray(content), memoryview(content), stream):
        result = explainer.explain([given])
        assert np.array_equal(result.heatmaps, expected.heatmaps) and result.images[0].name == "image 0"
        alone = explainer.explain(given)
        assert np.array_equal(alone.logits, expected.logits)
        drawn, original = alone.overlays(canvas="original")[0], expected.overlays(canvas="original")[0]
        assert drawn.size == (50, 40) and drawn.tobytes() == original.tobytes()


def test_later_changes_of_a_buffer_do_not_count(file: Path, explainer: Explainer) -> None:
    buffer = bytearray(file.read_bytes())
    result = explainer.explain(buffer)
    buffer[:] = bytes(len(buffer))
    assert result.overlays(canvas="original")[0].size == (50, 40)


@pytest.mark.parametrize("content", [b"", b"no image", b"\xff\xd8\xff"])
def test_bytes_that_are_no_image(content: bytes, explainer: Explainer) -> None:
    for given in (content, io.BytesIO(content)):
        with pytest.raises(ImageError, match="image 0: ") as raised:
            explainer.explain(given)
        assert "\n" not in str(raised.value)


def test_a_closed_stream(explainer: Explainer) -> None:
    stream = io.BytesIO(b"x")
    stream.close()
    with pytest.raises(ImageError, match="image 0: the stream is closed"):
        explainer.explain(stream)
