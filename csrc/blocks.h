// Loop over blocks of maps. A block fits into a cache, and the blocks are distributed among threads.
#pragma once

#include <algorithm>

#include "index.h"
#include "parallel.h"

namespace seewhy {

// Consecutive values of one map in a batch.
struct Block {
    Index index;   // index of the block in the batch
    Index map;     // index of its map in the batch
    Index start;   // index of its first value in the map
    Index length;  // number of values
    Index offset;  // index of its first value in the batch
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
