#include "kernels/normalize.h"

#include <vector>

#include "cpu_dispatch.h"

namespace seewhy {

void normalize(const std::uint8_t* pixels, const float* mean, const float* std, bool reverse_channels, Index count,
               Index height, Index width, Index channels, int threads, float* result) {
    // A byte has 256 values, so every quotient is computed once per channel, in the order of operations (and so to the
    // bit) of torchvision's ToTensor and Normalize.
    std::vector<float> table(static_cast<std::size_t>(channels) * 256);
    for (Index c = 0; c < channels; ++c) {
        float* values = table.data() + c * 256;
        for (int byte = 0; byte < 256; ++byte) values[byte] = (static_cast<float>(byte) / 255.0f - mean[c]) / std[c];
    }

    const auto look_up = loops().normalize.look_up;
    const Index plane = height * width;
    parallel_for(0, count * height, grain_for(width * channels), threads, [&](Index first, Index last) {
        for (Index row = first; row < last; ++row) {
            const std::uint8_t* source = pixels + row * width * channels;
            float* target = result + (row / height) * channels * plane + (row % height) * width;
            for (Index c = 0; c < channels; ++c) {
                const std::uint8_t* in = source + (reverse_channels ? channels - 1 - c : c);
                look_up(in, channels, table.data() + c * 256, width, target + c * plane);
            }
        }
    });
}

}  // namespace seewhy
