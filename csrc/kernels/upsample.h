#pragma once

#include <vector>

#include "loops/loops.h"
#include "parallel.h"

namespace seewhy {

// maps (count, in_height, in_width) -> result (count, height, width), bilinear, half-pixel centres, edges clamped.
void upsample(const float* maps, Index count, Index in_height, Index in_width, Index height, Index width, int threads,
              float* result);

// Where the rows (or the columns) of the result lie between those of the map.
std::vector<Sample> samples(Index in, Index out);

// Hands out pairs of map rows stretched to the result's width. Neighbouring result rows share their map rows, so each
// is stretched once where rows are asked for in order.
class RowPair {
  public:
    RowPair(const float* maps, Index in_width, const std::vector<Sample>& columns);

    // Rows `first` and `second` of all maps put one below the other; valid until the next call.
    void move_to(Index first, Index second);
    const float* above() const { return above_.values.data(); }
    const float* below() const { return below_.values.data(); }

  private:
    struct Row {
        Index source = -1;
        std::vector<float> values;
    };
    void stretch(Row& row, Index source);

    const float* maps_;
    Index in_width_;
    const std::vector<Sample>& columns_;
    Row above_, below_;
};

}  // namespace seewhy
