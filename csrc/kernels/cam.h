// The sums of the CAM family. Accumulated in double, in an order that depends on the sizes of one image only.
#pragma once

#include "parallel.h"

namespace seewhy {

// gradients (maps, size) -> result (maps): the mean of each map.
void channel_means(const float* gradients, Index maps, Index size, int threads, float* result);

// activations, gradients (maps, size) -> result (maps): Grad-CAM++'s weights. A term whose denominator is zero is 0.
void gradcam_plus_plus_weights(const float* activations, const float* gradients, Index maps, Index size, int threads,
                               float* result);

// activations, gradients (maps, size) -> result (maps): XGrad-CAM's weights; 0 where a map sums to zero.
void xgradcam_weights(const float* activations, const float* gradients, Index maps, Index size, int threads,
                      float* result);

// activations (count, channels, size), weights (count, channels) -> result (count, size).
void weighted_sum(const float* activations, const float* weights, Index count, Index channels, Index size, int threads,
                  float* result);

// activations, gradients (count, channels, size) -> result (count, size): the sum over channels of their product, with
// max(0, gradient) if `positive`.
void product_sum(const float* activations, const float* gradients, bool positive, Index count, Index channels,
                 Index size, int threads, float* result);

}  // namespace seewhy
