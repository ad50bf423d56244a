// The sums of the CAM family. Accumulated in double, in an order that depends on the sizes of one image only.
#pragma once

#include "parallel.h"

namespace seewhy {

// gradients (maps, size) -> result (maps): the mean of each map.
void channel_means(const float* gradients, Index maps, Index size, int threads, float* result);

// activations (count, channels, size), weights (count, channels) -> result (count, size).
void weighted_sum(const float* activations, const float* weights, bool relu, Index count, Index channels, Index size,
                  int threads, float* result);

}  // namespace seewhy
