// Which instruction set the kernels use: the best that both this build and this processor have, unless told otherwise.
#pragma once

#include <string>
#include <vector>

#include "loops/loops.h"

namespace seewhy {

// The loops now in use. May change between two calls; the bits of results do not.
const Loops& loops();

// Names of the instruction sets that this processor can run, the plainest first.
std::vector<std::string> isas();

// Use one of them from now on. Throws std::invalid_argument where it is none of them.
void use_isa(const std::string& name);

}  // namespace seewhy
