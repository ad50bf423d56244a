#include "kernels/cam.h"

#include <algorithm>

#include "cpu_dispatch.h"

namespace seewhy {

namespace {

// One weight for each of `maps` pairs of an activation map and its gradient.
void weights(const float* activations, const float* gradients, Index maps, Index size, int threads, float* result,
             double (*weight)(const float*, const float*, Index)) {
    parallel_for(0, maps, grain_for(2 * size), threads, [&](Index first, Index last) {
        for (Index map = first; map < last; ++map) {
            result[map] = static_cast<float>(weight(activations + map * size, gradients + map * size, size));
        }
    });
}

constexpr Index kBlock = CamLoops::kBlock;

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
    const auto sum = loops().cam.sum;
    parallel_for(0, maps, grain_for(size), threads, [&](Index first, Index last) {
        for (Index map = first; map < last; ++map) {
            result[map] = static_cast<float>(sum(gradients + map * size, size) / static_cast<double>(size));
        }
    });
}

void gradcam_plus_plus_weights(const float* activations, const float* gradients, Index maps, Index size, int threads,
                               float* result) {
    weights(activations, gradients, maps, size, threads, result, loops().cam.gradcam_plus_plus_weight);
}

void xgradcam_weights(const float* activations, const float* gradients, Index maps, Index size, int threads,
                      float* result) {
    weights(activations, gradients, maps, size, threads, result, loops().cam.xgradcam_weight);
}

void weighted_sum(const float* activations, const float* weights, Index count, Index channels, Index size, int threads,
                  float* result) {
    const auto weighted = loops().cam.weighted;
    for_blocks(count, channels, size, threads, [=](Index n, Index start, Index length) {
        weighted(activations + n * channels * size + start, weights + n * channels, channels, size, length,
                 result + n * size + start);
    });
}

void product_sum(const float* activations, const float* gradients, bool positive, Index count, Index channels,
                 Index size, int threads, float* result) {
    const auto block = positive ? loops().cam.positive_product : loops().cam.product;
    for_blocks(count, channels, size, threads, [=](Index n, Index start, Index length) {
        const Index offset = n * channels * size + start;
        block(activations + offset, gradients + offset, channels, size, length, result + n * size + start);
    });
}

}  // namespace seewhy
