// Normalisation of pixels.
#pragma once

#include "kernels/views.h"

namespace seewhy {

// Mean and standard deviation of each channel of the result, for values in [0, 1].
struct Normalization {
    const float* mean;
    const float* std;
    bool reverse_channels;
};

// Writes (image / 255 - mean) / std to result (count, channels, height, width).
void normalize(const Images& images, const Normalization& normalization, int threads, float* result);

}  // namespace seewhy
