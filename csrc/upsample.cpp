#include "upsample.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "numeric.h"

namespace seewhy {

namespace {

// Where one result coordinate lies between two source coordinates.
struct Sample {
    Index near;
    Index far;
    float share;  // of `far`, in [0, 1)
};

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

// a + share * (b - a), unlike (1 - share) * a + share * b, keeps a constant map exactly constant.
float between(float a, float b, float share) { return a + share * (b - a); }

// One source row stretched to the result's width.
struct Row {
    Index source = -1;
    std::vector<float> values;

    void stretch(const float* maps, Index row, Index in_width, const std::vector<Sample>& columns) {
        const float* in = maps + row * in_width;
        for (std::size_t x = 0; x < columns.size(); ++x) {
            values[x] = between(in[columns[x].near], in[columns[x].far], columns[x].share);
        }
        source = row;
    }
};

void blend(const float* SEEWHY_RESTRICT above, const float* SEEWHY_RESTRICT below, float share, Index width,
           float* SEEWHY_RESTRICT result) {
    for (Index x = 0; x < width; ++x) result[x] = between(above[x], below[x], share);
}

}  // namespace

void upsample(const float* maps, Index count, Index in_height, Index in_width, Index height, Index width, int threads,
              float* result) {
    if (count == 0) return;
    const std::vector<Sample> lines = samples(in_height, height);
    const std::vector<Sample> columns = samples(in_width, width);
    parallel_for(0, count * height, grain_for(width), threads, [&](Index first, Index last) {
        // Neighbouring result rows share their source rows, so each is stretched once.
        Row above, below;
        above.values.resize(columns.size());
        below.values.resize(columns.size());
        for (Index row = first; row < last; ++row) {
            const Sample& line = lines[static_cast<std::size_t>(row % height)];
            const Index base = (row / height) * in_height;
            if (above.source != base + line.near && below.source == base + line.near) std::swap(above, below);
            if (above.source != base + line.near) above.stretch(maps, base + line.near, in_width, columns);
            if (below.source != base + line.far) below.stretch(maps, base + line.far, in_width, columns);
            blend(above.values.data(), below.values.data(), line.share, width, result + row * width);
        }
    });
}

}  // namespace seewhy
