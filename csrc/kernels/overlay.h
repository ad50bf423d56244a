#pragma once

#include <cstdint>

#include "parallel.h"

namespace seewhy {

// photographs (count, size, 3), heatmaps (count, size), palette (256, 3) -> result (count, size, 3). Returns -1, or the
// index of the first heatmap that holds NaN; the result is then meaningless.
Index overlay(const std::uint8_t* photographs, const float* heatmaps, const std::uint8_t* palette, double alpha,
              Index count, Index size, int threads, std::uint8_t* result);

// photographs (count, height, width, 3), maps (count, in_height, in_width), palette (256, 3) -> result (count, height,
// width, 3): what ReLU (if `relu`), upsample, minmax and overlay give one after the other, in one pass over the
// photographs. Returns -1, or the index of the first map that has NaN or infinity once it is upsampled; the result is
// then left unwritten.
Index overlay_maps(const std::uint8_t* photographs, const float* maps, const std::uint8_t* palette, double alpha,
                   bool relu, Index count, Index in_height, Index in_width, Index height, Index width, int threads,
                   std::uint8_t* result);

}  // namespace seewhy
