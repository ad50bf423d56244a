"""Type stubs of the compiled kernels (sources in csrc/).

Every kernel takes C-contiguous arrays of exactly the dtype named here and returns a new array; nothing is converted or
copied silently. A wrong dtype or memory order is a TypeError, a wrong rank or size a ValueError, and both carry the
values. The global interpreter lock is released while a kernel runs. `threads` is the most threads to use; 0 means
one per core. Small work always runs on the calling thread.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Float: TypeAlias = NDArray[np.float32]
_Byte: TypeAlias = NDArray[np.uint8]

def normalize(pixels: _Byte, mean: _Float, std: _Float, reverse_channels: bool = False, threads: int = 0) -> _Float:
    """(N,H,W,C) pixels in 0..255 -> (N,C,H,W): (pixel / 255 - mean[c]) / std[c].

    `mean` and `std` have shape (C,), and belong to the channels of the result. `reverse_channels` stores channel C-1-c
    of the pixels as channel c (BGR networks).
    """

def channel_means(gradients: _Float, threads: int = 0) -> _Float:
    """(N,C,h,w) -> (N,C): the mean over each map (Grad-CAM's weights; Selvaraju 2017, equation 1)."""

def weighted_sum(activations: _Float, weights: _Float, relu: bool = False, threads: int = 0) -> _Float:
    """(N,C,h,w) activations, (N,C) weights -> (N,h,w): the sum over channels, then max(0, .) if `relu`.

    Selvaraju 2017, equation 2; without `relu`, Zhou 2016, equation 2.
    """

def upsample(maps: _Float, height: int, width: int, threads: int = 0) -> _Float:
    """(N,h,w) -> (N,height,width), bilinear with half-pixel centres, edges clamped, corners not aligned.

    The same as torch.nn.functional.interpolate(mode="bilinear", align_corners=False) without antialiasing.
    """

def minmax(maps: _Float, threads: int = 0) -> _Float:
    """(N,H,W) -> (N,H,W): each map shifted and scaled to [0, 1]; a constant map becomes zeros.

    Raises:
        ValueError: a map holds NaN or infinity; the message names the first such map.
    """

def max_abs(gradients: _Float, threads: int = 0) -> _Float:
    """(N,C,H,W) -> (N,H,W): the maximum over channels of |g| (Simonyan 2013, section 3.1). NaN stays NaN."""

def gradient_rgb(gradients: _Float, threads: int = 0) -> _Byte:
    """(N,C,H,W), C 1 or 3 -> (N,H,W,3): signed gradients, min-max over each whole image to 0..255, rounded to nearest.

    A constant gradient becomes zeros; C = 1 is repeated to grey.

    Raises:
        ValueError: a gradient holds NaN or infinity; the message names the first such image.
    """

def multiply_by_map(gradients: _Float, maps: _Float, threads: int = 0) -> _Float:
    """(N,C,H,W) gradients, (N,H,W) maps -> (N,C,H,W): each channel times the map (Guided Grad-CAM)."""

def overlay(photographs: _Byte, heatmaps: _Float, palette: _Byte, alpha: float, threads: int = 0) -> _Byte:
    """(N,H,W,3) photographs, (N,H,W) heatmaps in [0,1], (256,3) palette -> (N,H,W,3).

    The colour is palette[round(255 * heatmap)], and the result round(alpha * colour + (1 - alpha) * photograph).
    Values outside [0,1] are clamped.

    Raises:
        ValueError: alpha is not in [0,1], or a heatmap holds NaN; the message names the first such map.
    """
