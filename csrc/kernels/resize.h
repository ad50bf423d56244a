// Antialiased resizing of 8-bit pixels. The result has the same bytes as that of Pillow.
#pragma once

#include <cstdint>

#include "index.h"

namespace seewhy {

// A filter, and the distance from which on it is zero. Both are in pixels of the result, or of the source if that has
// fewer.
struct ResizeFilter {
    const char* name;
    double (*weight)(double distance);
    double support;
};

// All filters, in the order of their support.
constexpr Index kResizeFilters = 5;
extern const ResizeFilter resize_filters[kResizeFilters];

// One axis of an image that is resized from `in` to `out` pixels, and then cropped to [first, last).
struct Axis {
    Index in;
    Index out;
    Index first;
    Index last;

    Index size() const { return last - first; }
};

struct Range {
    Index first;
    Index last;
};

// Returns the source pixels of an axis that its cropped result depends on.
Range source_range(const ResizeFilter& filter, const Axis& axis);

// Writes the cropped result (rows.size(), columns.size(), 3). `pixels` are RGBX pixels of shape (any, columns.in, 4).
// They begin with row `top` of the source, and hold at least the rows of source_range(filter, rows).
void resize(const std::uint8_t* pixels, Index top, const ResizeFilter& filter, const Axis& rows, const Axis& columns,
            std::uint8_t* result);

}  // namespace seewhy
