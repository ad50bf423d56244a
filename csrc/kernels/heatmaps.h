// Heatmaps of low-resolution maps: ReLU, upsampling and scaling to [0, 1].
#pragma once

#include <vector>

#include "kernels/minmax.h"
#include "kernels/upsample.h"
#include "kernels/views.h"

namespace seewhy {

// Maps of one channel after an optional ReLU, which keeps NaN.
class ShownMaps {
  public:
    ShownMaps(const Maps& given, bool relu);
    ShownMaps(const ShownMaps&) = delete;
    ShownMaps& operator=(const ShownMaps&) = delete;

  private:
    std::vector<float> rectified_;

  public:
    const Maps maps;
};

// Returns the span of each upsampled map.
std::vector<Span> upsampled_spans(const Maps& maps, const Grid& grid, int threads);

// Applies ReLU (if `relu`), upsample and minmax to maps of one channel, and writes the heatmaps to result (count, height,
// width). If an upsampled map is not finite, the result is not written.
FirstNotFinite heatmaps(const Maps& maps, bool relu, Index height, Index width, int threads, float* result);

}  // namespace seewhy
