#include <math.h>

#include "loops/numeric.h"

namespace seewhy::SEEWHY_ISA {

namespace {

constexpr Index kLanes = NoiseLoops::kLanes, kBlock = NoiseLoops::kBlock, kPairs = kBlock / 2;

std::uint32_t rotated(std::uint32_t word, int count) { return (word << count) | (word >> (32 - count)); }

std::uint32_t bits_of(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

float float_of(std::uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// xoshiro128++ (Blackman and Vigna 2021), one generator for each lane.
void draw(std::uint32_t* SEEWHY_RESTRICT state, std::uint32_t* SEEWHY_RESTRICT result) {
    std::uint32_t* a = state;
    std::uint32_t* b = state + kLanes;
    std::uint32_t* c = state + 2 * kLanes;
    std::uint32_t* d = state + 3 * kLanes;
    for (Index start = 0; start < kBlock; start += kLanes) {
        for (Index lane = 0; lane < kLanes; ++lane) {
            const std::uint32_t s0 = a[lane], s1 = b[lane], s2 = c[lane] ^ s0, s3 = d[lane] ^ s1;
            result[start + lane] = rotated(s0 + d[lane], 7) + s0;
            a[lane] = s0 ^ s3;
            b[lane] = s1 ^ s2;
            c[lane] = s2 ^ (s1 << 9);
            d[lane] = rotated(s3, 11);
        }
    }
}

// Natural logarithm of 0 < value <= 1, with the polynomial of Cephes' logf. The error is below 1e-7 of the result.
float logarithm(float value) {
    // The exponent is chosen such that the mantissa is between sqrt(1/2) and sqrt(2).
    const std::int32_t exponent = static_cast<std::int32_t>(bits_of(value) - 0x3F3504F3u) >> 23;
    const float x = float_of(bits_of(value) - (static_cast<std::uint32_t>(exponent) << 23)) - 1.0f;
    const float power = static_cast<float>(exponent), square = x * x;
    float series = 7.0376836292e-2f;
    series = series * x - 1.1514610310e-1f;
    series = series * x + 1.1676998740e-1f;
    series = series * x - 1.2420140846e-1f;
    series = series * x + 1.4249322787e-1f;
    series = series * x - 1.6668057665e-1f;
    series = series * x + 2.0000714765e-1f;
    series = series * x - 2.4999993993e-1f;
    series = series * x + 3.3333331174e-1f;
    const float rest = series * x * square - 2.12194440e-4f * power - 0.5f * square;
    return x + rest + 0.693359375f * power;
}

// Box and Muller 1958: sqrt(-2 log u) times the cosine and the sine of an angle. The sine and the cosine between -pi/4
// and pi/4 use the polynomials of Cephes, and two bits choose the quadrant.
void normals(const std::uint32_t* SEEWHY_RESTRICT bits, float* SEEWHY_RESTRICT result) {
    for (Index i = 0; i < kPairs; ++i) {
        const float uniform = static_cast<float>(static_cast<std::int32_t>(bits[i] >> 1)) * 0x1p-31f + 0x1p-32f;
        const float squared = -2.0f * logarithm(uniform);
        const float radius = sqrtf(squared > 0.0f ? squared : 0.0f);  // rounding may take the logarithm of 1 below 0
        const std::uint32_t word = bits[kPairs + i];
        const std::int32_t place = static_cast<std::int32_t>(word & 0x3FFFFFFFu) - 0x20000000;
        const float angle = static_cast<float>(place) * 1.4629180792671596e-9f;  // pi / 2 / 2^30
        const float z = angle * angle;
        const float sine = ((-1.9515295891e-4f * z + 8.3321608736e-3f) * z - 1.6666654611e-1f) * z * angle + angle;
        const float cosine =
            ((2.443315711809948e-5f * z - 1.388731625493765e-3f) * z + 4.166664568298827e-2f) * z * z - 0.5f * z + 1.0f;
        const std::uint32_t swapped = 0u - ((word >> 30) & 1u), s = bits_of(sine), c = bits_of(cosine);
        const std::uint32_t first = (c & ~swapped) | (s & swapped), second = (s & ~swapped) | (c & swapped);
        result[i] = radius * float_of(first ^ ((word ^ (word << 1)) & 0x80000000u));
        result[kPairs + i] = radius * float_of(second ^ (word & 0x80000000u));
    }
}

}  // namespace

const NoiseLoops noise_loops = {draw, normals};

}  // namespace seewhy::SEEWHY_ISA
