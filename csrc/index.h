// Definitions for all files, including those that are compiled for one instruction set.
#pragma once

#include <cstdint>

#if defined(_MSC_VER)
#define SEEWHY_RESTRICT __restrict
#else
#define SEEWHY_RESTRICT __restrict__
#endif

namespace seewhy {

using Index = std::int64_t;

}  // namespace seewhy
