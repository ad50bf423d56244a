// Parallel loop. Kernels start threads only here.
#pragma once

#include <functional>

#include "index.h"

namespace seewhy {

// Smallest number of items, at about one nanosecond each, for which starting a thread is worthwhile.
constexpr Index kGrain = 1 << 16;

// Smallest number of items for one thread if each item touches `cost` elements.
inline Index grain_for(Index cost) { return cost >= kGrain ? 1 : (kGrain + cost - 1) / (cost > 0 ? cost : 1); }

// Number of processors that this process may use, at least 1.
int available_threads();

// Calls work(first, last) for contiguous parts that together cover [begin, end). Each part has at least `grain` items,
// unless the whole range has fewer. At most `threads` threads run; 0 means one for each available processor. The first
// part runs on the calling thread. Threads end with the call: without a pool, a process can fork between calls. After
// all parts have ended, the exception of the first part that threw, in range order, is rethrown.
void parallel_for(Index begin, Index end, Index grain, int threads, const std::function<void(Index, Index)>& work);

}  // namespace seewhy
