// Blending of heatmaps onto images with three channels.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/minmax.h"
#include "kernels/views.h"

namespace seewhy {

// Colour table (256, 3) of a colormap, and the opacity of its colours in [0, 1].
struct Style {
    const std::uint8_t* colormap;
    double alpha;
};

// Index of the first map of a batch that holds NaN, or nullopt.
using FirstNan = std::optional<Index>;

// Writes overlays to result (count, height, width, 3). Heatmaps have one channel and the size of the images. The result
// is undefined if a heatmap holds NaN.
FirstNan overlay(const Images& images, const Maps& heatmaps, const Style& style, int threads, std::uint8_t* result);

// Applies ReLU (if `relu`), upsample, minmax and overlay in one pass over the images, and writes overlays to result
// (count, height, width, 3). Maps have one channel and any size. If an upsampled map is not finite, the result is not
// written.
FirstNotFinite overlay_maps(const Images& images, const Maps& maps, const Style& style, bool relu, int threads,
                            std::uint8_t* result);

}  // namespace seewhy
