#include "parallel.h"

#include <algorithm>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace seewhy {

int available_threads() {
#ifdef __linux__
    cpu_set_t allowed;
    CPU_ZERO(&allowed);
    // This fails if the machine has more processors than the set can hold.
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return std::max(1, CPU_COUNT(&allowed));
#endif
    return std::max(1, static_cast<int>(std::thread::hardware_concurrency()));
}

void parallel_for(Index begin, Index end, Index grain, int threads, const std::function<void(Index, Index)>& work) {
    const Index count = end - begin;
    if (count <= 0) return;
    Index parts = std::max<Index>(1, count / std::max<Index>(1, grain));
    if (parts > 1) parts = std::min<Index>(parts, threads > 0 ? threads : available_threads());
    if (parts == 1) {
        work(begin, end);
        return;
    }

    std::vector<std::exception_ptr> failures(parts);
    const Index size = count / parts;
    const Index larger = count % parts;  // the first `larger` parts hold one item more
    const auto run = [&](Index part) {
        const Index first = begin + part * size + std::min(part, larger);
        try {
            work(first, first + size + (part < larger ? 1 : 0));
        } catch (...) {
            failures[part] = std::current_exception();
        }
    };

    std::vector<std::thread> others;
    others.reserve(parts - 1);
    for (Index part = 1; part < parts; ++part) {
        try {
            others.emplace_back(run, part);
        } catch (const std::system_error&) {
            run(part);  // the system refuses another thread, so use this one
        }
    }
    run(0);
    for (std::thread& other : others) other.join();
    for (const std::exception_ptr& failure : failures) {
        if (failure) std::rethrow_exception(failure);
    }
}

}  // namespace seewhy
