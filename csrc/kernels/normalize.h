#pragma once

#include <cstdint>

#include "parallel.h"

namespace seewhy {

// pixels (count, height, width, channels) -> result (count, channels, height, width): (pixel / 255 - mean) / std.
void normalize(const std::uint8_t* pixels, const float* mean, const float* std, bool reverse_channels, Index count,
               Index height, Index width, Index channels, int threads, float* result);

}  // namespace seewhy
