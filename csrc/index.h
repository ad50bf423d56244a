// What every file of the kernels, compiled for whichever instruction set, may share.
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
