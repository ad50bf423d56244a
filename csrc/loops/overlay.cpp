// Colormap lookup and blending. Loops that compilers do not vectorise well use intrinsics.
#include "loops/numeric.h"

#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace seewhy::SEEWHY_ISA {

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

#if defined(__AVX2__)
// Returns the shuffle mask that keeps the first three of every four bytes.
__m128i without_fourth() { return _mm_setr_epi8(0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, -1, -1, -1, -1); }
#endif

constexpr Index kSlack = 16;  // bytes that may be written after the last colour

// Copies each colour with one store of four bytes; the next pixel overwrites the fourth byte.
void look_up(const std::uint8_t* SEEWHY_RESTRICT entries, const std::uint8_t (*SEEWHY_RESTRICT colours)[4], Index size,
             std::uint8_t* SEEWHY_RESTRICT result) {
    Index i = 0;
#if defined(__AVX2__)
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
        _mm_storeu_si128(reinterpret_cast<__m128i*>(result + 3 * i), _mm_shuffle_epi8(four, without_fourth()));
    }
#endif
    for (; i < size; ++i) std::memcpy(result + 3 * i, colours[entries[i]], 4);
}

// Writes the average, with halves rounded to even. This equals the general rule, because half of a byte is exact in
// float.
void blend_halves(const std::uint8_t* SEEWHY_RESTRICT colours, const std::uint8_t* SEEWHY_RESTRICT image,
                  Index bytes, std::uint8_t* SEEWHY_RESTRICT result) {
    for (Index i = 0; i < bytes; ++i) {
        const std::uint8_t up = static_cast<std::uint8_t>((colours[i] + image[i] + 1) >> 1);
        result[i] = static_cast<std::uint8_t>(up - ((colours[i] ^ image[i]) & up & 1));
    }
}

// Conversions to integers round like round_to_byte: to nearest, halves to even.
#if defined(__AVX2__)

// Returns pixel kPixel of the four pixels in each half, with three bytes per pixel, as floats. The fourth float is 0.
template <int kPixel>
__m256 pixel_of(__m256i bytes) {
    constexpr int b = 3 * kPixel;
    const __m256i spread = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(b, -1, -1, -1, b + 1, -1, -1, -1, b + 2, -1, -1, -1, -1, -1, -1, -1));
    return _mm256_cvtepi32_ps(_mm256_shuffle_epi8(bytes, spread));
}

template <int kPixel>
__m256i mixed(const std::uint8_t* entries, const float (*shares)[4], __m256i image, __m256 rest) {
    const __m256 colours = _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(shares[entries[kPixel]])),
                                                _mm_loadu_ps(shares[entries[kPixel + 4]]), 1);
    return _mm256_cvtps_epi32(_mm256_add_ps(colours, _mm256_mul_ps(rest, pixel_of<kPixel>(image))));
}

// Blends pixels in groups, and returns the number of blended pixels.
Index blend_wide(const std::uint8_t* SEEWHY_RESTRICT entries, const Blend& blend,
                 const std::uint8_t* SEEWHY_RESTRICT image, Index size, std::uint8_t* SEEWHY_RESTRICT result) {
    const __m256 rest = _mm256_set1_ps(blend.rest);
    const __m256i three_of_four = _mm256_broadcastsi128_si256(without_fourth());
    Index i = 0;
    // Eight pixels, four in each half. The last four bytes read and written belong to the next pixels.
    for (; i + 10 <= size; i += 8) {
        const std::uint8_t* in = image + 3 * i;
        const __m256i pixels =
            _mm256_inserti128_si256(_mm256_castsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(in))),
                                    _mm_loadu_si128(reinterpret_cast<const __m128i*>(in + 12)), 1);
        const __m256i low = _mm256_packs_epi32(mixed<0>(entries + i, blend.shares, pixels, rest),
                                               mixed<1>(entries + i, blend.shares, pixels, rest));
        const __m256i high = _mm256_packs_epi32(mixed<2>(entries + i, blend.shares, pixels, rest),
                                                mixed<3>(entries + i, blend.shares, pixels, rest));
        const __m256i bytes = _mm256_shuffle_epi8(_mm256_packus_epi16(low, high), three_of_four);
        std::uint8_t* out = result + 3 * i;
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out), _mm256_castsi256_si128(bytes));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 12), _mm256_extracti128_si256(bytes, 1));
    }
    return i;
}

#elif defined(__SSE2__)

Index blend_wide(const std::uint8_t* SEEWHY_RESTRICT entries, const Blend& blend,
                 const std::uint8_t* SEEWHY_RESTRICT image, Index size, std::uint8_t* SEEWHY_RESTRICT result) {
    std::uint8_t colours[3 * OverlayLoops::kBlock + kSlack];
    look_up(entries, blend.colours, size, colours);
    const __m128 alpha = _mm_set1_ps(blend.alpha), rest = _mm_set1_ps(blend.rest);
    const __m128i zero = _mm_setzero_si128();
    const auto four = [&](__m128i colour, __m128i pixel) {
        return _mm_cvtps_epi32(
            _mm_add_ps(_mm_mul_ps(alpha, _mm_cvtepi32_ps(colour)), _mm_mul_ps(rest, _mm_cvtepi32_ps(pixel))));
    };
    const auto eight = [&](__m128i colour, __m128i pixel) {
        return _mm_packs_epi32(four(_mm_unpacklo_epi16(colour, zero), _mm_unpacklo_epi16(pixel, zero)),
                               four(_mm_unpackhi_epi16(colour, zero), _mm_unpackhi_epi16(pixel, zero)));
    };
    Index i = 0;
    for (; i + 16 <= size; i += 16) {  // pixels, so 48 bytes
        for (Index at = 3 * i; at < 3 * i + 48; at += 16) {
            const __m128i colour = _mm_loadu_si128(reinterpret_cast<const __m128i*>(colours + at));
            const __m128i pixel = _mm_loadu_si128(reinterpret_cast<const __m128i*>(image + at));
            const __m128i low = eight(_mm_unpacklo_epi8(colour, zero), _mm_unpacklo_epi8(pixel, zero));
            const __m128i high = eight(_mm_unpackhi_epi8(colour, zero), _mm_unpackhi_epi8(pixel, zero));
            _mm_storeu_si128(reinterpret_cast<__m128i*>(result + at), _mm_packus_epi16(low, high));
        }
    }
    return i;
}

#else

Index blend_wide(const std::uint8_t*, const Blend&, const std::uint8_t*, Index, std::uint8_t*) { return 0; }

#endif

void paint(const std::uint8_t* entries, const Blend& blend, const std::uint8_t* image, Index size,
           std::uint8_t* result) {
    if (blend.alpha == 0.5f && blend.rest == 0.5f) {
        std::uint8_t colours[3 * OverlayLoops::kBlock + kSlack];
        look_up(entries, blend.colours, size, colours);
        blend_halves(colours, image, 3 * size, result);
        return;
    }
    for (Index i = blend_wide(entries, blend, image, size, result); i < size; ++i) {
        const float* share = blend.shares[entries[i]];
        for (int c = 0; c < 3; ++c) {
            result[3 * i + c] = round_to_byte(share[c] + blend.rest * static_cast<float>(image[3 * i + c]));
        }
    }
}

}  // namespace

const OverlayLoops overlay_loops = {entries, entries_between, paint};

}  // namespace seewhy::SEEWHY_ISA
