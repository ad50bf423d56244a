#include "loops/numeric.h"

namespace seewhy::SEEWHY_ISA {

namespace {

// Returns the magnitude as an integer. These integers have the order of the floats, and NaN is above infinity.
std::int32_t magnitude_bits(float value) {
    std::int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits & 0x7FFFFFFF;
}

void max_abs(const float* gradients, Index channels, Index stride, Index size, float* SEEWHY_RESTRICT result) {
    std::int32_t most[GradientLoops::kBlock];
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

void rgb(const float* gradients, const Span& span, Index channels, Index stride, Index size,
         std::uint8_t* SEEWHY_RESTRICT result) {
    std::uint8_t planes[3][GradientLoops::kBlock];
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

void multiply(const float* SEEWHY_RESTRICT gradients, const float* SEEWHY_RESTRICT map, Index size,
              float* SEEWHY_RESTRICT result) {
    for (Index i = 0; i < size; ++i) result[i] = gradients[i] * map[i];
}

}  // namespace

const GradientLoops gradient_loops = {max_abs, rgb, multiply};

}  // namespace seewhy::SEEWHY_ISA
