// What is shown of an input gradient.
#pragma once

#include <cstdint>

#include "parallel.h"

namespace seewhy {

// gradients (count, channels, size) -> result (count, size): the maximum of |g|; NaN stays NaN.
void max_abs(const float* gradients, Index count, Index channels, Index size, int threads, float* result);

// gradients (count, channels, size), channels 1 or 3 -> result (count, size, 3). Returns -1, or the index of the first
// image that holds NaN or infinity, and then leaves the result unwritten.
Index gradient_rgb(const float* gradients, Index count, Index channels, Index size, int threads, std::uint8_t* result);

// gradients (count, channels, size), maps (count, size) -> result (count, channels, size).
void multiply_by_map(const float* gradients, const float* maps, Index count, Index channels, Index size, int threads,
                     float* result);

}  // namespace seewhy
