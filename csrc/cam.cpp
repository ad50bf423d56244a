#include "cam.h"

#include <algorithm>

#include "numeric.h"

namespace seewhy {

namespace {

constexpr Index kLanes = 8;

// The sum of term(0) to term(size - 1).
template <typename Term>
double sum(Index size, Term term) {
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
    return sum(size, [=](Index i) { return static_cast<double>(values[i]); });
}

double gradcam_plus_plus_weight(const float* SEEWHY_RESTRICT activations, const float* SEEWHY_RESTRICT gradients,
                                Index size) {
    const double total = sum(activations, size);
    const double weight = sum(size, [=](Index i) {
        const double g = gradients[i];
        const double denominator = 2.0 + g * total;
        // Written so that NaN passes: a comparison with NaN is false.
        return g <= 0.0 || denominator == 0.0 ? 0.0 : g / denominator;
    });
    return weight + (total - total);  // adds 0, or NaN where division by an infinite total left 0
}

double xgradcam_weight(const float* SEEWHY_RESTRICT activations, const float* SEEWHY_RESTRICT gradients, Index size) {
    const double total = sum(activations, size);
    const double products = sum(size, [=](Index i) { return static_cast<double>(gradients[i]) * activations[i]; });
    return total == 0.0 ? 0.0 * products : products / total;  // 0 times NaN or infinity is NaN
}

constexpr Index kBlock = 256;  // pixels whose sums stay in the first-level cache over all channels

// One block of one image's map; channels lie `stride` apart.
void weighted_block(const float* activations, const float* weights, Index channels, Index stride, Index size,
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
    for (Index i = 0; i < size; ++i) result[i] = static_cast<float>(sums[i]);
}

template <bool kPositive>
void product_block(const float* activations, const float* gradients, Index channels, Index stride, Index size,
                   float* SEEWHY_RESTRICT result) {
    double sums[kBlock] = {};
    for (Index c = 0; c < channels; ++c) {
        const float* SEEWHY_RESTRICT a = activations + c * stride;
        const float* SEEWHY_RESTRICT g = gradients + c * stride;
        for (Index i = 0; i < size; ++i) {
            const float factor = kPositive && g[i] < 0.0f ? 0.0f : g[i];  // NaN passes
            sums[i] += static_cast<double>(factor) * a[i];
        }
    }
    for (Index i = 0; i < size; ++i) result[i] = static_cast<float>(sums[i]);
}

// One weight for each of `maps` pairs of an activation map and its gradient.
template <typename Weight>
void weights(const float* activations, const float* gradients, Index maps, Index size, int threads, float* result,
             Weight weight) {
    parallel_for(0, maps, grain_for(2 * size), threads, [&](Index first, Index last) {
        for (Index map = first; map < last; ++map) {
            result[map] = static_cast<float>(weight(activations + map * size, gradients + map * size, size));
        }
    });
}

// Calls work(n, start, length) for blocks that together cover `count` images of `size` pixels.
template <typename Work>
void for_blocks(Index count, Index channels, Index size, int threads, Work work) {
    const Index blocks = (size + kBlock - 1) / kBlock;
    const Index cost = channels * std::min(size, kBlock);
    parallel_for(0, count * blocks, grain_for(cost), threads, [&](Index first, Index last) {
        for (Index item = first; item < last; ++item) {
            const Index start = (item % blocks) * kBlock;
            work(item / blocks, start, std::min(kBlock, size - start));
        }
    });
}

}  // namespace

void channel_means(const float* gradients, Index maps, Index size, int threads, float* result) {
    parallel_for(0, maps, grain_for(size), threads, [&](Index first, Index last) {
        for (Index map = first; map < last; ++map) {
            result[map] = static_cast<float>(sum(gradients + map * size, size) / static_cast<double>(size));
        }
    });
}

void gradcam_plus_plus_weights(const float* activations, const float* gradients, Index maps, Index size, int threads,
                               float* result) {
    weights(activations, gradients, maps, size, threads, result, gradcam_plus_plus_weight);
}

void xgradcam_weights(const float* activations, const float* gradients, Index maps, Index size, int threads,
                      float* result) {
    weights(activations, gradients, maps, size, threads, result, xgradcam_weight);
}

void weighted_sum(const float* activations, const float* weights, Index count, Index channels, Index size, int threads,
                  float* result) {
    for_blocks(count, channels, size, threads, [=](Index n, Index start, Index length) {
        weighted_block(activations + n * channels * size + start, weights + n * channels, channels, size, length,
                       result + n * size + start);
    });
}

void product_sum(const float* activations, const float* gradients, bool positive, Index count, Index channels,
                 Index size, int threads, float* result) {
    const auto block = positive ? product_block<true> : product_block<false>;
    for_blocks(count, channels, size, threads, [=](Index n, Index start, Index length) {
        const Index offset = n * channels * size + start;
        block(activations + offset, gradients + offset, channels, size, length, result + n * size + start);
    });
}

}  // namespace seewhy
