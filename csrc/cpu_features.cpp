#include "cpu_features.h"

#include <array>
#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#define SEEWHY_X86_64
#ifdef _MSC_VER
#include <immintrin.h>
#include <intrin.h>
#else
#include <cpuid.h>
#endif
#elif defined(__aarch64__) || defined(_M_ARM64)
#define SEEWHY_ARM64
#if defined(__linux__)
#include <sys/auxv.h>
#elif defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(_WIN32)
#include <windows.h>
#ifndef PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE  // older Windows SDKs
#define PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE 43
#endif
#endif
#endif

namespace seewhy {

namespace {

struct Feature {
    const char* name;
    bool usable;
};

[[maybe_unused]] std::vector<std::string> names_of(std::initializer_list<Feature> features) {
    std::vector<std::string> names;
    for (const Feature& feature : features) {
        if (feature.usable) names.emplace_back(feature.name);
    }
    return names;
}

[[maybe_unused]] bool all(std::uint64_t value, std::uint64_t bits) { return (value & bits) == bits; }

#ifdef SEEWHY_X86_64

struct Registers {
    std::uint32_t a = 0, b = 0, c = 0, d = 0;
};

// Returns what the processor says of itself, or zeros if it does not know this leaf.
Registers cpuid(std::uint32_t leaf, std::uint32_t subleaf) {
    Registers found;
#ifdef _MSC_VER
    std::array<int, 4> words{};
    __cpuid(words.data(), 0);
    if (static_cast<std::uint32_t>(words[0]) < leaf) return found;
    __cpuidex(words.data(), static_cast<int>(leaf), static_cast<int>(subleaf));
    found = {static_cast<std::uint32_t>(words[0]), static_cast<std::uint32_t>(words[1]),
             static_cast<std::uint32_t>(words[2]), static_cast<std::uint32_t>(words[3])};
#else
    if (__get_cpuid_count(leaf, subleaf, &found.a, &found.b, &found.c, &found.d) == 0) return {};
#endif
    return found;
}

// Returns the registers that the operating system saves (XCR0). The processor must have OSXSAVE.
std::uint64_t saved_registers() {
#ifdef _MSC_VER
    return _xgetbv(0);
#else
    std::uint32_t low = 0, high = 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (static_cast<std::uint64_t>(high) << 32) | low;
#endif
}

#endif

#if defined(SEEWHY_ARM64) && defined(__APPLE__)

bool has(const char* name) {
    int value = 0;
    std::size_t size = sizeof value;
    return sysctlbyname(name, &value, &size, nullptr, 0) == 0 && value != 0;
}

#endif

}  // namespace

std::optional<std::vector<std::string>> cpu_features() {
#if defined(SEEWHY_X86_64)
    const Registers basic = cpuid(1, 0), extended = cpuid(7, 0);
    const Registers more = extended.a >= 1 ? cpuid(7, 1) : Registers{};
    const bool osxsave = all(basic.c, 1u << 27);
    const std::uint64_t saved = osxsave ? saved_registers() : 0;
    // AVX, FMA and AVX2; the operating system saves XMM and YMM.
    const bool avx2 = all(basic.c, 1u << 28 | 1u << 12) && all(extended.b, 1u << 5) && all(saved, 0x6);
    const bool avx512f = avx2 && all(extended.b, 1u << 16) && all(saved, 0xE6);
    // DQ, BW and VL, without which onnxruntime does not look for AVX512-VNNI.
    const bool avx512_core = avx512f && all(extended.b, 1u << 17 | 1u << 30 | 1u << 31);
    return names_of({
        {"sse2", true},
        {"avx2", avx2},
        {"avx512f", avx512f},
        {"avx512_vnni", avx512_core && all(extended.c, 1u << 11)},
        {"avx_vnni", avx2 && all(more.a, 1u << 4)},
        {"amx_int8", avx2 && all(extended.d, 1u << 24 | 1u << 25) && all(saved, 0x60000)},
    });
#elif defined(SEEWHY_ARM64) && defined(__linux__)
    return names_of({
        {"neon", true},
        {"dotprod", all(getauxval(AT_HWCAP), 1ul << 20)},
        {"i8mm", all(getauxval(AT_HWCAP2), 1ul << 13)},
    });
#elif defined(SEEWHY_ARM64) && defined(__APPLE__)
    return names_of({
        {"neon", true},
        {"dotprod", has("hw.optional.arm.FEAT_DotProd")},
        {"i8mm", has("hw.optional.arm.FEAT_I8MM")},
    });
#elif defined(SEEWHY_ARM64) && defined(_WIN32)
    return names_of({
        {"neon", true},
        {"dotprod", IsProcessorFeaturePresent(PF_ARM_V82_DP_INSTRUCTIONS_AVAILABLE) != 0},
    });
#else
    return std::nullopt;
#endif
}

}  // namespace seewhy
