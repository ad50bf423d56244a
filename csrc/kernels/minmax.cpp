#include "kernels/minmax.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "cpu_dispatch.h"

namespace seewhy {

namespace {

constexpr Index kBlock = 1 << 15;  // values: one item of work

// The float of such an integer as `Extremes` holds.
float value_of(std::int32_t key) {
    const std::int32_t bits = key ^ ((key >> 31) & 0x7FFFFFFF);
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

}  // namespace

Span span_of(const Extremes& found) {
    const float low = value_of(found.low), high = value_of(found.high);
    Span span;
    span.finite = std::isfinite(low) && std::isfinite(high);
    if (!span.finite) return span;
    // high - low overflows where the values fill more than half of the range of float; halving them is exact.
    if (!std::isfinite(high - low)) span.scale = 0.5f;
    span.low = low * span.scale;
    span.range = high * span.scale - span.low;
    return span;
}

std::vector<Span> spans(const float* maps, Index count, Index size, int threads) {
    const Index blocks = (size + kBlock - 1) / kBlock;
    const auto extremes = loops().minmax.extremes;
    std::vector<Extremes> parts(static_cast<std::size_t>(count * blocks));
    parallel_for(0, count * blocks, grain_for(std::min(size, kBlock)), threads, [&](Index first, Index last) {
        for (Index item = first; item < last; ++item) {
            const Index start = (item % blocks) * kBlock;
            parts[static_cast<std::size_t>(item)] =
                extremes(maps + (item / blocks) * size + start, std::min(kBlock, size - start));
        }
    });
    std::vector<Span> result(static_cast<std::size_t>(count));
    for (Index n = 0; n < count; ++n) {
        Extremes all;
        for (Index block = 0; block < blocks; ++block) all.add(parts[static_cast<std::size_t>(n * blocks + block)]);
        result[static_cast<std::size_t>(n)] = span_of(all);
    }
    return result;
}

Index first_not_finite(const std::vector<Span>& spans) {
    for (std::size_t n = 0; n < spans.size(); ++n) {
        if (!spans[n].finite) return static_cast<Index>(n);
    }
    return -1;
}

Index minmax(const float* maps, Index count, Index size, int threads, float* result) {
    const std::vector<Span> found = spans(maps, count, size, threads);
    const Index bad = first_not_finite(found);
    if (bad >= 0) return bad;
    const auto rescale = loops().minmax.rescale;
    const Index blocks = (size + kBlock - 1) / kBlock;
    parallel_for(0, count * blocks, grain_for(std::min(size, kBlock)), threads, [&](Index first, Index last) {
        for (Index item = first; item < last; ++item) {
            const Index start = (item % blocks) * kBlock;
            const Index length = std::min(kBlock, size - start);
            const Index offset = (item / blocks) * size + start;
            const Span& span = found[static_cast<std::size_t>(item / blocks)];
            if (span.range > 0.0f) {
                rescale(maps + offset, span, length, result + offset);
            } else {
                std::fill_n(result + offset, length, 0.0f);
            }
        }
    });
    return -1;
}

}  // namespace seewhy
