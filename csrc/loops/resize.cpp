#include "loops/numeric.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace seewhy::SEEWHY_ISA {

namespace {

constexpr std::int32_t kHalf = 1 << (ResizeLoops::kBits - 1);

std::uint8_t to_byte(std::int32_t sum) {
    const std::int32_t value = sum >> ResizeLoops::kBits;
    return static_cast<std::uint8_t>(value < 0 ? 0 : value > 255 ? 255 : value);
}

#if defined(__AVX2__)

__m256i load(const std::int32_t* values) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(values)); }

// Eight bytes as integers.
__m256i widened(const std::uint8_t* bytes) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
}

// The four channels of one pixel of the result, as bytes.
std::int32_t pixel_of(const std::uint8_t* pixels, const std::int32_t* shares, Index count) {
    __m256i sums = _mm256_setzero_si256();  // of pixels at even and at odd positions
    Index i = 0;
    for (; i + 2 <= count; i += 2) {
        sums = _mm256_add_epi32(sums, _mm256_mullo_epi32(widened(pixels + 4 * i), load(shares + 4 * i)));
    }
    __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    if (i < count) {
        std::int32_t pixel;
        std::memcpy(&pixel, pixels + 4 * i, sizeof pixel);
        const __m128i share = _mm_loadu_si128(reinterpret_cast<const __m128i*>(shares + 4 * i));
        sum = _mm_add_epi32(sum, _mm_mullo_epi32(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(pixel)), share));
    }
    sum = _mm_srai_epi32(_mm_add_epi32(sum, _mm_set1_epi32(kHalf)), ResizeLoops::kBits);
    const __m128i words = _mm_packs_epi32(sum, sum);
    return _mm_cvtsi128_si32(_mm_packus_epi16(words, words));  // packing clips to 0..255
}

void across(const std::uint8_t* SEEWHY_RESTRICT pixels, const Index* SEEWHY_RESTRICT first,
            const std::int32_t* SEEWHY_RESTRICT shares, Index count, Index width,
            std::uint8_t* SEEWHY_RESTRICT result) {
    Index x = 0;
    for (; x + 1 < width; ++x) {  // the next pixel overwrites the fourth byte
        const std::int32_t pixel = pixel_of(pixels + 4 * first[x], shares + 4 * x * count, count);
        std::memcpy(result + 3 * x, &pixel, 4);
    }
    const std::int32_t pixel = pixel_of(pixels + 4 * first[x], shares + 4 * x * count, count);
    std::memcpy(result + 3 * x, &pixel, 3);
}

// Writes the first values, and returns their number, a multiple of 32.
Index down_blocks(const std::uint8_t* const* rows, const std::int32_t* shares, Index count, Index size,
                  std::uint8_t* result) {
    Index x = 0;
    for (; x + 32 <= size; x += 32) {
        __m256i a = _mm256_set1_epi32(kHalf), b = a, c = a, d = a;
        for (Index i = 0; i < count; ++i) {
            const std::uint8_t* row = rows[i] + x;
            const __m256i share = _mm256_set1_epi32(shares[i]);
            a = _mm256_add_epi32(a, _mm256_mullo_epi32(widened(row), share));
            b = _mm256_add_epi32(b, _mm256_mullo_epi32(widened(row + 8), share));
            c = _mm256_add_epi32(c, _mm256_mullo_epi32(widened(row + 16), share));
            d = _mm256_add_epi32(d, _mm256_mullo_epi32(widened(row + 24), share));
        }
        constexpr int bits = ResizeLoops::kBits;
        a = _mm256_packs_epi32(_mm256_srai_epi32(a, bits), _mm256_srai_epi32(b, bits));
        c = _mm256_packs_epi32(_mm256_srai_epi32(c, bits), _mm256_srai_epi32(d, bits));
        // Packing works on the two halves of a register separately, so groups of four bytes have to change places.
        const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(a, c), order);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(result + x), bytes);
    }
    return x;
}

#else

void across(const std::uint8_t* SEEWHY_RESTRICT pixels, const Index* SEEWHY_RESTRICT first,
            const std::int32_t* SEEWHY_RESTRICT shares, Index count, Index width,
            std::uint8_t* SEEWHY_RESTRICT result) {
    for (Index x = 0; x < width; ++x) {
        const std::uint8_t* pixel = pixels + 4 * first[x];
        const std::int32_t* share = shares + 4 * x * count;
        std::int32_t sums[3] = {kHalf, kHalf, kHalf};
        for (Index i = 0; i < count; ++i) {
            for (int c = 0; c < 3; ++c) sums[c] += pixel[4 * i + c] * share[4 * i];
        }
        for (int c = 0; c < 3; ++c) result[3 * x + c] = to_byte(sums[c]);
    }
}

Index down_blocks(const std::uint8_t* const* rows, const std::int32_t* shares, Index count, Index size,
                  std::uint8_t* result) {
    Index x = 0;
    for (; x + 32 <= size; x += 32) {
        std::int32_t sums[32];  // compilers keep them in registers
        for (Index j = 0; j < 32; ++j) sums[j] = kHalf;
        for (Index i = 0; i < count; ++i) {
            for (Index j = 0; j < 32; ++j) sums[j] += rows[i][x + j] * shares[i];
        }
        for (Index j = 0; j < 32; ++j) result[x + j] = to_byte(sums[j]);
    }
    return x;
}

#endif

void down(const std::uint8_t* const* SEEWHY_RESTRICT rows, const std::int32_t* SEEWHY_RESTRICT shares, Index count,
          Index size, std::uint8_t* SEEWHY_RESTRICT result) {
    for (Index x = down_blocks(rows, shares, count, size, result); x < size; ++x) {
        std::int32_t sum = kHalf;
        for (Index i = 0; i < count; ++i) sum += rows[i][x] * shares[i];
        result[x] = to_byte(sum);
    }
}

}  // namespace

const ResizeLoops resize_loops = {across, down};

}  // namespace seewhy::SEEWHY_ISA
