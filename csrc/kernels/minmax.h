// Scaling of maps to [0, 1].
#pragma once

#include <optional>
#include <vector>

#include "kernels/views.h"
#include "loops/loops.h"

namespace seewhy {

// Index of the first image of a batch that holds NaN or infinity, or nullopt.
using FirstNotFinite = std::optional<Index>;

// Returns the span of a map with these extremes.
Span span_of(const Extremes& extremes);

// Returns the span of each image over all of its channels.
std::vector<Span> spans_of(const Maps& maps, int threads);

// Returns the index of the first span that is not finite.
FirstNotFinite first_not_finite(const std::vector<Span>& spans);

// Copies images of any shape to result, and returns the first of them that is not finite.
FirstNotFinite copy_and_check(const Maps& images, int threads, float* result);

// Writes each map, scaled to [0, 1], to result (count, height, width). `maps` has one channel. A constant map becomes
// zeros. If a map is not finite, the result is not written.
FirstNotFinite minmax(const Maps& maps, int threads, float* result);

}  // namespace seewhy
