#pragma once

#include "parallel.h"

namespace seewhy {

// maps (count, in_height, in_width) -> result (count, height, width), bilinear, half-pixel centres, edges clamped.
void upsample(const float* maps, Index count, Index in_height, Index in_width, Index height, Index width, int threads,
              float* result);

}  // namespace seewhy
