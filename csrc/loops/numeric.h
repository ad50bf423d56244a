// Helpers that the loops share. All of them vectorise.
#pragma once

#include <cstdint>
#include <cstring>

#include "loops/loops.h"

namespace seewhy::SEEWHY_ISA {

// Rounds 0 <= value <= 255 to the nearest integer, halves to even. Adding 1.5 * 2^23 leaves no bits for a fraction, so
// the addition rounds and puts the integer into the low bits. Adding 0.5 instead would round 0.49999997 up.
inline std::uint8_t round_to_byte(float value) {
    const float shifted = value + 12582912.0f;
    std::uint32_t bits;
    std::memcpy(&bits, &shifted, sizeof bits);
    return static_cast<std::uint8_t>(bits & 0xFFu);
}

// a + share * (b - a), unlike (1 - share) * a + share * b, keeps a constant map exactly constant.
inline float between(float a, float b, float share) { return a + share * (b - a); }

}  // namespace seewhy::SEEWHY_ISA
