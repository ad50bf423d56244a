// The innermost loops, which are compiled once for each instruction set; cpu_dispatch.cpp chooses between them.
//
// Each file of this folder is compiled several times, with SEEWHY_ISA naming the namespace. What it defines lies in
// that namespace or has internal linkage, and it uses no templates or inline functions of the standard library: the
// linker keeps one copy of those, which might be one that older processors cannot run.
//
// Every instruction set gives the same bits: each loop does the same roundings in the same order.
#pragma once

#include <cstdint>

#include "index.h"

namespace seewhy {

struct CamLoops {
    static constexpr Index kBlock = 256;  // pixels whose sums stay in the first-level cache over all channels

    double (*sum)(const float* values, Index size);
    double (*gradcam_plus_plus_weight)(const float* activations, const float* gradients, Index size);
    double (*xgradcam_weight)(const float* activations, const float* gradients, Index size);
    // One block, of at most kBlock pixels, of one image's map; channels lie `stride` apart.
    void (*weighted)(const float* activations, const float* weights, Index channels, Index stride, Index size,
                     float* result);
    void (*product)(const float* activations, const float* gradients, Index channels, Index stride, Index size,
                    float* result);
    void (*positive_product)(const float* activations, const float* gradients, Index channels, Index stride, Index size,
                             float* result);
};

// How to bring the values of one map to [0, 1]: (value * scale - low) / range, or zero where range is zero.
struct Span {
    float scale = 1.0f;
    float low = 0.0f;
    float range = 0.0f;
    bool finite = true;
};

// The extremes of some values as integers that order like the floats, with NaN of either sign beyond infinity. So NaN
// cannot get lost in a comparison, and compilers vectorise the reduction, which they do not for floats.
struct Extremes {
    std::int32_t low = INT32_MAX;
    std::int32_t high = INT32_MIN;

    void add(const Extremes& other) {
        low = other.low < low ? other.low : low;
        high = other.high > high ? other.high : high;
    }
};

struct MinmaxLoops {
    Extremes (*extremes)(const float* values, Index size);
    void (*rescale)(const float* values, const Span& span, Index size, float* result);
};

struct GradientLoops {
    static constexpr Index kBlock = 1024;  // pixels: one item of work, small enough for the first-level cache

    // One block, of at most kBlock pixels, of one image's; channels lie `stride` apart.
    void (*max_abs)(const float* gradients, Index channels, Index stride, Index size, float* result);
    void (*rgb)(const float* gradients, const Span& span, Index channels, Index stride, Index size,
                std::uint8_t* result);
    void (*multiply)(const float* gradients, const float* map, Index size, float* result);
};

// Where one result coordinate lies between two source coordinates.
struct Sample {
    Index near;
    Index far;
    float share;  // of `far`, in [0, 1)
};

struct UpsampleLoops {
    void (*stretch)(const float* row, const Sample* columns, Index width, float* result);
    void (*blend)(const float* above, const float* below, float share, Index width, float* result);
};

struct NormalizeLoops {
    // One channel of one row: table[pixels[0]], table[pixels[step]], ...
    void (*look_up)(const std::uint8_t* pixels, Index step, const float* table, Index width, float* result);
};

// A palette, and the shares that its colours and the photograph have in the result.
struct Palette {
    std::uint8_t colours[256][4];  // the fourth byte is there to copy four at once
    float shares[256][4];          // alpha * colour
    float alpha;
    float rest;
};

struct OverlayLoops {
    static constexpr Index kBlock = 1024;  // pixels: one item of work, small enough for the first-level cache

    // Heat to palette entries. Returns whether a value is NaN; its entry is then arbitrary, but in range.
    bool (*entries)(const float* heat, Index size, std::uint8_t* entries);
    // The same for a row between two others, brought to [0, 1] by a span whose range is not zero.
    void (*entries_between)(const float* above, const float* below, float share, const Span& span, Index size,
                            std::uint8_t* entries);
    // At most kBlock pixels: round(alpha * colour + rest * photograph).
    void (*paint)(const std::uint8_t* entries, const Palette& palette, const std::uint8_t* photograph, Index size,
                  std::uint8_t* result);
};

struct Loops {
    const char* isa;
    const CamLoops& cam;
    const MinmaxLoops& minmax;
    const GradientLoops& gradients;
    const UpsampleLoops& upsample;
    const NormalizeLoops& normalize;
    const OverlayLoops& overlay;
};

#define SEEWHY_DECLARE_LOOPS(isa)                   \
    namespace isa {                                 \
    extern const CamLoops cam_loops;                \
    extern const MinmaxLoops minmax_loops;          \
    extern const GradientLoops gradient_loops;      \
    extern const UpsampleLoops upsample_loops;      \
    extern const NormalizeLoops normalize_loops;    \
    extern const OverlayLoops overlay_loops;        \
    }

#ifdef SEEWHY_ISA
SEEWHY_DECLARE_LOOPS(SEEWHY_ISA)
#endif

}  // namespace seewhy
