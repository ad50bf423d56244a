// Standard normal noise.
#pragma once

#include <cstdint>

#include "index.h"

namespace seewhy {

// Writes values + deviation * noise. `state` holds the states of NoiseLoops::kLanes generators, word by word.
void add_normal_noise(const float* values, float deviation, const std::uint32_t* state, Index size, float* result);

}  // namespace seewhy
