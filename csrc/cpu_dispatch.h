// Choice of the instruction set. The default is the best one that both this build and this processor support.
#pragma once

#include <string>
#include <vector>

#include "loops/loops.h"

namespace seewhy {

// Returns the loops in use. They may change between two calls, but the bits of results do not.
const Loops& loops();

// Returns the names of the instruction sets that this processor can run, the baseline first.
std::vector<std::string> isas();

// Switches to one of these instruction sets. Throws std::invalid_argument for any other name.
void use_isa(const std::string& name);

}  // namespace seewhy
