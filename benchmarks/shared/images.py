"""Sample images, cropped from the images of scikit-image."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = WIDTH, HEIGHT = 640, 480
PHOTOGRAPHS = (
    *("astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "coins.png"),
    *("grass.png", "gravel.png", "hubble_deep_field.jpg", "moon.png", "motorcycle_left.png", "rocket.jpg"),
)
"""Files of scikit-image's photographs."""
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


def write_hard_crops(folder: Path, count: int) -> None:
    """Write `count` square crops of twelve photographs, of random sizes and places, as PNG files to a new folder."""
    from skimage import data

    generator = np.random.default_rng(0)
    images = [Image.open(Path(data.__file__).parent / name).convert("RGB") for name in PHOTOGRAPHS]
    with complete_folder(folder) as unfinished:
        for number in range(count):
            image = images[number % len(images)]
            side = int(generator.uniform(0.35, 1) * min(image.size))
            left, top = (int(generator.integers(length - side + 1)) for length in image.size)
            image.crop((left, top, left + side, top + side)).save(unfinished / f"{number:05}.png")


def write_sample_images(folder: Path, count: int) -> None:
    """Write `count` sample images as JPEG files to a new folder."""
    with complete_folder(folder) as unfinished:
        for number in range(count):
            sample_image(number).save(unfinished / f"{number:05}.jpg", quality=90)


@contextmanager
def complete_folder(folder: Path) -> Iterator[Path]:
    """Give a new folder to write to, and rename it to `folder` at the end: an interruption leaves nothing there.

    Raises:
        FileExistsError: If `folder` exists.
    """
    if folder.exists():
        raise FileExistsError(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}-", dir=folder.parent) as unfinished:
        inner = Path(unfinished) / folder.name
        inner.mkdir()
        yield inner
        inner.rename(folder)
