#include "minmax.h"

#include <algorithm>
#include <limits>

#include "numeric.h"

namespace seewhy {

namespace {

constexpr Index kLanes = 8;
constexpr Index kBlock = 1 << 15;  // values: one item of work
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Extremes {
    float low = kInfinity;
    float high = -kInfinity;
    bool nan = false;

    void add(const Extremes& other) {
        low = std::min(low, other.low);
        high = std::max(high, other.high);
        nan = nan || other.nan;
    }
};

Extremes extremes(const float* SEEWHY_RESTRICT values, Index size) {
    float low[kLanes], high[kLanes], nan[kLanes];
    for (Index lane = 0; lane < kLanes; ++lane) {
        low[lane] = kInfinity;
        high[lane] = -kInfinity;
        nan[lane] = 0.0f;
    }
    const Index whole = size - size % kLanes;
    for (Index i = 0; i < whole; i += kLanes) {
        for (Index lane = 0; lane < kLanes; ++lane) {
            const float value = values[i + lane];
            low[lane] = value < low[lane] ? value : low[lane];
            high[lane] = value > high[lane] ? value : high[lane];
            nan[lane] = value != value ? 1.0f : nan[lane];
        }
    }
    Extremes all;
    for (Index lane = 0; lane < kLanes; ++lane) all.add({low[lane], high[lane], nan[lane] != 0.0f});
    for (Index i = whole; i < size; ++i) all.add({values[i], values[i], values[i] != values[i]});
    return all;
}

Span span_of(const Extremes& found) {
    Span span;
    span.finite = !found.nan && found.low > -kInfinity && found.high < kInfinity;
    if (!span.finite) return span;
    // high - low overflows where the values fill more than half of the range of float; halving them is exact.
    if (found.high - found.low == kInfinity) span.scale = 0.5f;
    span.low = found.low * span.scale;
    span.range = found.high * span.scale - span.low;
    return span;
}

void rescale(const float* SEEWHY_RESTRICT values, const Span& span, Index size, float* SEEWHY_RESTRICT result) {
    const float scale = span.scale, low = span.low, range = span.range;
    for (Index i = 0; i < size; ++i) result[i] = (values[i] * scale - low) / range;
}

}  // namespace

std::vector<Span> spans(const float* maps, Index count, Index size, int threads) {
    const Index blocks = (size + kBlock - 1) / kBlock;
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
