#include "kernels/gradients.h"

#include <algorithm>
#include <vector>

#include "blocks.h"
#include "cpu_dispatch.h"

namespace seewhy {

constexpr Index kBlock = GradientLoops::kBlock;

void max_abs(const Maps& gradients, int threads, float* result) {
    const auto maximum = loops().gradients.max_abs;
    const Index channels = gradients.channels, size = gradients.size();
    for_blocks<kBlock>(gradients.count, size, channels, threads, [&](const Block& block) {
        maximum(gradients.image(block.map) + block.start, channels, size, block.length, result + block.offset);
    });
}

FirstNotFinite gradient_rgb(const Maps& gradients, int threads, std::uint8_t* result) {
    const std::vector<Span> spans = spans_of(gradients, threads);
    if (const FirstNotFinite bad = first_not_finite(spans)) return bad;
    const auto rgb = loops().gradients.rgb;
    const Index channels = gradients.channels, size = gradients.size();
    for_blocks<kBlock>(gradients.count, size, 3, threads, [&](const Block& block) {
        const Span& span = spans[block.map];
        std::uint8_t* target = result + 3 * block.offset;
        if (span.range > 0.0f) {
            rgb(gradients.image(block.map) + block.start, span, channels, size, block.length, target);
        } else {
            std::fill_n(target, 3 * block.length, std::uint8_t{0});
        }
    });
    return std::nullopt;
}

void multiply_by_map(const Maps& gradients, const Maps& maps, int threads, float* result) {
    const auto multiply = loops().gradients.multiply;
    const Index channels = gradients.channels, size = gradients.size();
    for_blocks<kBlock>(gradients.count, size, channels, threads, [&](const Block& block) {
        for (Index c = 0; c < channels; ++c) {
            const Index offset = block.map * gradients.image_size() + c * size + block.start;
            multiply(gradients.data + offset, maps.data + block.offset, block.length, result + offset);
        }
    });
}

}  // namespace seewhy
