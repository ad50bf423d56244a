#include "numeric.h"

namespace seewhy {
namespace SEEWHY_ISA {

namespace {

void look_up(const std::uint8_t* SEEWHY_RESTRICT pixels, Index step, const float* SEEWHY_RESTRICT table, Index width,
             float* SEEWHY_RESTRICT result) {
    for (Index x = 0; x < width; ++x) result[x] = table[pixels[x * step]];
}

}  // namespace

const NormalizeLoops normalize_loops = {look_up};

}  // namespace SEEWHY_ISA
}  // namespace seewhy
