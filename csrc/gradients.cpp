#include "gradients.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "minmax.h"
#include "numeric.h"

namespace seewhy {

namespace {

constexpr Index kBlock = 1024;  // pixels: one item of work, small enough for the first-level cache

Index blocks_in(Index size) { return (size + kBlock - 1) / kBlock; }

// Magnitudes are compared as integers: without the sign bit floats order like their bits, and NaN is above infinity.
std::int32_t magnitude_bits(float value) {
    std::int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits & 0x7FFFFFFF;
}

void max_abs_block(const float* gradients, Index channels, Index stride, Index size, float* SEEWHY_RESTRICT result) {
    std::int32_t most[kBlock];
    for (Index i = 0; i < size; ++i) most[i] = magnitude_bits(gradients[i]);
    for (Index c = 1; c < channels; ++c) {
        const float* SEEWHY_RESTRICT plane = gradients + c * stride;
        for (Index i = 0; i < size; ++i) {
            const std::int32_t bits = magnitude_bits(plane[i]);
            most[i] = bits > most[i] ? bits : most[i];
        }
    }
    std::memcpy(result, most, static_cast<std::size_t>(size) * sizeof(float));
}

void quantise(const float* SEEWHY_RESTRICT values, const Span& span, Index size, std::uint8_t* SEEWHY_RESTRICT result) {
    const float scale = span.scale, low = span.low, range = span.range;
    for (Index i = 0; i < size; ++i) result[i] = round_to_byte((values[i] * scale - low) / range * 255.0f);
}

void rgb_block(const float* gradients, const Span& span, Index channels, Index stride, Index size,
               std::uint8_t* SEEWHY_RESTRICT result) {
    std::uint8_t planes[3][kBlock];
    for (Index c = 0; c < channels; ++c) quantise(gradients + c * stride, span, size, planes[c]);
    const std::uint8_t* red = planes[0];
    const std::uint8_t* green = channels == 3 ? planes[1] : red;
    const std::uint8_t* blue = channels == 3 ? planes[2] : red;
    for (Index i = 0; i < size; ++i) {
        result[3 * i] = red[i];
        result[3 * i + 1] = green[i];
        result[3 * i + 2] = blue[i];
    }
}

}  // namespace

void max_abs(const float* gradients, Index count, Index channels, Index size, int threads, float* result) {
    const Index blocks = blocks_in(size);
    const Index cost = channels * std::min(size, kBlock);
    parallel_for(0, count * blocks, grain_for(cost), threads, [&](Index first, Index last) {
        for (Index item = first; item < last; ++item) {
            const Index n = item / blocks;
            const Index start = (item % blocks) * kBlock;
            max_abs_block(gradients + n * channels * size + start, channels, size, std::min(kBlock, size - start),
                          result + n * size + start);
        }
    });
}

Index gradient_rgb(const float* gradients, Index count, Index channels, Index size, int threads, std::uint8_t* result) {
    const std::vector<Span> found = spans(gradients, count, channels * size, threads);
    const Index bad = first_not_finite(found);
    if (bad >= 0) return bad;
    const Index blocks = blocks_in(size);
    parallel_for(0, count * blocks, grain_for(3 * std::min(size, kBlock)), threads, [&](Index first, Index last) {
        for (Index item = first; item < last; ++item) {
            const Index n = item / blocks;
            const Index start = (item % blocks) * kBlock;
            const Index length = std::min(kBlock, size - start);
            std::uint8_t* target = result + 3 * (n * size + start);
            const Span& span = found[static_cast<std::size_t>(n)];
            if (span.range > 0.0f) {
                rgb_block(gradients + n * channels * size + start, span, channels, size, length, target);
            } else {
                std::fill_n(target, 3 * length, std::uint8_t{0});
            }
        }
    });
    return -1;
}

void multiply_by_map(const float* gradients, const float* maps, Index count, Index channels, Index size, int threads,
                     float* result) {
    const Index blocks = blocks_in(size);
    const Index cost = channels * std::min(size, kBlock);
    parallel_for(0, count * blocks, grain_for(cost), threads, [&](Index first, Index last) {
        for (Index item = first; item < last; ++item) {
            const Index n = item / blocks;
            const Index start = (item % blocks) * kBlock;
            const Index length = std::min(kBlock, size - start);
            const float* SEEWHY_RESTRICT map = maps + n * size + start;
            for (Index c = 0; c < channels; ++c) {
                const Index offset = (n * channels + c) * size + start;
                const float* SEEWHY_RESTRICT in = gradients + offset;
                float* SEEWHY_RESTRICT out = result + offset;
                for (Index i = 0; i < length; ++i) out[i] = in[i] * map[i];
            }
        }
    });
}

}  // namespace seewhy
