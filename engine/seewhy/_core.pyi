"""Type stubs of the compiled kernels; their sources are in csrc/.

All kernels share these rules:

- Arrays must be C-contiguous and aligned and have exactly the given dtype; kernels never convert or copy them. A wrong
  dtype or memory order raises a TypeError, a wrong number of dimensions or a wrong size a ValueError. The messages
  contain the values.
- The result is a new array.
- An empty batch (N = 0) gives an empty result. No other axis may be empty.
- The global interpreter lock is released while a kernel runs.
- `threads` is the maximum number of threads; 0 means one per available core. Small work runs on the calling thread.
- The bits of a result do not depend on `threads`, on the other images in the batch, or on the instruction set.

The innermost loops are compiled for several instruction sets. When the module is loaded, it chooses the best one that
the processor can run, or the one that the environment variable SEEWHY_ISA names. Loading raises an ImportError if that
name is not one of `isas()`.
"""

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

_Float: TypeAlias = NDArray[np.float32]
_Byte: TypeAlias = NDArray[np.uint8]

def isa() -> str:
    """Return the name of the instruction set in use."""

def isas() -> tuple[str, ...]:
    """Return the names of the instruction sets that this build has and this processor can run, the baseline first.

    The names are `sse2` and `avx2` on x86-64. On other processors, there is only `plain`, the compiler's default.
    """

def use_isa(name: str) -> None:
    """Switch to another instruction set in the whole process, for tests and measurements.

    Args:
        name: One of `isas()`.

    Raises:
        ValueError: If the name is not one of `isas()`.
    """

def cpu_features() -> tuple[str, ...] | None:
    """Return the features of the processor that affect products of 8-bit integers, or None if it is not known.

    Only features that this process can use are listed, the baseline first: on x86-64 `sse2`, `avx2`, `avx512f`,
    `avx512_vnni`, `avx_vnni` and `amx_int8`, on ARM64 `neon`, `dotprod` and `i8mm`. An emulator may hide features that
    the operating system lists.
    """

def normalize(pixels: _Byte, mean: _Float, std: _Float, reverse_channels: bool = False, threads: int = 0) -> _Float:
    """Normalise pixels: (pixel / 255 - mean[c]) / std[c].

    Each step is rounded to float32 in this order, so the result has the bits of torchvision's ToTensor and Normalize.

    Args:
        pixels: Pixels, uint8 of shape (N, H, W, C).
        mean: Mean of each channel of the result, float32 of shape (C,).
        std: Standard deviation of each channel of the result, float32 of shape (C,).
        reverse_channels: True to store channel C-1-c of the pixels as channel c of the result, for BGR networks.
        threads: Maximum number of threads.

    Returns:
        Normalised pixels, float32 of shape (N, C, H, W).

    Raises:
        ValueError: If a mean is not finite, or a std is not finite and above 0.
    """

def arrow_pixels(array: object, height: int, width: int) -> _Byte:
    """Return a read-only view of the pixels of a PIL image, without a copy.

    Args:
        array: Capsule of the Arrow C data interface, the second result of `Image.__arrow_c_array__`.
        height: Height of the image, in pixels.
        width: Width of the image, in pixels.

    Returns:
        Pixels, uint8 of shape (H, W, 4). The array keeps the capsule alive.

    Raises:
        TypeError: If `array` is not such a capsule.
        ValueError: If it does not hold four bytes for each pixel.
    """

def resize_source(filter: str, length: int, resized: int, crop: tuple[int, int]) -> tuple[int, int]:
    """Return the source pixels [first, last) that a part of a resized axis depends on.

    Args:
        filter: Name of the filter; see `resize`.
        length: Number of source pixels on the axis.
        resized: Number of pixels after resizing.
        crop: Part [first, last) of the resized pixels.

    Returns:
        First source pixel, and the one after the last.

    Raises:
        ValueError: If the filter is unknown, a number is below 1, or the crop is not inside the result.
    """

def resize(
    pixels: _Byte,
    filter: str,
    height: int,
    width: int,
    rows: tuple[int, int],
    columns: tuple[int, int],
    top: int = 0,
    whole_height: int | None = None,
) -> _Byte:
    """Resize an image with antialiasing and crop it. The result has the bytes of Pillow's `resize` and `crop`.

    Only pixels inside the crop are computed, on the calling thread. As in Pillow, rows are resized first, their values
    are rounded to bytes, and sums are in fixed point with shares of 22 bits.

    Args:
        pixels: Pixels, uint8 of shape (H, W, 4). The fourth channel is ignored.
        filter: `box`, `bilinear`, `hamming`, `bicubic` or `lanczos`.
        height: Height after resizing, before the crop.
        width: Width after resizing, before the crop.
        rows: Rows [first, last) of the crop.
        columns: Columns [first, last) of the crop.
        top: Row of the whole image with which `pixels` begin, if they are a part of it.
        whole_height: Height of the whole image; None if `pixels` are all of it.

    Returns:
        RGB pixels, uint8 of shape (rows, columns, 3).

    Raises:
        ValueError: If the filter is unknown, a number is below 1, the crop is not inside the result, or `pixels` lack
            a row that `resize_source` names.
    """

def channel_means(gradients: _Float, threads: int = 0) -> _Float:
    """Return the mean of each map: the weights of Grad-CAM (Selvaraju 2017, equation 1), summed in float64.

    Args:
        gradients: Maps, float32 of shape (N, C, h, w).
        threads: Maximum number of threads.

    Returns:
        Means, float32 of shape (N, C).
    """

def weighted_sum(activations: _Float, weights: _Float, threads: int = 0) -> _Float:
    """Return the weighted sum of maps over channels, sum_c w_c A_c, summed in float64.

    This is Zhou 2016, equation 2. The ReLU of Selvaraju 2017, equation 2, is not applied.

    Args:
        activations: Maps A, float32 of shape (N, C, h, w).
        weights: Weights w, float32 of shape (N, C).
        threads: Maximum number of threads.

    Returns:
        Sums, float32 of shape (N, h, w).
    """

def gradcam_plus_plus_weights(activations: _Float, gradients: _Float, threads: int = 0) -> _Float:
    """Return the channel weights of Grad-CAM++, sum_ij relu(g_ij) / (2 + g_ij * sum_ab A_ab), summed in float64.

    This combines Chattopadhay 2018, equations 19 and 7, without the constant factor e^y. A term whose denominator is
    zero counts as 0; this occurs only if the sum of the map is negative. Non-finite numbers give NaN or infinity,
    except gradients of -infinity.

    Args:
        activations: Activations A, float32 of shape (N, C, h, w).
        gradients: Gradients g, float32 of shape (N, C, h, w).
        threads: Maximum number of threads.

    Returns:
        Weights, float32 of shape (N, C).
    """

def xgradcam_weights(activations: _Float, gradients: _Float, threads: int = 0) -> _Float:
    """Return the channel weights of XGrad-CAM (Fu 2020), sum_ij g_ij A_ij / sum_ij A_ij, summed in float64.

    A map that sums to zero gets weight 0. Non-finite numbers give NaN or infinity.

    Args:
        activations: Activations A, float32 of shape (N, C, h, w).
        gradients: Gradients g, float32 of shape (N, C, h, w).
        threads: Maximum number of threads.

    Returns:
        Weights, float32 of shape (N, C).
    """

def product_sum(activations: _Float, gradients: _Float, positive: bool = False, threads: int = 0) -> _Float:
    """Return the sum over channels of the elementwise product of activations and gradients, summed in float64.

    This is HiResCAM (Draelos and Carin 2020), and with `positive` LayerCAM (Jiang 2021, equations 7 and 8). NaN stays
    NaN.

    Args:
        activations: Activations, float32 of shape (N, C, h, w).
        gradients: Gradients, float32 of shape (N, C, h, w).
        positive: True to replace negative gradients by 0.
        threads: Maximum number of threads.

    Returns:
        Sums, float32 of shape (N, h, w).
    """

def upsample(maps: _Float, height: int, width: int, threads: int = 0) -> _Float:
    """Resize maps by bilinear interpolation with half-pixel centres and clamped edges.

    The result equals torch.nn.functional.interpolate(mode="bilinear", align_corners=False) without antialiasing. A
    constant map stays exactly constant. NaN spreads to all pixels that are interpolated from it. If maps become
    smaller, pixels between the sampling points are not read.

    Args:
        maps: Maps, float32 of shape (N, h, w).
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.
        threads: Maximum number of threads.

    Returns:
        Resized maps, float32 of shape (N, height, width).

    Raises:
        ValueError: If the height or the width is below 1.
    """

def minmax(maps: _Float, threads: int = 0) -> _Float:
    """Scale each map to [0, 1]: (map - min) / (max - min), rounded to float32 at each step.

    The largest value becomes exactly 1. A constant map becomes zeros.

    Args:
        maps: Maps, float32 of shape (N, H, W).
        threads: Maximum number of threads.

    Returns:
        Scaled maps, float32 of shape (N, H, W).

    Raises:
        ValueError: If a map holds NaN or infinity. The message gives the index of the first such map.
    """

def heatmaps(maps: _Float, relu: bool, height: int, width: int, threads: int = 0) -> _Float:
    """Upsample maps and scale them to [0, 1], in one pass over the result.

    The result has the same values as `upsample` of the maps (after max(0, map) with `relu`) and `minmax` in sequence.

    Args:
        maps: Maps, float32 of shape (N, h, w).
        relu: True to apply a ReLU to the maps first.
        height: Height of the result, in pixels.
        width: Width of the result, in pixels.
        threads: Maximum number of threads.

    Returns:
        Heatmaps, float32 of shape (N, height, width).

    Raises:
        ValueError: If the height or the width is below 1, or an upsampled map holds NaN or infinity. The message gives
            the index of the first such map.
    """

def first_not_finite(*values: _Float) -> tuple[int, int] | None:
    """Find the first NaN or infinity in several arrays. The kernel runs on the calling thread.

    Args:
        values: Arrays, float32 of shape (N, ...).

    Returns:
        Index of the array and index along its first axis, or None if all values are finite.
    """

def finite_copy(values: _Float, threads: int = 0) -> tuple[_Float, int | None]:
    """Copy an array and check in the same pass whether all values are finite.

    Args:
        values: Values, float32 of shape (N, ...).
        threads: Maximum number of threads.

    Returns:
        The copy, and the index along the first axis of the first NaN or infinity, or None if all values are finite.
    """

def max_abs(gradients: _Float, threads: int = 0) -> _Float:
    """Return the maximum over channels of |g| (Simonyan 2013, section 3.1). NaN stays NaN.

    Args:
        gradients: Gradients g, float32 of shape (N, C, H, W).
        threads: Maximum number of threads.

    Returns:
        Maxima, float32 of shape (N, H, W).
    """

def gradient_rgb(gradients: _Float, threads: int = 0) -> _Byte:
    """Draw signed gradients as RGB: 255 times the min-max scaled gradient, rounded to nearest, halves to even.

    Each image is scaled as a whole, with the rounding of `minmax`. A constant gradient becomes black. A single channel
    is drawn in grey.

    Args:
        gradients: Gradients, float32 of shape (N, C, H, W), where C is 1 or 3.
        threads: Maximum number of threads.

    Returns:
        RGB images, uint8 of shape (N, H, W, 3).

    Raises:
        ValueError: If a gradient holds NaN or infinity. The message gives the index of the first such image.
    """

def multiply_by_map(gradients: _Float, maps: _Float, threads: int = 0) -> _Float:
    """Multiply each channel by the map of its image (Guided Grad-CAM).

    Args:
        gradients: Gradients, float32 of shape (N, C, H, W).
        maps: Maps, float32 of shape (N, H, W).
        threads: Maximum number of threads.

    Returns:
        Products, float32 of shape (N, C, H, W).
    """

def add_normal_noise(values: _Float, deviation: float, state: NDArray[np.uint32]) -> _Float:
    """Add normal noise: xoshiro128++ (Blackman and Vigna 2021) and the Box-Muller transform, in float32.

    Sixteen generators draw side by side. Blocks of 512 values come from 512 words: the first 256 words give the radii,
    the others the angles; the first 256 values are the cosines, the others the sines. Fewer values get the start of the
    same noise. The kernel runs on the calling thread.

    Args:
        values: Values, float32 of any shape.
        deviation: Standard deviation of the noise, which is rounded to float32.
        state: States of the generators, uint32 of shape (4, 16): word by generator.

    Returns:
        Values plus `deviation` times standard normal noise between -6.7 and 6.7, float32 of the shape of `values`.
    """

def overlay(images: _Byte, heatmaps: _Float, palette: _Byte, alpha: float, threads: int = 0) -> _Byte:
    """Blend heatmaps onto images: round(alpha * colour + (1 - alpha) * image), in float32, halves to even.

    The colour is palette[round(255 * heatmap)], rounded in the same way. Heat outside [0, 1] is clamped, including
    infinity.

    Args:
        images: RGB images, uint8 of shape (N, H, W, 3).
        heatmaps: Heatmaps, float32 of shape (N, H, W) with values in [0, 1].
        palette: Colour table of a colormap, uint8 of shape (256, 3).
        alpha: Opacity of the heatmap, from 0 (invisible) to 1 (opaque).
        threads: Maximum number of threads.

    Returns:
        Blended images, uint8 of shape (N, H, W, 3).

    Raises:
        ValueError: If alpha is outside [0, 1], or a heatmap holds NaN. The message gives the index of the first such
            heatmap.
    """

def overlay_maps(
    images: _Byte, maps: _Float, palette: _Byte, alpha: float, relu: bool = False, threads: int = 0
) -> _Byte:
    """Upsample and scale maps and blend them onto images, in one pass over the images.

    The result has the same bytes as `upsample` of the maps (after max(0, map) with `relu`), `minmax` and `overlay` in
    sequence.

    Args:
        images: RGB images, uint8 of shape (N, H, W, 3).
        maps: Maps, float32 of shape (N, h, w).
        palette: Colour table of a colormap, uint8 of shape (256, 3).
        alpha: Opacity of the heatmap, from 0 (invisible) to 1 (opaque).
        relu: True to apply a ReLU to the maps first.
        threads: Maximum number of threads.

    Returns:
        Blended images, uint8 of shape (N, H, W, 3).

    Raises:
        ValueError: If alpha is outside [0, 1], or an upsampled map holds NaN or infinity. The message gives the index
            of the first such map.
    """
