#include "cpu_dispatch.h"

#include <atomic>
#include <stdexcept>

namespace seewhy {

#define SEEWHY_LOOPS(isa)                                                                                         \
    {#isa, isa::cam_loops, isa::minmax_loops, isa::gradient_loops, isa::upsample_loops, isa::normalize_loops, \
     isa::overlay_loops, isa::noise_loops, isa::resize_loops}

SEEWHY_DECLARE_LOOPS(SEEWHY_BASELINE)
#ifdef SEEWHY_HAS_AVX2
SEEWHY_DECLARE_LOOPS(avx2)
#endif

namespace {

struct Isa {
    Loops loops;
    bool (*supported)();
};

// Expands the name of the baseline before SEEWHY_LOOPS makes it a string.
#define SEEWHY_BASELINE_LOOPS(isa) SEEWHY_LOOPS(isa)

// Ordered from the baseline to the best.
const Isa kIsas[] = {
    {SEEWHY_BASELINE_LOOPS(SEEWHY_BASELINE), [] { return true; }},
#ifdef SEEWHY_HAS_AVX2
    {SEEWHY_LOOPS(avx2),
     [] {
         __builtin_cpu_init();
         return __builtin_cpu_supports("avx2") != 0;
     }},
#endif
};

const Loops* best() {
    const Loops* found = nullptr;
    for (const Isa& isa : kIsas) {
        if (isa.supported()) found = &isa.loops;
    }
    return found;
}

std::atomic<const Loops*>& chosen() {
    static std::atomic<const Loops*> loops{best()};
    return loops;
}

std::string listed(const std::vector<std::string>& names) {
    std::string result;
    for (const std::string& name : names) result += (result.empty() ? "" : ", ") + name;
    return result;
}

// Replaces characters that are not printable, because an environment variable may hold any bytes and the message is
// shown on a terminal.
std::string quoted(const std::string& text) {
    std::string result = "'";
    for (const char c : text) result += c >= ' ' && c <= '~' ? c : '?';
    return result + "'";
}

}  // namespace

const Loops& loops() { return *chosen().load(std::memory_order_relaxed); }

std::vector<std::string> isas() {
    std::vector<std::string> names;
    for (const Isa& isa : kIsas) {
        if (isa.supported()) names.emplace_back(isa.loops.isa);
    }
    return names;
}

void use_isa(const std::string& name) {
    for (const Isa& isa : kIsas) {
        if (name != isa.loops.isa) continue;
        if (!isa.supported()) {
            throw std::invalid_argument("this processor cannot run " + name + "; it can run " + listed(isas()));
        }
        chosen().store(&isa.loops, std::memory_order_relaxed);
        return;
    }
    throw std::invalid_argument("no instruction set " + quoted(name) + " in this build; this processor can run " +
                                listed(isas()));
}

}  // namespace seewhy
