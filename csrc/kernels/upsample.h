// Bilinear interpolation with half-pixel centres and clamped edges.
#pragma once

#include <optional>
#include <vector>

#include "kernels/views.h"
#include "loops/loops.h"

namespace seewhy {

// Writes the maps, of one channel, to result (count, height, width).
void upsample(const Maps& maps, Index height, Index width, int threads, float* result);

// Positions of the rows and columns of a result relative to those of a map.
struct Grid {
    Grid(const Maps& maps, Index height, Index width);

    std::vector<Sample> rows;
    std::vector<Sample> columns;
};

// The two map rows around a row of the result, stretched to the width of the result. Neighbouring rows of the result
// share map rows, so each map row is stretched only once if the rows of the result are visited in order.
class RowPair {
  public:
    RowPair(const Maps& maps, const std::vector<Sample>& columns);

    // Moves to the rows around `row` in map `map`.
    void move_to(Index map, const Sample& row);

    // Valid until the next move.
    const float* above() const { return above_.values.data(); }
    const float* below() const { return below_.values.data(); }

  private:
    struct Row {
        std::optional<Index> source;  // index of the map row in the batch
        std::vector<float> values;
    };
    void stretch(Row& row, Index source);

    const Maps& maps_;
    const std::vector<Sample>& columns_;
    Row above_, below_;
};

}  // namespace seewhy
