#include "cam.h"

#include <algorithm>

#include "numeric.h"

namespace seewhy {

namespace {

constexpr Index kLanes = 8;

double sum(const float* SEEWHY_RESTRICT values, Index size) {
    double lanes[kLanes] = {};
    const Index whole = size - size % kLanes;
    for (Index i = 0; i < whole; i += kLanes) {
        for (Index lane = 0; lane < kLanes; ++lane) lanes[lane] += static_cast<double>(values[i + lane]);
    }
    double rest = 0.0;
    for (Index i = whole; i < size; ++i) rest += static_cast<double>(values[i]);
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7])) + rest;
}

constexpr Index kBlock = 256;  // pixels whose sums stay in the first-level cache over all channels

// One block of one image's map; channels lie `stride` apart.
void weighted_block(const float* activations, const float* weights, bool relu, Index channels, Index stride, Index size,
                    float* SEEWHY_RESTRICT result) {
    double sums[kBlock] = {};
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
    if (relu) {
        // Written so that NaN passes: a comparison with NaN is false.
        for (Index i = 0; i < size; ++i) sums[i] = sums[i] < 0.0 ? 0.0 : sums[i];
    }
    for (Index i = 0; i < size; ++i) result[i] = static_cast<float>(sums[i]);
}

}  // namespace

void channel_means(const float* gradients, Index maps, Index size, int threads, float* result) {
    parallel_for(0, maps, grain_for(size), threads, [&](Index first, Index last) {
        for (Index map = first; map < last; ++map) {
            result[map] = static_cast<float>(sum(gradients + map * size, size) / static_cast<double>(size));
        }
    });
}

void weighted_sum(const float* activations, const float* weights, bool relu, Index count, Index channels, Index size,
                  int threads, float* result) {
    const Index blocks = (size + kBlock - 1) / kBlock;
    const Index cost = channels * std::min(size, kBlock);
    parallel_for(0, count * blocks, grain_for(cost), threads, [&](Index first, Index last) {
        for (Index item = first; item < last; ++item) {
            const Index n = item / blocks;
            const Index start = (item % blocks) * kBlock;
            weighted_block(activations + n * channels * size + start, weights + n * channels, relu, channels, size,
                           std::min(kBlock, size - start), result + n * size + start);
        }
    });
}

}  // namespace seewhy
