// Threads: the only way in which kernels use more than one.
#pragma once

#include <algorithm>
#include <functional>

#include "index.h"

namespace seewhy {

// Number of items, at about one nanosecond each, that justify starting a thread.
constexpr Index kGrain = 1 << 16;

// Grain for items that each touch `cost` elements.
inline Index grain_for(Index cost) { return cost >= kGrain ? 1 : (kGrain + cost - 1) / (cost > 0 ? cost : 1); }

// Number of processors that this process may use, at least 1.
int available_threads();

// Calls work(first, last) for contiguous parts that together cover [begin, end). Each part has at least `grain` items,
// unless the whole range has fewer. At most `threads` threads run; 0 means one for each available processor. The first
// part runs on the calling thread. Threads end with the call: without a pool, a process can fork between calls. After
// all parts have ended, the exception of the first part that threw, in range order, is rethrown.
void parallel_for(Index begin, Index end, Index grain, int threads, const std::function<void(Index, Index)>& work);

// Consecutive values of one map in a batch.
struct Block {
    Index index;   // of the block in the batch
    Index map;
    Index start;   // of its first value in the map
    Index length;
    Index offset;  // of its first value in the batch
};

// Number of blocks of at most `length` values in a map of `size` values.
inline Index blocks_in(Index size, Index length) { return (size + length - 1) / length; }

// Calls work(block) for blocks of at most kLength values that together cover `count` maps of `size` values. `cost` is
// the number of elements that the work touches for each value. `work` is a template parameter so that it is inlined.
template <Index kLength, typename Work>
void for_blocks(Index count, Index size, Index cost, int threads, const Work& work) {
    const Index blocks = blocks_in(size, kLength);
    const Index grain = grain_for(cost * std::min(size, kLength));
    parallel_for(0, count * blocks, grain, threads, [&](Index first, Index last) {
        for (Index index = first; index < last; ++index) {
            const Index map = index / blocks, start = (index % blocks) * kLength;
            work(Block{index, map, start, std::min(kLength, size - start), map * size + start});
        }
    });
}

}  // namespace seewhy
