// Sums for CAM methods. They accumulate in double, in an order that depends only on the size of one image.
#pragma once

#include "kernels/views.h"

namespace seewhy {

// Writes the mean of each map to result (count, channels).
void channel_means(const Maps& gradients, int threads, float* result);

// Writes Grad-CAM++'s weights to result (count, channels). A term whose denominator is zero counts as 0.
void gradcam_plus_plus_weights(const Maps& activations, const Maps& gradients, int threads, float* result);

// Writes XGrad-CAM's weights to result (count, channels). A map that sums to zero gets weight 0.
void xgradcam_weights(const Maps& activations, const Maps& gradients, int threads, float* result);

// Writes the sum over channels of weight times map to result (count, height, width). `weights` is (count, channels).
void weighted_sum(const Maps& activations, const float* weights, int threads, float* result);

// Writes the sum over channels of activation times gradient to result (count, height, width). If `positive`, negative
// gradients count as 0.
void product_sum(const Maps& activations, const Maps& gradients, bool positive, int threads, float* result);

}  // namespace seewhy
