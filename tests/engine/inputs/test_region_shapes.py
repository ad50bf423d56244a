"""Tests of masks of the model's view, against images that the engine itself resizes and crops."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer
from seewhy.contract.metadata import Metadata, Preprocessing
from seewhy.images.preprocessing import load_image
from seewhy.images.resizing import Placement
from seewhy.inputs.region_shapes import Box, Polygons, RunLengths, Shape

AS_IT_IS = Placement(0, 0, 1, 1)
PREPROCESSINGS = {
    "crop": Preprocessing("shorter-side", 40, "bilinear"),
    "squash": Preprocessing("squash", None, "bilinear", crop=False),
    "squash and crop": Preprocessing("squash", 48, "bicubic"),
    "crop alone": Preprocessing("none", None, "bilinear"),
    "padded": Preprocessing("shorter-side", 20, "bilinear"),
}


def metadata(explainer: Explainer, how: Preprocessing) -> Metadata:
    return replace(explainer.metadata, image_size=(32, 36), preprocessing=how)


def as_run_lengths(mask: np.ndarray) -> RunLengths:
    """Return the run lengths of a mask, found pixel by pixel."""
    lengths, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            lengths.append(0)
            value = pixel
        lengths[-1] += 1
    return RunLengths(np.array(lengths), mask.shape)


@pytest.mark.parametrize("how", PREPROCESSINGS.values(), ids=PREPROCESSINGS)
@pytest.mark.parametrize("size", [(100, 70), (61, 90), (33, 32)])
@pytest.mark.parametrize("kind", ["box", "polygon", "run lengths"])
def test_masks_lie_where_the_engine_puts_the_pixels(
    explainer: Explainer, how: Preprocessing, size: tuple[int, int], kind: str
) -> None:
    """Paint a band that reaches across the image. The engine's resized image is brighter than half inside of it.

    A filter is symmetric, so its response to an edge is a half at the edge. Near corners it is less.
    """
    width, height = size
    for box in ((0, height * 0.3, width, height * 0.7), (width * 0.35, 0, width * 0.8, height)):
        x0, y0, x1, y1 = (round(one) for one in box)
        pixels = np.zeros((height, width, 3), np.uint8)
        pixels[y0:y1, x0:x1] = 255
        shape: Shape = {
            "box": Box(x0, y0, x1, y1),
            "polygon": Polygons([np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64)]),
            "run lengths": as_run_lengths(pixels[:, :, 0] > 0),
        }[kind]
        image = load_image(Image.fromarray(pixels), metadata(explainer, how))
        mask = shape.mask(image.placement, (32, 36))
        assert mask.shape == (32, 36) and mask.any() and (how.resize == "none" or not mask.all())
        differs = mask != (image.view[:, :, 0] > 127)
        on_edge = (image.view[:, :, 0] > 100) & (image.view[:, :, 0] < 155)  # a centre may lie on an edge
        assert not (differs & ~on_edge).any(), (differs.sum(), image.placement)
        assert differs.mean() < 0.1


def test_an_edge_belongs_to_one_side() -> None:
    left, right = Box(0, 0, 2.5, 4).mask(AS_IT_IS, (4, 5)), Box(2.5, 0, 5, 4).mask(AS_IT_IS, (4, 5))
    assert (left ^ right).all() and left.sum(axis=1).tolist() == [2] * 4
    corners = [np.array([(0, 0), (2.5, 0), (2.5, 4), (0, 4)]), np.array([(2.5, 0), (5, 0), (5, 4), (2.5, 4)])]
    first, second = (Polygons([one]).mask(AS_IT_IS, (4, 5)) for one in corners)
    assert np.array_equal(first, left) and np.array_equal(second, right)


def crosses(corners: np.ndarray, x: float, y: float) -> bool:
    """Return whether a ray to the left of (x, y) crosses the polygon an odd number of times."""
    odd = False
    for (x0, y0), (x1, y1) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            odd = not odd
    return odd


@pytest.mark.parametrize("count", [3, 7, 40])
def test_polygons_against_the_crossing_rule(count: int) -> None:
    random = np.random.default_rng(count)
    placement = Placement(2.5, -1.5, 1.7, 0.6)
    for _ in range(5):
        corners = random.uniform(-10, 50, (count, 2))
        mask = Polygons([corners]).mask(placement, (20, 30))
        expected = [
            [crosses(corners, (j + 0.5 + 2.5) * 1.7, (i + 0.5 - 1.5) * 0.6) for j in range(30)] for i in range(20)
        ]
        assert (mask != expected).sum() <= 1  # rounding may decide for a centre on an edge


def test_a_union_of_polygons() -> None:
    squares = [np.array([(x, 1), (x + 3, 1), (x + 3, 4), (x, 4)], np.float64) for x in (0, 2)]
    mask = Polygons(squares).mask(AS_IT_IS, (5, 6))
    assert mask.sum() == 3 * 5 and mask[1:4, :5].all()


def test_many_corners_are_drawn_in_parts() -> None:
    angles = np.linspace(0, 2 * np.pi, 5000, endpoint=False)
    circle = np.stack([50 + 40 * np.cos(angles), 50 + 40 * np.sin(angles)], axis=1)
    mask = Polygons([circle]).mask(AS_IT_IS, (100, 100))
    y, x = np.mgrid[:100, :100] + 0.5
    assert ((x - 50) ** 2 + (y - 50) ** 2 < 40**2).sum() == pytest.approx(mask.sum(), abs=4)


def test_padding_is_no_object() -> None:
    whole = as_run_lengths(np.ones((4, 6), np.bool_))
    mask = whole.mask(Placement(-1, -2, 1, 1), (8, 8))
    assert mask.sum() == 24 and mask[2:6, 1:7].all()
