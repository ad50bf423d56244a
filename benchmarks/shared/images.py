"""Sample images of 640x480 pixels, cropped from the images of scikit-image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SIZE = WIDTH, HEIGHT = 640, 480
_NAMES = ("chelsea", "coffee", "astronaut", "rocket")


def sample_image(number: int) -> Image.Image:
    """Return a random crop of a sample image, resized to 640x480; the same number gives the same image."""
    from skimage import data

    generator = np.random.default_rng(number)
    image = Image.fromarray(getattr(data, _NAMES[number % len(_NAMES)])())
    share = generator.uniform(0.75, 1.0)
    width = int(share * min(image.width, image.height * WIDTH / HEIGHT))
    height = width * HEIGHT // WIDTH
    left = int(generator.integers(0, image.width - width + 1))
    top = int(generator.integers(0, image.height - height + 1))
    return image.crop((left, top, left + width, top + height)).resize(SIZE, Image.Resampling.LANCZOS)


def write_sample_images(folder: Path, count: int) -> None:
    """Write `count` sample images as JPEG files to a new folder."""
    folder.mkdir()
    for number in range(count):
        sample_image(number).save(folder / f"{number:05}.jpg", quality=90)
