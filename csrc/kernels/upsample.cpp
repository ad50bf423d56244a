#include "kernels/upsample.h"

#include <algorithm>
#include <utility>

#include "cpu_dispatch.h"

namespace seewhy {

std::vector<Sample> samples(Index in, Index out) {
    std::vector<Sample> result(static_cast<std::size_t>(out));
    const double scale = static_cast<double>(in) / static_cast<double>(out);
    for (Index i = 0; i < out; ++i) {
        const double centre = (static_cast<double>(i) + 0.5) * scale - 0.5;
        const double position = std::min(std::max(centre, 0.0), static_cast<double>(in - 1));
        const Index near = static_cast<Index>(position);
        const float share = static_cast<float>(position - static_cast<double>(near));
        result[static_cast<std::size_t>(i)] = {near, std::min(near + 1, in - 1), share};
    }
    return result;
}

RowPair::RowPair(const float* maps, Index in_width, const std::vector<Sample>& columns)
    : maps_(maps), in_width_(in_width), columns_(columns) {
    above_.values.resize(columns.size());
    below_.values.resize(columns.size());
}

void RowPair::stretch(Row& row, Index source) {
    loops().upsample.stretch(maps_ + source * in_width_, columns_.data(), static_cast<Index>(columns_.size()),
                             row.values.data());
    row.source = source;
}

void RowPair::move_to(Index first, Index second) {
    if (above_.source != first && below_.source == first) std::swap(above_, below_);
    if (above_.source != first) stretch(above_, first);
    if (below_.source != second) stretch(below_, second);
}

void upsample(const float* maps, Index count, Index in_height, Index in_width, Index height, Index width, int threads,
              float* result) {
    if (count == 0) return;
    const auto blend = loops().upsample.blend;
    const std::vector<Sample> lines = samples(in_height, height);
    const std::vector<Sample> columns = samples(in_width, width);
    parallel_for(0, count * height, grain_for(width), threads, [&](Index first, Index last) {
        RowPair rows(maps, in_width, columns);
        for (Index row = first; row < last; ++row) {
            const Sample& line = lines[static_cast<std::size_t>(row % height)];
            const Index base = (row / height) * in_height;
            rows.move_to(base + line.near, base + line.far);
            blend(rows.above(), rows.below(), line.share, width, result + row * width);
        }
    });
}

}  // namespace seewhy
