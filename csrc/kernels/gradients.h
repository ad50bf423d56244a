// Images and maps from input gradients.
#pragma once

#include <cstdint>

#include "kernels/minmax.h"
#include "kernels/views.h"

namespace seewhy {

// Writes the maximum over channels of |gradient| to result (count, height, width). NaN stays NaN.
void max_abs(const Maps& gradients, int threads, float* result);

// Writes gradients of 1 or 3 channels, scaled to 0..255 over each image, to result (count, height, width, 3). If an
// image is not finite, the result is not written.
FirstNotFinite gradient_rgb(const Maps& gradients, int threads, std::uint8_t* result);

// Writes each channel times the map of its image to result (count, channels, height, width). `maps` has one channel.
void multiply_by_map(const Maps& gradients, const Maps& maps, int threads, float* result);

}  // namespace seewhy
