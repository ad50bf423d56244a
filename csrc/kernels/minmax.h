#pragma once

#include <vector>

#include "loops/loops.h"
#include "parallel.h"

namespace seewhy {

Span span_of(const Extremes& found);

// The span of each of `count` maps of `size` values; a map with NaN or infinity is marked as not finite.
std::vector<Span> spans(const float* maps, Index count, Index size, int threads);

// The first map that is not finite, or -1.
Index first_not_finite(const std::vector<Span>& spans);

// maps (count, size) -> result (count, size) in [0, 1]; a constant map becomes zeros. Returns -1, or the index of the
// first map that holds NaN or infinity, and then leaves the result unwritten.
Index minmax(const float* maps, Index count, Index size, int threads, float* result);

}  // namespace seewhy
