#include "kernels/overlay.h"

#include <algorithm>
#include <vector>

#include "blocks.h"
#include "cpu_dispatch.h"
#include "kernels/heatmaps.h"
#include "kernels/upsample.h"
#include "parallel.h"

namespace seewhy {

namespace {

constexpr Index kBlock = OverlayLoops::kBlock;

Blend blend_of(const Style& style) {
    Blend blend = {};
    blend.alpha = static_cast<float>(style.alpha);
    blend.rest = static_cast<float>(1.0 - style.alpha);
    for (int entry = 0; entry < 256; ++entry) {
        for (int c = 0; c < 3; ++c) {
            const std::uint8_t colour = style.colormap[3 * entry + c];
            blend.colours[entry][c] = colour;
            blend.shares[entry][c] = blend.alpha * static_cast<float>(colour);
        }
    }
    return blend;
}

}  // namespace

FirstNan overlay(const Images& images, const Maps& heatmaps, const Style& style, int threads, std::uint8_t* result) {
    const Blend blend = blend_of(style);
    const auto paint = loops().overlay.paint;
    const auto entries_of = loops().overlay.entries;
    const Index size = images.size(), blocks = blocks_in(size, kBlock);
    std::vector<char> nan(images.count * blocks);
    for_blocks<kBlock>(images.count, size, 1, threads, [&](const Block& block) {
        std::uint8_t entries[kBlock];
        nan[block.index] = entries_of(heatmaps.data + block.offset, block.length, entries);
        paint(entries, blend, images.data + 3 * block.offset, block.length, result + 3 * block.offset);
    });
    const auto found = std::find(nan.begin(), nan.end(), 1);
    return found == nan.end() ? FirstNan() : (found - nan.begin()) / blocks;
}

FirstNotFinite overlay_maps(const Images& images, const Maps& given, const Style& style, bool relu, int threads,
                            std::uint8_t* result) {
    if (given.count == 0) return std::nullopt;  // the grid may be larger than memory
    const ShownMaps shown(given, relu);
    const Maps& maps = shown.maps;
    const Grid grid(maps, images.height, images.width);
    const std::vector<Span> spans = upsampled_spans(maps, grid, threads);
    if (const FirstNotFinite bad = first_not_finite(spans)) return bad;

    const Blend blend = blend_of(style);
    const auto paint = loops().overlay.paint;
    const auto entries_between = loops().overlay.entries_between;
    const Index height = images.height, width = images.width;
    const Index together = std::max<Index>(1, kBlock / width);  // rows that are painted together
    parallel_for(0, images.count * height, grain_for(width), threads, [&](Index first, Index last) {
        RowPair pair(maps, grid.columns);
        std::vector<std::uint8_t> entries(together * width);
        for (Index top = first; top < last; top += together) {
            const Index bottom = std::min(top + together, last);
            for (Index row = top; row < bottom; ++row) {
                const Span& span = spans[row / height];
                std::uint8_t* target = entries.data() + (row - top) * width;
                if (span.range > 0.0f) {
                    const Sample& position = grid.rows[row % height];
                    pair.move_to(row / height, position);
                    entries_between(pair.above(), pair.below(), position.share, span, width, target);
                } else {
                    std::fill_n(target, width, std::uint8_t{0});
                }
            }
            const Index size = (bottom - top) * width;
            for (Index start = 0; start < size; start += kBlock) {
                const Index offset = 3 * (top * width + start);
                paint(entries.data() + start, blend, images.data + offset, std::min(kBlock, size - start),
                      result + offset);
            }
        }
    });
    return std::nullopt;
}

}  // namespace seewhy
