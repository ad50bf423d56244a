#include "kernels/noise.h"

#include <algorithm>

#include "cpu_dispatch.h"

namespace seewhy {

void add_normal_noise(const float* values, float deviation, const std::uint32_t* state, Index size, float* result) {
    constexpr Index kBlock = NoiseLoops::kBlock;
    const NoiseLoops& loop = loops().noise;
    std::uint32_t current[4 * NoiseLoops::kLanes];
    std::copy_n(state, 4 * NoiseLoops::kLanes, current);
    std::uint32_t bits[kBlock];
    float noise[kBlock];
    for (Index start = 0; start < size; start += kBlock) {
        loop.draw(current, bits);
        loop.normals(bits, noise);
        const Index length = std::min(kBlock, size - start);
        for (Index i = 0; i < length; ++i) result[start + i] = values[start + i] + deviation * noise[i];
    }
}

}  // namespace seewhy
