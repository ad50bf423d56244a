#include "loops/numeric.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace seewhy::SEEWHY_ISA {

namespace {

void look_up(const std::uint8_t* SEEWHY_RESTRICT pixels, Index step, const float* SEEWHY_RESTRICT table, Index width,
             float* SEEWHY_RESTRICT result) {
    Index x = 0;
#if defined(__SSE2__)  // one store of four values instead of four stores
    const auto value = [=](Index pixel) { return table[pixels[pixel * step]]; };
    for (; x + 4 <= width; x += 4) {
        _mm_storeu_ps(result + x, _mm_setr_ps(value(x), value(x + 1), value(x + 2), value(x + 3)));
    }
#endif
    for (; x < width; ++x) result[x] = table[pixels[x * step]];
}

}  // namespace

const NormalizeLoops normalize_loops = {look_up};

}  // namespace seewhy::SEEWHY_ISA
