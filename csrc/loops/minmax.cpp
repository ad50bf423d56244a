#include "loops/numeric.h"

namespace seewhy::SEEWHY_ISA {

namespace {

// Returns the extremes, and copies the values if `kCopy`.
template <bool kCopy>
Extremes extremes_of(const float* SEEWHY_RESTRICT values, Index size, float* SEEWHY_RESTRICT copy) {
    std::int32_t low = INT32_MAX, high = INT32_MIN;
    for (Index i = 0; i < size; ++i) {
        std::int32_t bits;
        std::memcpy(&bits, values + i, sizeof bits);
        if (kCopy) std::memcpy(copy + i, &bits, sizeof bits);
        const std::int32_t key = bits ^ ((bits >> 31) & 0x7FFFFFFF);  // reverses the order of negative values
        low = key < low ? key : low;
        high = key > high ? key : high;
    }
    return {low, high};
}

Extremes extremes(const float* values, Index size) { return extremes_of<false>(values, size, nullptr); }

Extremes copy(const float* values, Index size, float* result) { return extremes_of<true>(values, size, result); }

void rescale(const float* SEEWHY_RESTRICT values, const Span& span, Index size, float* SEEWHY_RESTRICT result) {
    const float scale = span.scale, low = span.low, range = span.range;
    for (Index i = 0; i < size; ++i) result[i] = (values[i] * scale - low) / range;
}

}  // namespace

const MinmaxLoops minmax_loops = {extremes, copy, rescale};

}  // namespace seewhy::SEEWHY_ISA
