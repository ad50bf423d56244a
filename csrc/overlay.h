#pragma once

#include <cstdint>

#include "parallel.h"

namespace seewhy {

// photographs (count, size, 3), heatmaps (count, size), palette (256, 3) -> result (count, size, 3). Returns -1, or the
// index of the first heatmap that holds NaN; the result is then meaningless.
Index overlay(const std::uint8_t* photographs, const float* heatmaps, const std::uint8_t* palette, double alpha,
              Index count, Index size, int threads, std::uint8_t* result);

}  // namespace seewhy
