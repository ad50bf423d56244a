#include "kernels/upsample.h"

#include <algorithm>
#include <utility>

#include "cpu_dispatch.h"
#include "parallel.h"

namespace seewhy {

namespace {

std::vector<Sample> samples(Index in, Index out) {
    std::vector<Sample> result(out);
    const double scale = static_cast<double>(in) / static_cast<double>(out);
    for (Index i = 0; i < out; ++i) {
        const double centre = (static_cast<double>(i) + 0.5) * scale - 0.5;
        const double position = std::min(std::max(centre, 0.0), static_cast<double>(in - 1));
        const Index near = static_cast<Index>(position);
        const float share = static_cast<float>(position - static_cast<double>(near));
        result[i] = {near, std::min(near + 1, in - 1), share};
    }
    return result;
}

}  // namespace

Grid::Grid(const Maps& maps, Index height, Index width)
    : rows(samples(maps.height, height)), columns(samples(maps.width, width)) {}

RowPair::RowPair(const Maps& maps, const std::vector<Sample>& columns) : maps_(maps), columns_(columns) {
    above_.values.resize(columns.size());
    below_.values.resize(columns.size());
}

void RowPair::stretch(Row& row, Index source) {
    loops().upsample.stretch(maps_.data + source * maps_.width, columns_.data(), columns_.size(), row.values.data());
    row.source = source;
}

void RowPair::move_to(Index map, const Sample& row) {
    const Index above = map * maps_.height + row.near, below = map * maps_.height + row.far;
    if (above_.source != above && below_.source == above) std::swap(above_, below_);
    if (above_.source != above) stretch(above_, above);
    if (below_.source != below) stretch(below_, below);
}

void upsample(const Maps& maps, Index height, Index width, int threads, float* result) {
    if (maps.count == 0) return;  // the grid may be larger than memory
    const auto blend = loops().upsample.blend;
    const Grid grid(maps, height, width);
    parallel_for(0, maps.count * height, grain_for(width), threads, [&](Index first, Index last) {
        RowPair pair(maps, grid.columns);
        for (Index row = first; row < last; ++row) {
            const Sample& position = grid.rows[row % height];
            pair.move_to(row / height, position);
            blend(pair.above(), pair.below(), position.share, width, result + row * width);
        }
    });
}

}  // namespace seewhy
