#include "kernels/normalize.h"

#include <vector>

#include "cpu_dispatch.h"
#include "parallel.h"

namespace seewhy {

void normalize(const Images& images, const Normalization& normalization, int threads, float* result) {
    const Index channels = images.channels, width = images.width, size = images.size();
    // A byte has 256 values, so compute each result once per channel. The order of operations is that of torchvision's
    // ToTensor and Normalize, which makes the bits the same.
    std::vector<float> table(channels * 256);
    for (Index c = 0; c < channels; ++c) {
        for (int byte = 0; byte < 256; ++byte) {
            const float value = static_cast<float>(byte) / 255.0f;
            table[c * 256 + byte] = (value - normalization.mean[c]) / normalization.std[c];
        }
    }

    const auto look_up = loops().normalize.look_up;
    parallel_for(0, images.count * images.height, grain_for(width * channels), threads, [&](Index first, Index last) {
        for (Index row = first; row < last; ++row) {
            const std::uint8_t* source = images.data + row * width * channels;
            float* target = result + (row / images.height) * channels * size + (row % images.height) * width;
            for (Index c = 0; c < channels; ++c) {
                const Index channel = normalization.reverse_channels ? channels - 1 - c : c;
                look_up(source + channel, channels, table.data() + c * 256, width, target + c * size);
            }
        }
    });
}

}  // namespace seewhy
