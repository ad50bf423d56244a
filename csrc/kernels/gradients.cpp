#include "kernels/gradients.h"

#include <algorithm>
#include <vector>

#include "cpu_dispatch.h"
#include "kernels/minmax.h"

namespace seewhy {

namespace {

constexpr Index kBlock = GradientLoops::kBlock;

Index blocks_in(Index size) { return (size + kBlock - 1) / kBlock; }

}  // namespace

void max_abs(const float* gradients, Index count, Index channels, Index size, int threads, float* result) {
    const auto block = loops().gradients.max_abs;
    const Index blocks = blocks_in(size);
    const Index cost = channels * std::min(size, kBlock);
    parallel_for(0, count * blocks, grain_for(cost), threads, [&](Index first, Index last) {
        for (Index item = first; item < last; ++item) {
            const Index n = item / blocks;
            const Index start = (item % blocks) * kBlock;
            block(gradients + n * channels * size + start, channels, size, std::min(kBlock, size - start),
                  result + n * size + start);
        }
    });
}

Index gradient_rgb(const float* gradients, Index count, Index channels, Index size, int threads, std::uint8_t* result) {
    const std::vector<Span> found = spans(gradients, count, channels * size, threads);
    const Index bad = first_not_finite(found);
    if (bad >= 0) return bad;
    const auto rgb = loops().gradients.rgb;
    const Index blocks = blocks_in(size);
    parallel_for(0, count * blocks, grain_for(3 * std::min(size, kBlock)), threads, [&](Index first, Index last) {
        for (Index item = first; item < last; ++item) {
            const Index n = item / blocks;
            const Index start = (item % blocks) * kBlock;
            const Index length = std::min(kBlock, size - start);
            std::uint8_t* target = result + 3 * (n * size + start);
            const Span& span = found[static_cast<std::size_t>(n)];
            if (span.range > 0.0f) {
                rgb(gradients + n * channels * size + start, span, channels, size, length, target);
            } else {
                std::fill_n(target, 3 * length, std::uint8_t{0});
            }
        }
    });
    return -1;
}

void multiply_by_map(const float* gradients, const float* maps, Index count, Index channels, Index size, int threads,
                     float* result) {
    const auto multiply = loops().gradients.multiply;
    const Index blocks = blocks_in(size);
    const Index cost = channels * std::min(size, kBlock);
    parallel_for(0, count * blocks, grain_for(cost), threads, [&](Index first, Index last) {
        for (Index item = first; item < last; ++item) {
            const Index n = item / blocks;
            const Index start = (item % blocks) * kBlock;
            const Index length = std::min(kBlock, size - start);
            for (Index c = 0; c < channels; ++c) {
                const Index offset = (n * channels + c) * size + start;
                multiply(gradients + offset, maps + n * size + start, length, result + offset);
            }
        }
    });
}

}  // namespace seewhy
