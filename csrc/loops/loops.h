// Innermost loops, compiled once for each instruction set. cpu_dispatch.cpp chooses between the versions.
//
// Each source file in this folder is compiled several times, and SEEWHY_ISA names the namespace. All definitions are in
// that namespace or have internal linkage. The files use no templates or inline functions of the standard library: the
// linker keeps one copy of those, which could be a copy that older processors cannot run.
//
// All instruction sets give the same bits, because each loop does the same roundings in the same order.
#pragma once

#include <cstdint>

#include "index.h"

namespace seewhy {

struct CamLoops {
    static constexpr Index kBlock = 256;  // pixels whose sums stay in the L1 cache over all channels

    double (*sum)(const float* values, Index size);
    double (*gradcam_plus_plus_weight)(const float* activations, const float* gradients, Index size);
    double (*xgradcam_weight)(const float* activations, const float* gradients, Index size);
    // One block of at most kBlock pixels of one image, whose channels are `stride` values apart.
    void (*weighted)(const float* activations, const float* weights, Index channels, Index stride, Index size,
                     float* result);
    void (*product)(const float* activations, const float* gradients, Index channels, Index stride, Index size,
                    float* result);
    void (*positive_product)(const float* activations, const float* gradients, Index channels, Index stride, Index size,
                             float* result);
};

// Scaling of one map to [0, 1]: (value * scale - low) / range, or zeros if the range is zero.
struct Span {
    float scale = 1.0f;
    float low = 0.0f;
    float range = 0.0f;
    bool finite = true;
};

// Extremes of values, as integers in the order of the floats. NaN of either sign is beyond infinity, so that
// comparisons keep it. Compilers vectorise this reduction for integers, but not for floats.
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
    // Copies the values, and returns their extremes.
    Extremes (*copy)(const float* values, Index size, float* result);
    void (*rescale)(const float* values, const Span& span, Index size, float* result);
};

struct GradientLoops {
    static constexpr Index kBlock = 1024;  // pixels that fit the L1 cache

    // One block of at most kBlock pixels of one image, whose channels are `stride` values apart.
    void (*max_abs)(const float* gradients, Index channels, Index stride, Index size, float* result);
    void (*rgb)(const float* gradients, const Span& span, Index channels, Index stride, Index size,
                std::uint8_t* result);
    void (*multiply)(const float* gradients, const float* map, Index size, float* result);
};

// Position of a result coordinate between two source coordinates.
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
    // Writes one channel of one row: table[pixels[0]], table[pixels[step]], ...
    void (*look_up)(const std::uint8_t* pixels, Index step, const float* table, Index width, float* result);
};

struct ResizeLoops {
    static constexpr int kBits = 22;  // shares are integers in units of 2^-22

    // Resizes one line of RGBX pixels to RGB. Pixel x of the result is the sum of `count` pixels from first[x] on, each
    // multiplied by its share. Each share is there four times, once for each channel.
    void (*across)(const std::uint8_t* pixels, const Index* first, const std::int32_t* shares, Index count, Index width,
                   std::uint8_t* result);
    // Writes the sum of `count` lines of `size` bytes, each multiplied by its share.
    void (*down)(const std::uint8_t* const* rows, const std::int32_t* shares, Index count, Index size,
                 std::uint8_t* result);
};

// Colormap and weights of an overlay, alpha * colour + rest * image.
struct Blend {
    std::uint8_t colours[256][4];  // the fourth byte is padding: four bytes are copied at once
    float shares[256][4];          // alpha * colour
    float alpha;
    float rest;
};

struct OverlayLoops {
    static constexpr Index kBlock = 1024;  // pixels that fit the L1 cache

    // Converts heat to colormap entries. Returns true if a value is NaN; its entry is then arbitrary, but in range.
    bool (*entries)(const float* heat, Index size, std::uint8_t* entries);
    // Does the same for a row between two others, scaled to [0, 1] by a span whose range is not zero.
    void (*entries_between)(const float* above, const float* below, float share, const Span& span, Index size,
                            std::uint8_t* entries);
    // Writes round(alpha * colour + rest * image) for at most kBlock pixels.
    void (*paint)(const std::uint8_t* entries, const Blend& blend, const std::uint8_t* image, Index size,
                  std::uint8_t* result);
};

struct NoiseLoops {
    static constexpr Index kLanes = 16;   // generators that draw side by side
    static constexpr Index kBlock = 512;  // values of one call

    // Draws kBlock words and advances the state, 4 words for each lane.
    void (*draw)(std::uint32_t* state, std::uint32_t* result);
    // Converts kBlock words to as many standard normal values.
    void (*normals)(const std::uint32_t* bits, float* result);
};

struct Loops {
    const char* isa;
    const CamLoops& cam;
    const MinmaxLoops& minmax;
    const GradientLoops& gradients;
    const UpsampleLoops& upsample;
    const NormalizeLoops& normalize;
    const OverlayLoops& overlay;
    const NoiseLoops& noise;
    const ResizeLoops& resize;
};

#define SEEWHY_DECLARE_LOOPS(isa)                   \
    namespace isa {                                 \
    extern const CamLoops cam_loops;                \
    extern const MinmaxLoops minmax_loops;          \
    extern const GradientLoops gradient_loops;      \
    extern const UpsampleLoops upsample_loops;      \
    extern const NormalizeLoops normalize_loops;    \
    extern const OverlayLoops overlay_loops;        \
    extern const NoiseLoops noise_loops;            \
    extern const ResizeLoops resize_loops;          \
    }

#ifdef SEEWHY_ISA
SEEWHY_DECLARE_LOOPS(SEEWHY_ISA)
#endif

}  // namespace seewhy
