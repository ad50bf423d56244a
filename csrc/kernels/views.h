// Views of batches. A view points to C-contiguous memory and does not own it.
#pragma once

#include <cstdint>

#include "index.h"

namespace seewhy {

// Maps of shape (count, channels, height, width). Batches with one map for each image have one channel.
struct Maps {
    const float* data;
    Index count;
    Index channels;
    Index height;
    Index width;

    Index size() const { return height * width; }           // values in one map
    Index image_size() const { return channels * size(); }  // values in all maps of one image
    const float* image(Index index) const { return data + index * image_size(); }
};

// Images of shape (count, height, width, channels).
struct Images {
    const std::uint8_t* data;
    Index count;
    Index height;
    Index width;
    Index channels;

    Index size() const { return height * width; }  // pixels in one image
};

}  // namespace seewhy
