#include "kernels/overlay.h"

#include <algorithm>
#include <vector>

#include "cpu_dispatch.h"
#include "kernels/minmax.h"
#include "kernels/upsample.h"

namespace seewhy {

namespace {

constexpr Index kBlock = OverlayLoops::kBlock;

Palette prepared(const std::uint8_t* entries, double alpha) {
    Palette palette = {};
    palette.alpha = static_cast<float>(alpha);
    palette.rest = static_cast<float>(1.0 - alpha);
    for (int entry = 0; entry < 256; ++entry) {
        for (int c = 0; c < 3; ++c) {
            const std::uint8_t colour = entries[3 * entry + c];
            palette.colours[entry][c] = colour;
            palette.shares[entry][c] = palette.alpha * static_cast<float>(colour);
        }
    }
    return palette;
}

// The lines of the result that hold the extremes of every column: among the lines between the same two rows of the map,
// the first and the last. `between` is made of functions that are monotone in the share, each followed by rounding,
// which is monotone too; so a column rises or falls all the way from one to the other. Where the two rows differ by
// more than a float can hold, or one is not finite, no line between them is finite; and where only a line's last
// addition overflows, the last line's does. All columns have to be searched: in its ends `between` is not monotone.
std::vector<Sample> outermost(const std::vector<Sample>& lines) {
    std::vector<Sample> result;
    for (std::size_t i = 0; i < lines.size(); ++i) {
        const bool first = i == 0 || lines[i - 1].near != lines[i].near;
        const bool last = i + 1 == lines.size() || lines[i + 1].near != lines[i].near;
        if (first || last) result.push_back(lines[i]);
    }
    return result;
}

// The span of each map as it will be once upsampled.
std::vector<Span> upsampled_spans(const float* maps, Index count, Index in_height, Index in_width,
                                  const std::vector<Sample>& lines, const std::vector<Sample>& columns, int threads) {
    const std::vector<Sample> searched = outermost(lines);
    const auto blend = loops().upsample.blend;
    const auto extremes = loops().minmax.extremes;
    const Index width = static_cast<Index>(columns.size());
    std::vector<Span> result(static_cast<std::size_t>(count));
    const Index cost = static_cast<Index>(searched.size()) * width;
    parallel_for(0, count, grain_for(cost), threads, [&](Index first, Index last) {
        RowPair rows(maps, in_width, columns);
        std::vector<float> values(columns.size());
        for (Index n = first; n < last; ++n) {
            Extremes all;
            for (const Sample& line : searched) {
                rows.move_to(n * in_height + line.near, n * in_height + line.far);
                blend(rows.above(), rows.below(), line.share, width, values.data());
                all.add(extremes(values.data(), width));
            }
            result[static_cast<std::size_t>(n)] = span_of(all);
        }
    });
    return result;
}

}  // namespace

Index overlay(const std::uint8_t* photographs, const float* heatmaps, const std::uint8_t* palette, double alpha,
              Index count, Index size, int threads, std::uint8_t* result) {
    const Palette colours = prepared(palette, alpha);
    const auto paint = loops().overlay.paint;
    const auto entries_of = loops().overlay.entries;
    const Index blocks = (size + kBlock - 1) / kBlock;
    std::vector<char> nan(static_cast<std::size_t>(count * blocks));
    parallel_for(0, count * blocks, grain_for(std::min(size, kBlock)), threads, [&](Index first, Index last) {
        std::uint8_t entries[kBlock];
        for (Index item = first; item < last; ++item) {
            const Index start = (item % blocks) * kBlock;
            const Index length = std::min(kBlock, size - start);
            const Index offset = (item / blocks) * size + start;
            nan[static_cast<std::size_t>(item)] = entries_of(heatmaps + offset, length, entries);
            paint(entries, colours, photographs + 3 * offset, length, result + 3 * offset);
        }
    });
    const auto bad = std::find(nan.begin(), nan.end(), 1);
    return bad == nan.end() ? -1 : (bad - nan.begin()) / blocks;
}

Index overlay_maps(const std::uint8_t* photographs, const float* maps, const std::uint8_t* palette, double alpha,
                   bool relu, Index count, Index in_height, Index in_width, Index height, Index width, int threads,
                   std::uint8_t* result) {
    if (count == 0) return -1;
    std::vector<float> positive;
    if (relu) {
        positive.assign(maps, maps + count * in_height * in_width);
        for (float& value : positive) value = value < 0.0f ? 0.0f : value;  // NaN passes
        maps = positive.data();
    }
    const std::vector<Sample> lines = samples(in_height, height);
    const std::vector<Sample> columns = samples(in_width, width);
    const std::vector<Span> found = upsampled_spans(maps, count, in_height, in_width, lines, columns, threads);
    const Index bad = first_not_finite(found);
    if (bad >= 0) return bad;

    const Palette colours = prepared(palette, alpha);
    const auto paint = loops().overlay.paint;
    const auto entries_between = loops().overlay.entries_between;
    const Index together = std::max<Index>(1, kBlock / width);  // rows that are painted at once
    parallel_for(0, count * height, grain_for(width), threads, [&](Index first, Index last) {
        RowPair rows(maps, in_width, columns);
        std::vector<std::uint8_t> entries(static_cast<std::size_t>(together * width));
        for (Index top = first; top < last; top += together) {
            const Index bottom = std::min(top + together, last);
            for (Index row = top; row < bottom; ++row) {
                const Sample& line = lines[static_cast<std::size_t>(row % height)];
                const Index base = (row / height) * in_height;
                const Span& span = found[static_cast<std::size_t>(row / height)];
                std::uint8_t* target = entries.data() + (row - top) * width;
                if (span.range > 0.0f) {
                    rows.move_to(base + line.near, base + line.far);
                    entries_between(rows.above(), rows.below(), line.share, span, width, target);
                } else {
                    std::fill_n(target, width, std::uint8_t{0});
                }
            }
            const Index size = (bottom - top) * width;
            for (Index start = 0; start < size; start += kBlock) {
                const Index offset = 3 * (top * width + start);
                paint(entries.data() + start, colours, photographs + offset, std::min(kBlock, size - start),
                      result + offset);
            }
        }
    });
    return -1;
}

}  // namespace seewhy
