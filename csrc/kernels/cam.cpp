#include "kernels/cam.h"

#include "blocks.h"
#include "cpu_dispatch.h"
#include "parallel.h"

namespace seewhy {

namespace {

using WeightLoop = double (*)(const float* activations, const float* gradients, Index size);

// Writes one weight for each activation map and its gradients.
void write_weights(const Maps& activations, const Maps& gradients, WeightLoop weight, int threads, float* result) {
    const Index maps = activations.count * activations.channels, size = activations.size();
    parallel_for(0, maps, grain_for(2 * size), threads, [&](Index first, Index last) {
        for (Index map = first; map < last; ++map) {
            result[map] = static_cast<float>(weight(activations.data + map * size, gradients.data + map * size, size));
        }
    });
}

}  // namespace

void channel_means(const Maps& gradients, int threads, float* result) {
    const auto sum = loops().cam.sum;
    const Index maps = gradients.count * gradients.channels, size = gradients.size();
    parallel_for(0, maps, grain_for(size), threads, [&](Index first, Index last) {
        for (Index map = first; map < last; ++map) {
            result[map] = static_cast<float>(sum(gradients.data + map * size, size) / static_cast<double>(size));
        }
    });
}

void gradcam_plus_plus_weights(const Maps& activations, const Maps& gradients, int threads, float* result) {
    write_weights(activations, gradients, loops().cam.gradcam_plus_plus_weight, threads, result);
}

void xgradcam_weights(const Maps& activations, const Maps& gradients, int threads, float* result) {
    write_weights(activations, gradients, loops().cam.xgradcam_weight, threads, result);
}

void weighted_sum(const Maps& activations, const float* weights, int threads, float* result) {
    const auto weighted = loops().cam.weighted;
    const Index channels = activations.channels, size = activations.size();
    for_blocks<CamLoops::kBlock>(activations.count, size, channels, threads, [&](const Block& block) {
        weighted(activations.image(block.map) + block.start, weights + block.map * channels, channels, size,
                 block.length, result + block.offset);
    });
}

void product_sum(const Maps& activations, const Maps& gradients, bool positive, int threads, float* result) {
    const auto product = positive ? loops().cam.positive_product : loops().cam.product;
    const Index channels = activations.channels, size = activations.size();
    for_blocks<CamLoops::kBlock>(activations.count, size, channels, threads, [&](const Block& block) {
        product(activations.image(block.map) + block.start, gradients.image(block.map) + block.start, channels, size,
                block.length, result + block.offset);
    });
}

}  // namespace seewhy
