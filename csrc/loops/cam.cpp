// Sums in double. The order of additions is fixed, because the bits depend on it: eight lanes, then their sum.
#include "loops/numeric.h"

namespace seewhy::SEEWHY_ISA {

namespace {

constexpr Index kLanes = 8;

// Returns the sum of term(0) to term(size - 1).
template <typename Term>
double sum_of(Index size, Term term) {
    double lanes[kLanes] = {};
    const Index whole = size - size % kLanes;
    for (Index i = 0; i < whole; i += kLanes) {
        for (Index lane = 0; lane < kLanes; ++lane) lanes[lane] += term(i + lane);
    }
    double rest = 0.0;
    for (Index i = whole; i < size; ++i) rest += term(i);
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7])) + rest;
}

double sum(const float* SEEWHY_RESTRICT values, Index size) {
    return sum_of(size, [=](Index i) { return static_cast<double>(values[i]); });
}

double gradcam_plus_plus_weight(const float* SEEWHY_RESTRICT activations, const float* SEEWHY_RESTRICT gradients,
                                Index size) {
    const double total = sum(activations, size);
    const double weight = sum_of(size, [=](Index i) {
        const double g = gradients[i];
        const double denominator = 2.0 + g * total;
        // A comparison with NaN is false, so NaN is kept.
        return g <= 0.0 || denominator == 0.0 ? 0.0 : g / denominator;
    });
    return weight + (total - total);  // adds 0, or NaN if division by an infinite total gave 0
}

double xgradcam_weight(const float* SEEWHY_RESTRICT activations, const float* SEEWHY_RESTRICT gradients, Index size) {
    const double total = sum(activations, size);
    const double products = sum_of(size, [=](Index i) { return static_cast<double>(gradients[i]) * activations[i]; });
    return total == 0.0 ? 0.0 * products : products / total;  // 0 times NaN or infinity is NaN
}

void weighted(const float* activations, const float* weights, Index channels, Index stride, Index size,
              float* SEEWHY_RESTRICT result) {
    double sums[CamLoops::kBlock] = {};
    Index c = 0;
    for (; c + 4 <= channels; c += 4) {
        const float* SEEWHY_RESTRICT a0 = activations + c * stride;
        const float* SEEWHY_RESTRICT a1 = a0 + stride;
        const float* SEEWHY_RESTRICT a2 = a1 + stride;
        const float* SEEWHY_RESTRICT a3 = a2 + stride;
        const double w0 = weights[c], w1 = weights[c + 1], w2 = weights[c + 2], w3 = weights[c + 3];
        for (Index i = 0; i < size; ++i) sums[i] = (((sums[i] + w0 * a0[i]) + w1 * a1[i]) + w2 * a2[i]) + w3 * a3[i];
    }
    for (; c < channels; ++c) {
        const float* SEEWHY_RESTRICT a = activations + c * stride;
        const double w = weights[c];
        for (Index i = 0; i < size; ++i) sums[i] += w * a[i];
    }
    for (Index i = 0; i < size; ++i) result[i] = static_cast<float>(sums[i]);
}

template <bool kPositive>
void product(const float* activations, const float* gradients, Index channels, Index stride, Index size,
             float* SEEWHY_RESTRICT result) {
    double sums[CamLoops::kBlock] = {};
    for (Index c = 0; c < channels; ++c) {
        const float* SEEWHY_RESTRICT a = activations + c * stride;
        const float* SEEWHY_RESTRICT g = gradients + c * stride;
        for (Index i = 0; i < size; ++i) {
            const float factor = kPositive && g[i] < 0.0f ? 0.0f : g[i];  // keeps NaN
            sums[i] += static_cast<double>(factor) * a[i];
        }
    }
    for (Index i = 0; i < size; ++i) result[i] = static_cast<float>(sums[i]);
}

}  // namespace

const CamLoops cam_loops = {sum, gradcam_plus_plus_weight, xgradcam_weight, weighted, product<false>, product<true>};

}  // namespace seewhy::SEEWHY_ISA
