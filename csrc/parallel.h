// The one way in which kernels use several threads.
#pragma once

#include <functional>

#include "index.h"

namespace seewhy {

// Items of about one nanosecond each that make a thread worth starting.
constexpr Index kGrain = 1 << 16;

// The grain for items that each touch `cost` elements.
inline Index grain_for(Index cost) { return cost >= kGrain ? 1 : (kGrain + cost - 1) / (cost > 0 ? cost : 1); }

// The processors this process may run on, at least 1.
int available_threads();

// Calls work(first, last) on contiguous parts that together cover [begin, end), each of at least `grain` items unless
// the whole range is smaller, on at most `threads` threads (0: one per available processor). The calling thread takes
// part, and takes everything when there is no work for a second one. Threads live only during the call: there is no
// pool, so a process may fork between calls. The first part's exception, in range order, is rethrown after all end.
void parallel_for(Index begin, Index end, Index grain, int threads, const std::function<void(Index, Index)>& work);

}  // namespace seewhy
