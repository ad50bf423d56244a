"""Composite transparent pixels onto white."""

from __future__ import annotations

from typing import TypeAlias

from PIL import Image

from seewhy.errors import ImageError
from seewhy.images.pillow_drivers import opened_by
from seewhy.images.pixel_depth import row_strips

_WHITE = (255, 255, 255, 255)

Colour: TypeAlias = int | tuple[int, ...] | bytes | None
"""Pillow's `info["transparency"]`: one colour or palette entry, or an alpha value for each palette entry."""

# Largest sample of a grey PNG, by the raw mode in which Pillow reads it.
_LARGEST = {"L;2": 3, "L;4": 15}


def transparent_colour(image: Image.Image, name: str) -> Colour:
    """Return the transparent colour of an image in the units of its decoded pixels.

    A PNG stores this colour in the units of the file. Pillow scales 2-bit and 4-bit grey to 8 bits, but not the colour.

    Args:
        image: The image. It must not be loaded yet, because its depth is no longer known afterwards.
        name: Name of the image in error messages.

    Returns:
        The colour, or None if the image has none.

    Raises:
        ImageError: If the pixels have 16 bits per channel. Pillow keeps 8 of them, too few to compare.
    """
    colour: Colour = image.info.get("transparency")
    if isinstance(colour, tuple) and (max(colour) > 255 or _raw_mode(image).startswith("RGB;16")):
        raise ImageError(f"{name}: 16-bit RGB with a transparent colour is not supported; convert it to RGBA or 8 bits")
    largest = _LARGEST.get(_raw_mode(image))
    return colour * 255 // largest if isinstance(colour, int) and largest else colour


def _raw_mode(image: Image.Image) -> str:
    """Return the raw mode of a PNG that is not loaded yet, or an empty string."""
    png = opened_by("Png", image)
    return "" if png is None or not png.tile else str(png.tile[0][3])


def on_white(image: Image.Image, colour: Colour) -> Image.Image:
    """Composite an image onto white.

    Args:
        image: Image that has an alpha channel, a palette with alpha values, or a transparent colour.
        colour: Transparent colour, as `transparent_colour` returns it.

    Returns:
        RGB image.
    """
    result = Image.new("RGB", image.size)
    for top, bottom in row_strips(*image.size):
        strip = image.crop((0, top, image.width, bottom))
        if colour is not None:
            strip.info["transparency"] = colour
        if strip.mode == "La":  # Pillow converts La to LA only
            strip = strip.convert("LA")
        strip = strip.convert("RGBA")
        strip = Image.alpha_composite(Image.new("RGBA", strip.size, _WHITE), strip)
        result.paste(strip.convert("RGB"), (0, top))
    return result
