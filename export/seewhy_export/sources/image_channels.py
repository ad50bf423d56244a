"""Number of image channels of a network that does not define it."""

from __future__ import annotations

from torch import nn

from seewhy_export._shared.trial_run import trial_run


def find_channels(module: nn.Module, image_size: tuple[int, int], first: int | None = None) -> int:
    """Find a number of channels with which a network runs.

    The input channels of the first convolution are tried first, then 3 and 1: the first convolution may follow an
    operation that changes the channels, such as a pixel unshuffle.

    Args:
        module: Network that takes images (N, C, H, W).
        image_size: (H, W) of the images in pixels.
        first: Number to try before all others.

    Returns:
        The first number with which a forward pass succeeds, or the first that was tried if all fail.
    """
    own = next((part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)), 3)
    counts = dict.fromkeys((own if first is None else first, own, 3, 1))
    return next((count for count in counts if _runs(module, count, image_size)), next(iter(counts)))


def _runs(module: nn.Module, channels: int, image_size: tuple[int, int]) -> bool:
    """Return True if the network accepts images with this number of channels."""
    try:
        trial_run(module, channels, image_size)
    except Exception:  # noqa: BLE001  the code of a network may raise anything
        return False
    return True
