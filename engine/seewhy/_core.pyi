"""Type stubs of the compiled kernels (sources in csrc/).

Every kernel takes C-contiguous, aligned arrays of exactly the dtype named here and returns a new array; nothing is
converted or copied silently. A wrong dtype or memory order is a TypeError, a wrong rank or size a ValueError, and both
carry the values. An empty batch (N = 0) gives an empty result; no other axis may be empty. The global interpreter lock
is released while a kernel runs. `threads` is the most threads to use; 0 means one per available core. Small work always
runs on the calling thread. The bits of a result depend neither on `threads`, nor on the rest of the batch, nor on the
instruction set.

The innermost loops are compiled for several instruction sets. Loading the module takes the best that the processor can
run, or the one that the environment variable SEEWHY_ISA names; where that is none of `isas()`, it raises ImportError.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Float: TypeAlias = NDArray[np.float32]
_Byte: TypeAlias = NDArray[np.uint8]

def isa() -> str:
    """Return the instruction set in use."""

def isas() -> tuple[str, ...]:
    """Return those that this build has and this processor can run, the plainest first.

    `sse2` and `avx2` on x86-64; `plain` elsewhere, which is whatever the compiler takes for granted.
    """

def use_isa(name: str) -> None:
    """Use another from now on, in the whole process: for tests and measurements.

    Raises:
        ValueError: it is none of `isas()`.
    """

def normalize(pixels: _Byte, mean: _Float, std: _Float, reverse_channels: bool = False, threads: int = 0) -> _Float:
    """(N,H,W,C) pixels in 0..255 -> (N,C,H,W): (pixel / 255 - mean[c]) / std[c].

    `mean` and `std` have shape (C,), and belong to the channels of the result. `reverse_channels` stores channel C-1-c
    of the pixels as channel c (BGR networks). Each step is rounded to float32 in the order written, so the result has
    the bits of torchvision's ToTensor and Normalize.

    Raises:
        ValueError: a mean is not finite, or a std not finite and above 0.
    """

def channel_means(gradients: _Float, threads: int = 0) -> _Float:
    """(N,C,h,w) -> (N,C): the mean over each map (Grad-CAM's weights; Selvaraju 2017, equation 1).

    Summed in float64.
    """

def weighted_sum(activations: _Float, weights: _Float, threads: int = 0) -> _Float:
    """(N,C,h,w) activations, (N,C) weights -> (N,h,w): the sum over channels, in float64.

    Zhou 2016, equation 2; the ReLU of Selvaraju 2017, equation 2, is left to the caller.
    """

def gradcam_plus_plus_weights(activations: _Float, gradients: _Float, threads: int = 0) -> _Float:
    """(N,C,h,w) activations A and gradients g -> (N,C): over each map, the sum of relu(g) / (2 + g * sum of A).

    Chattopadhay 2018, equation 19 and 7 put together, without the constant factor e^y. A term whose denominator is
    zero counts as 0, which takes a map whose sum is negative. Summed in float64. What is not finite gives NaN or
    infinity, but for gradients of -infinity.
    """

def xgradcam_weights(activations: _Float, gradients: _Float, threads: int = 0) -> _Float:
    """(N,C,h,w) activations A and gradients g -> (N,C): over each map, the sum of g * A divided by the sum of A.

    Fu 2020. A map that sums to zero gets weight 0. Summed in float64. What is not finite gives NaN or infinity.
    """

def product_sum(activations: _Float, gradients: _Float, positive: bool = False, threads: int = 0) -> _Float:
    """(N,C,h,w) activations and gradients -> (N,h,w): the sum over channels of their product, place by place.

    HiResCAM (Draelos and Carin 2020); with `positive`, max(0, gradient) instead of the gradient: LayerCAM (Jiang 2021,
    equations 7 and 8). Summed in float64; NaN stays NaN.
    """

def upsample(maps: _Float, height: int, width: int, threads: int = 0) -> _Float:
    """(N,h,w) -> (N,height,width), bilinear with half-pixel centres, edges clamped, corners not aligned.

    The same as torch.nn.functional.interpolate(mode="bilinear", align_corners=False) without antialiasing.
    A constant map stays exactly constant. NaN spreads to the pixels that its map pixel has a part in; when a map is
    made smaller, pixels between the samples are not read.
    """

def minmax(maps: _Float, threads: int = 0) -> _Float:
    """(N,H,W) -> (N,H,W): each map shifted and scaled to [0, 1]; a constant map becomes zeros.

    (map - low) / (high - low), rounded to float32 at each step; the largest value becomes exactly 1.

    Raises:
        ValueError: a map holds NaN or infinity; the message names the first such map.
    """

def first_not_finite(values: _Float, threads: int = 0) -> int | None:
    """The first row of (N,...) that holds NaN or infinity, or None."""

def max_abs(gradients: _Float, threads: int = 0) -> _Float:
    """(N,C,H,W) -> (N,H,W): the maximum over channels of |g| (Simonyan 2013, section 3.1). NaN stays NaN."""

def gradient_rgb(gradients: _Float, threads: int = 0) -> _Byte:
    """(N,C,H,W), C 1 or 3 -> (N,H,W,3): signed gradients, min-max over each whole image to 0..255, rounded to nearest.

    255 times what `minmax` gives for the image, in float32, halves to even. A constant gradient becomes zeros; C = 1 is
    repeated to grey.

    Raises:
        ValueError: a gradient holds NaN or infinity; the message names the first such image.
    """

def multiply_by_map(gradients: _Float, maps: _Float, threads: int = 0) -> _Float:
    """(N,C,H,W) gradients, (N,H,W) maps -> (N,C,H,W): each channel times the map (Guided Grad-CAM)."""

def overlay(photographs: _Byte, heatmaps: _Float, palette: _Byte, alpha: float, threads: int = 0) -> _Byte:
    """(N,H,W,3) photographs, (N,H,W) heatmaps in [0,1], (256,3) palette -> (N,H,W,3).

    The colour is palette[round(255 * heatmap)], and the result round(alpha * colour + (1 - alpha) * photograph), both
    in float32, halves to even. Heat outside [0,1] is clamped, infinity included.

    Raises:
        ValueError: alpha is not in [0,1], or a heatmap holds NaN; the message names the first such map.
    """

def overlay_maps(
    photographs: _Byte, maps: _Float, palette: _Byte, alpha: float, relu: bool = False, threads: int = 0
) -> _Byte:
    """(N,H,W,3) photographs, (N,h,w) maps, (256,3) palette -> (N,H,W,3): overlays in one pass over the photographs.

    The same bytes as `upsample` to (H,W), of max(0, map) if `relu`, then `minmax`, then `overlay`.

    Raises:
        ValueError: alpha is not in [0,1], or a map holds NaN or infinity once it is upsampled; the message names the
            first such map.
    """
