#include "kernels/minmax.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "blocks.h"
#include "cpu_dispatch.h"
#include "parallel.h"

namespace seewhy {

namespace {

constexpr Index kBlock = 1 << 15;

// Returns the float that a value of `Extremes` stands for.
float float_of(std::int32_t key) {
    const std::int32_t bits = key ^ ((key >> 31) & 0x7FFFFFFF);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace

Span span_of(const Extremes& extremes) {
    const float low = float_of(extremes.low), high = float_of(extremes.high);
    Span span;
    span.finite = std::isfinite(low) && std::isfinite(high);
    if (!span.finite) return span;
    // high - low overflows if the values fill more than half of the range of float. Halving them is exact.
    if (!std::isfinite(high - low)) span.scale = 0.5f;
    span.low = low * span.scale;
    span.range = high * span.scale - span.low;
    return span;
}

namespace {

// Returns the span of each image, given extremes(block) of each of its blocks.
template <typename ExtremesOf>
std::vector<Span> spans_of_blocks(const Maps& maps, int threads, const ExtremesOf& extremes) {
    const Index size = maps.image_size(), blocks = blocks_in(size, kBlock);
    std::vector<Extremes> parts(maps.count * blocks);
    for_blocks<kBlock>(maps.count, size, 1, threads,
                       [&](const Block& block) { parts[block.index] = extremes(block); });
    std::vector<Span> spans;
    spans.reserve(maps.count);
    for (Index first = 0; first < maps.count * blocks; first += blocks) {
        Extremes all;
        for (Index index = first; index < first + blocks; ++index) all.add(parts[index]);
        spans.push_back(span_of(all));
    }
    return spans;
}

}  // namespace

std::vector<Span> spans_of(const Maps& maps, int threads) {
    const auto extremes = loops().minmax.extremes;
    return spans_of_blocks(maps, threads, [&](const Block& block) {
        return extremes(maps.data + block.offset, block.length);
    });
}

FirstNotFinite copy_and_check(const Maps& images, int threads, float* result) {
    const auto copy = loops().minmax.copy;
    // Copying a value takes a fraction of a nanosecond, and starting a thread longer than copying one small image.
    if (images.count * images.image_size() < 4 * kGrain) threads = 1;
    return first_not_finite(spans_of_blocks(images, threads, [&](const Block& block) {
        return copy(images.data + block.offset, block.length, result + block.offset);
    }));
}

FirstNotFinite first_not_finite(const std::vector<Span>& spans) {
    const auto found = std::find_if(spans.begin(), spans.end(), [](const Span& span) { return !span.finite; });
    return found == spans.end() ? FirstNotFinite() : found - spans.begin();
}

FirstNotFinite minmax(const Maps& maps, int threads, float* result) {
    const std::vector<Span> spans = spans_of(maps, threads);
    if (const FirstNotFinite bad = first_not_finite(spans)) return bad;
    const auto rescale = loops().minmax.rescale;
    for_blocks<kBlock>(maps.count, maps.size(), 1, threads, [&](const Block& block) {
        const Span& span = spans[block.map];
        if (span.range > 0.0f) {
            rescale(maps.data + block.offset, span, block.length, result + block.offset);
        } else {
            std::fill_n(result + block.offset, block.length, 0.0f);
        }
    });
    return std::nullopt;
}

}  // namespace seewhy
