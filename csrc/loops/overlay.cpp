// Colour map and blend. Where compilers make little of a loop, it is written out for the instruction set.
#include "numeric.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace seewhy {
namespace SEEWHY_ISA {

namespace {

bool entries(const float* SEEWHY_RESTRICT heat, Index size, std::uint8_t* SEEWHY_RESTRICT result) {
    std::uint32_t nan = 0;
    for (Index i = 0; i < size; ++i) {
        const float value = heat[i];
        nan |= value != value ? 1u : 0u;
        const float positive = value < 0.0f ? 0.0f : value;
        result[i] = round_to_byte((positive > 1.0f ? 1.0f : positive) * 255.0f);
    }
    return nan != 0;
}

void entries_between(const float* SEEWHY_RESTRICT above, const float* SEEWHY_RESTRICT below, float share,
                     const Span& span, Index size, std::uint8_t* SEEWHY_RESTRICT result) {
    const float scale = span.scale, low = span.low, range = span.range;
    for (Index i = 0; i < size; ++i) {
        const float value = between(above[i], below[i], share);
        result[i] = round_to_byte((value * scale - low) / range * 255.0f);
    }
}

constexpr Index kSlack = 16;  // bytes that may be written behind the last colour

// Entries of four bytes copy in one store each; the next pixel overwrites the fourth byte.
void look_up(const std::uint8_t* SEEWHY_RESTRICT entries, const std::uint8_t (*SEEWHY_RESTRICT colours)[4], Index size,
             std::uint8_t* SEEWHY_RESTRICT result) {
    Index i = 0;
#if defined(__AVX2__)
    const __m128i without_fourth = _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1);
    const auto colour = [&](Index pixel) {
        int value;
        std::memcpy(&value, colours[entries[pixel]], sizeof value);
        return value;
    };
    for (; i + 4 <= size; i += 4) {
        __m128i four = _mm_cvtsi32_si128(colour(i));
        four = _mm_insert_epi32(four, colour(i + 1), 1);
        four = _mm_insert_epi32(four, colour(i + 2), 2);
        four = _mm_insert_epi32(four, colour(i + 3), 3);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(result + 3 * i), _mm_shuffle_epi8(four, without_fourth));
    }
#endif
    for (; i < size; ++i) std::memcpy(result + 3 * i, colours[entries[i]], 4);
}

// Half of each is exact in float, so this is the general rule: the average, halves to the even neighbour.
void blend_halves(const std::uint8_t* SEEWHY_RESTRICT colours, const std::uint8_t* SEEWHY_RESTRICT photograph,
                  Index bytes, std::uint8_t* SEEWHY_RESTRICT result) {
    for (Index i = 0; i < bytes; ++i) {
        const std::uint8_t up = static_cast<std::uint8_t>((colours[i] + photograph[i] + 1) >> 1);
        result[i] = static_cast<std::uint8_t>(up - ((colours[i] ^ photograph[i]) & up & 1));
    }
}

// Conversions to integers round as round_to_byte does, to nearest, halves to even.
#if defined(__AVX2__)

// Bytes 4 * kPart to 4 * kPart + 3 of each half, as floats. Packing, which works within halves too, puts them back.
template <int kPart>
__m256 floats(__m256i bytes) {
    constexpr int b = 4 * kPart;
    const __m256i spread = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(b, -1, -1, -1, b + 1, -1, -1, -1, b + 2, -1, -1, -1, b + 3, -1, -1, -1));
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, spread));
}

template <int kPart>
__m256i mixed(__m256i colours, __m256i photograph, __m256 alpha, __m256 rest) {
    return _mm256_cvtps_epi32(_mm256_add_ps(_mm256_mul_ps(alpha, floats<kPart>(colours)),
                                            _mm256_mul_ps(rest, floats<kPart>(photograph))));
}

Index blend_wide(const std::uint8_t* SEEWHY_RESTRICT colours, const std::uint8_t* SEEWHY_RESTRICT photograph,
                 float alpha, float rest, Index bytes, std::uint8_t* SEEWHY_RESTRICT result) {
    const __m256 first = _mm256_set1_ps(alpha), second = _mm256_set1_ps(rest);
    Index i = 0;
    for (; i + 32 <= bytes; i += 32) {
        const __m256i colour = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(colours + i));
        const __m256i pixel = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(photograph + i));
        const __m256i low =
            _mm256_packs_epi32(mixed<0>(colour, pixel, first, second), mixed<1>(colour, pixel, first, second));
        const __m256i high =
            _mm256_packs_epi32(mixed<2>(colour, pixel, first, second), mixed<3>(colour, pixel, first, second));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(result + i), _mm256_packus_epi16(low, high));
    }
    return i;
}

#elif defined(__SSE2__)

Index blend_wide(const std::uint8_t* SEEWHY_RESTRICT colours, const std::uint8_t* SEEWHY_RESTRICT photograph,
                 float alpha, float rest, Index bytes, std::uint8_t* SEEWHY_RESTRICT result) {
    const __m128 first = _mm_set1_ps(alpha), second = _mm_set1_ps(rest);
    const __m128i zero = _mm_setzero_si128();
    const auto four = [&](__m128i colour, __m128i pixel) {
        return _mm_cvtps_epi32(_mm_add_ps(_mm_mul_ps(first, _mm_cvtepi32_ps(colour)),
                                          _mm_mul_ps(second, _mm_cvtepi32_ps(pixel))));
    };
    const auto eight = [&](__m128i colour, __m128i pixel) {
        return _mm_packs_epi32(four(_mm_unpacklo_epi16(colour, zero), _mm_unpacklo_epi16(pixel, zero)),
                               four(_mm_unpackhi_epi16(colour, zero), _mm_unpackhi_epi16(pixel, zero)));
    };
    Index i = 0;
    for (; i + 16 <= bytes; i += 16) {
        const __m128i colour = _mm_loadu_si128(reinterpret_cast<const __m128i*>(colours + i));
        const __m128i pixel = _mm_loadu_si128(reinterpret_cast<const __m128i*>(photograph + i));
        const __m128i low = eight(_mm_unpacklo_epi8(colour, zero), _mm_unpacklo_epi8(pixel, zero));
        const __m128i high = eight(_mm_unpackhi_epi8(colour, zero), _mm_unpackhi_epi8(pixel, zero));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(result + i), _mm_packus_epi16(low, high));
    }
    return i;
}

#else

Index blend_wide(const std::uint8_t*, const std::uint8_t*, float, float, Index, std::uint8_t*) { return 0; }

#endif

void blend(const std::uint8_t* SEEWHY_RESTRICT colours, const std::uint8_t* SEEWHY_RESTRICT photograph, float alpha,
           float rest, Index bytes, std::uint8_t* SEEWHY_RESTRICT result) {
    for (Index i = blend_wide(colours, photograph, alpha, rest, bytes, result); i < bytes; ++i) {
        result[i] = round_to_byte(alpha * static_cast<float>(colours[i]) + rest * static_cast<float>(photograph[i]));
    }
}

void paint(const std::uint8_t* entries, const std::uint8_t (*colours)[4], const std::uint8_t* photograph, float alpha,
           float rest, Index size, std::uint8_t* result) {
    std::uint8_t looked_up[3 * OverlayLoops::kBlock + kSlack];
    look_up(entries, colours, size, looked_up);
    if (alpha == 0.5f && rest == 0.5f) {
        blend_halves(looked_up, photograph, 3 * size, result);
    } else {
        blend(looked_up, photograph, alpha, rest, 3 * size, result);
    }
}

}  // namespace

const OverlayLoops overlay_loops = {entries, entries_between, paint};

}  // namespace SEEWHY_ISA
}  // namespace seewhy
