#include "overlay.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "numeric.h"

namespace seewhy {

namespace {

constexpr Index kBlock = 1024;  // pixels: one item of work, small enough for the first-level cache

// Heat to palette entries. Returns whether a value is NaN; its entry is then arbitrary, but in range.
bool entries_of(const float* SEEWHY_RESTRICT heat, Index size, std::uint8_t* SEEWHY_RESTRICT entries) {
    std::uint32_t nan = 0;
    for (Index i = 0; i < size; ++i) {
        const float value = heat[i];
        nan |= value != value ? 1u : 0u;
        const float positive = value < 0.0f ? 0.0f : value;
        entries[i] = round_to_byte((positive > 1.0f ? 1.0f : positive) * 255.0f);
    }
    return nan != 0;
}

void blend(const std::uint8_t* SEEWHY_RESTRICT colours, const std::uint8_t* SEEWHY_RESTRICT photograph, float alpha,
           float rest, Index bytes, std::uint8_t* SEEWHY_RESTRICT result) {
    for (Index i = 0; i < bytes; ++i) {
        result[i] = round_to_byte(alpha * static_cast<float>(colours[i]) + rest * static_cast<float>(photograph[i]));
    }
}

}  // namespace

Index overlay(const std::uint8_t* photographs, const float* heatmaps, const std::uint8_t* palette, double alpha,
              Index count, Index size, int threads, std::uint8_t* result) {
    const float share = static_cast<float>(alpha);
    const float rest = static_cast<float>(1.0 - alpha);
    const Index blocks = (size + kBlock - 1) / kBlock;
    // Entries of four bytes copy in one store each; the fourth byte is overwritten by the next pixel.
    std::uint8_t wide[256][4] = {};
    for (int entry = 0; entry < 256; ++entry) std::memcpy(wide[entry], palette + 3 * entry, 3);
    std::vector<char> nan(static_cast<std::size_t>(count * blocks));
    parallel_for(0, count * blocks, grain_for(3 * std::min(size, kBlock)), threads, [&](Index first, Index last) {
        std::uint8_t entries[kBlock];
        std::uint8_t colours[3 * kBlock + 1];
        for (Index item = first; item < last; ++item) {
            const Index start = (item % blocks) * kBlock;
            const Index length = std::min(kBlock, size - start);
            const Index offset = (item / blocks) * size + start;
            nan[static_cast<std::size_t>(item)] = entries_of(heatmaps + offset, length, entries);
            for (Index i = 0; i < length; ++i) std::memcpy(colours + 3 * i, wide[entries[i]], 4);
            blend(colours, photographs + 3 * offset, share, rest, 3 * length, result + 3 * offset);
        }
    });
    const auto bad = std::find(nan.begin(), nan.end(), 1);
    return bad == nan.end() ? -1 : (bad - nan.begin()) / blocks;
}

}  // namespace seewhy
