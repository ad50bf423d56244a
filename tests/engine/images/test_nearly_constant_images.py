"""Tests of the warning about nearly constant images, which a job prints and records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer
from seewhy.contract.metadata import Preprocessing
from seewhy.images.preprocessing import load_image
from support.command_line import run
from support.jobs.broken_jobs import lines
from support.tiny_model import Tiny


@pytest.mark.parametrize("span", [0, 16, 17, 255])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_span_of_each_channel_counts(span: int, channels: int) -> None:
    pixels = np.zeros((12, 16, channels), np.uint8) + np.arange(channels, dtype=np.uint8) * 100
    pixels[5, 7] += span if span < 255 else 55  # a single pixel that a coarse sample misses
    preprocessing = Preprocessing(mean=(0.5,) * channels, std=(0.5,) * channels)
    metadata = Tiny(channels=channels, preprocessing=preprocessing).metadata()
    warning = load_image(pixels if channels == 3 else pixels[:, :, 0], metadata).warning
    assert (warning is not None) == (span <= 16)


def test_12_bit_grey_in_16_bits(model_path: Path, tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(0, 4096, (20, 20)).astype(np.uint16)
    (tmp_path / "in").mkdir()
    Image.fromarray(samples).save(tmp_path / "in" / "dark.png")
    Image.fromarray(samples * 16).save(tmp_path / "in" / "good.png")
    result = run("explain", model_path, tmp_path / "in", "-o", tmp_path / "out", "-q")
    assert result.exit_code == 0
    assert "dark.png: the image is nearly constant: the pixels of a channel differ by at most " in result.stderr
    assert "good.png" not in result.stderr
    dark, good = lines(tmp_path / "out")
    assert "such as 12 of 16 bits, scale them" in dark["warning"] and "warning" not in good


def test_all_of_12_bits_in_16_bits(explainer: Explainer, tmp_path: Path) -> None:
    """White of 12 bits, 4095 of 65535, is 16 of 255."""
    Image.fromarray(np.full((12, 16), 4095, np.uint16) * (np.arange(16) % 2).astype(np.uint16)).save(tmp_path / "x.png")
    [image] = explainer.explain(tmp_path / "x.png").images
    assert image.warning is not None and "differ by at most 16 of 255; if its samples" in image.warning


@pytest.mark.parametrize("colour", [(250, 0, 0), (0, 17, 0), (128, 128, 128)])
def test_a_coloured_image(explainer: Explainer, colour: tuple[int, int, int]) -> None:
    """Each channel is nearly constant, and too bright for samples that use only part of their range."""
    pixels = np.full((12, 16, 3), colour, np.uint8)
    pixels[3:6, 2:7, 1] += 5
    [image] = explainer.explain(pixels).images
    assert image.warning == "the image is nearly constant: the pixels of a channel differ by at most 5 of 255"


def test_a_single_image(explainer: Explainer) -> None:
    result = explainer.explain(np.full((12, 16, 3), 9, np.uint8))
    assert result.images[0].warning is not None
