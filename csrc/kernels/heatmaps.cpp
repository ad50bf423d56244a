#include "kernels/heatmaps.h"

#include <algorithm>

#include "cpu_dispatch.h"
#include "parallel.h"

namespace seewhy {

namespace {

std::vector<float> rectified(const Maps& maps) {
    std::vector<float> result(maps.data, maps.data + maps.count * maps.size());
    for (float& value : result) value = value < 0.0f ? 0.0f : value;  // keeps NaN
    return result;
}

// Returns the rows of the result that contain the extremes of all columns: the first and the last row between each pair
// of map rows. The steps of the interpolation and their rounding are monotone in the share, so a column only rises or
// only falls between two map rows. If two map rows differ by more than a float can represent, or one is not finite,
// then no row between them is finite. If only the last addition overflows, it overflows in the last row. Within a row,
// all columns must be searched, because interpolation is not monotone in its two end points.
std::vector<Sample> outermost(const std::vector<Sample>& rows) {
    std::vector<Sample> result;
    for (std::size_t i = 0; i < rows.size(); ++i) {
        const bool first = i == 0 || rows[i - 1].near != rows[i].near;
        const bool last = i + 1 == rows.size() || rows[i + 1].near != rows[i].near;
        if (first || last) result.push_back(rows[i]);
    }
    return result;
}

}  // namespace

ShownMaps::ShownMaps(const Maps& given, bool relu)
    : rectified_(relu ? rectified(given) : std::vector<float>()),
      maps{relu ? rectified_.data() : given.data, given.count, given.channels, given.height, given.width} {}

std::vector<Span> upsampled_spans(const Maps& maps, const Grid& grid, int threads) {
    const std::vector<Sample> rows = outermost(grid.rows);
    const auto blend = loops().upsample.blend;
    const auto extremes = loops().minmax.extremes;
    const Index width = grid.columns.size(), cost = rows.size() * width;
    std::vector<Span> spans(maps.count);
    parallel_for(0, maps.count, grain_for(cost), threads, [&](Index first, Index last) {
        RowPair pair(maps, grid.columns);
        std::vector<float> values(width);
        for (Index map = first; map < last; ++map) {
            Extremes all;
            for (const Sample& row : rows) {
                pair.move_to(map, row);
                blend(pair.above(), pair.below(), row.share, width, values.data());
                all.add(extremes(values.data(), width));
            }
            spans[map] = span_of(all);
        }
    });
    return spans;
}

FirstNotFinite heatmaps(const Maps& given, bool relu, Index height, Index width, int threads, float* result) {
    if (given.count == 0) return std::nullopt;  // the grid may be larger than memory
    const ShownMaps shown(given, relu);
    const Maps& maps = shown.maps;
    const Grid grid(maps, height, width);
    const std::vector<Span> spans = upsampled_spans(maps, grid, threads);
    if (const FirstNotFinite bad = first_not_finite(spans)) return bad;
    const auto blend = loops().upsample.blend;
    const auto rescale = loops().minmax.rescale;
    parallel_for(0, maps.count * height, grain_for(width), threads, [&](Index first, Index last) {
        RowPair pair(maps, grid.columns);
        std::vector<float> values(width);
        for (Index row = first; row < last; ++row) {
            const Span& span = spans[row / height];
            float* target = result + row * width;
            if (span.range > 0.0f) {
                const Sample& position = grid.rows[row % height];
                pair.move_to(row / height, position);
                blend(pair.above(), pair.below(), position.share, width, values.data());
                rescale(values.data(), span, width, target);
            } else {
                std::fill_n(target, width, 0.0f);
            }
        }
    });
    return std::nullopt;
}

}  // namespace seewhy
