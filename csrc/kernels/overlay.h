// Heatmaps blended onto images of three channels.
#pragma once

#include <cstdint>
#include <optional>

#include "kernels/minmax.h"
#include "kernels/views.h"

namespace seewhy {

// The colormap (256, 3), and the opacity of its colours in [0, 1].
struct Style {
    const std::uint8_t* colormap;
    double alpha;
};

// Index of the first map of a batch that holds NaN, if any does.
using FirstNan = std::optional<Index>;

// Writes overlays to result (count, height, width, 3). Heatmaps have one channel and the size of the images. The result
// has no meaning if a heatmap holds NaN.
FirstNan overlay(const Images& images, const Maps& heatmaps, const Style& style, int threads, std::uint8_t* result);

// Writes to result (count, height, width, 3) what ReLU (if `relu`), upsample, minmax and overlay give one after the
// other, in one pass over the images. Maps have one channel and any size. If an upsampled map is not finite, the result
// stays unwritten.
FirstNotFinite overlay_maps(const Images& images, const Maps& maps, const Style& style, bool relu, int threads,
                            std::uint8_t* result);

}  // namespace seewhy
