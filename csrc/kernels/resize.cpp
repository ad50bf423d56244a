#include "kernels/resize.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "cpu_dispatch.h"

namespace seewhy {

namespace {

constexpr double kPi = 3.14159265358979323846;

double sinc(double x) { return x == 0.0 ? 1.0 : std::sin(x * kPi) / (x * kPi); }

// Each formula has the order of operations of Pillow, so that all shares are rounded to the same integers.

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double bilinear(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

double hamming(double x) {
    x = std::abs(x);
    if (x == 0.0) return 1.0;
    if (x >= 1.0) return 0.0;
    x *= kPi;
    return std::sin(x) / x * (static_cast<double>(0.54f) + static_cast<double>(0.46f) * std::cos(x));
}

double bicubic(double x) {
    constexpr double a = -0.5;
    x = std::abs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

double lanczos(double x) { return -3.0 <= x && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }

// Position and width of the filter for each result of an axis.
class Placement {
public:
    Placement(const ResizeFilter& filter, const Axis& axis)
        // Pillow stores the length of the source as a float.
        : length_(axis.in), scale_(static_cast<double>(static_cast<float>(axis.in)) / static_cast<double>(axis.out)),
          stretch_(std::max(scale_, 1.0)), support_(filter.support * stretch_) {}

    double stretch() const { return stretch_; }
    double centre(Index result) const { return (static_cast<double>(result) + 0.5) * scale_; }
    Range range(Index result) const {
        const double middle = centre(result);
        return {std::max<Index>(static_cast<Index>(middle - support_ + 0.5), 0),
                std::min(static_cast<Index>(middle + support_ + 0.5), length_)};
    }

private:
    Index length_;
    double scale_;
    double stretch_;
    double support_;
};

// Source pixels of each cropped result of an axis, and their shares. All results have the same number of source pixels,
// so that the loops are regular: shares of zero are added. Each share is there `copies` times.
struct Windows {
    Windows(const ResizeFilter& filter, const Axis& axis, Index copies) {
        const Placement placement(filter, axis);
        for (Index result = axis.first; result < axis.last; ++result) {
            const Range range = placement.range(result);
            count = std::max(count, range.last - range.first);
        }
        if (count % 2 == 1 && count < axis.in) ++count;  // loops take two pixels at once
        const double inverse = 1.0 / placement.stretch();
        std::vector<double> weights;
        first.reserve(axis.size());
        shares.resize(axis.size() * count * copies);
        std::int32_t* share = shares.data();
        for (Index result = axis.first; result < axis.last; ++result, share += count * copies) {
            const Range range = placement.range(result);
            const double centre = placement.centre(result);
            double sum = 0.0;
            weights.clear();
            for (Index i = range.first; i < range.last; ++i) {
                weights.push_back(filter.weight((static_cast<double>(i) - centre + 0.5) * inverse));
                sum += weights.back();
            }
            first.push_back(std::min(range.first, axis.in - count));
            std::int32_t* next = share + (range.first - first.back()) * copies;
            for (const double weight : weights) {
                const double exact = (sum != 0.0 ? weight / sum : weight) * (1 << ResizeLoops::kBits);
                next = std::fill_n(next, copies, static_cast<std::int32_t>(exact + (exact < 0.0 ? -0.5 : 0.5)));
            }
        }
    }

    Index count = 0;
    std::vector<Index> first;
    std::vector<std::int32_t> shares;
};

}  // namespace

const ResizeFilter resize_filters[kResizeFilters] = {
    {"box", box, 0.5}, {"bilinear", bilinear, 1.0}, {"hamming", hamming, 1.0}, {"bicubic", bicubic, 2.0},
    {"lanczos", lanczos, 3.0},
};

Range source_range(const ResizeFilter& filter, const Axis& axis) {
    const Placement placement(filter, axis);
    return {placement.range(axis.first).first, placement.range(axis.last - 1).last};
}

void resize(const std::uint8_t* pixels, Index top, const ResizeFilter& filter, const Axis& rows, const Axis& columns,
            std::uint8_t* result) {
    const ResizeLoops& loop = loops().resize;
    const Windows down(filter, rows, 1), across(filter, columns, 4);
    // Source rows that were resized across. Row i is in slot i % down.count, and stays in a cache until it is summed.
    const Index size = 3 * columns.size();
    std::vector<std::uint8_t> resized(down.count * size);
    std::vector<const std::uint8_t*> summed(down.count);
    const Range needed = source_range(filter, rows);
    Index next = needed.first;
    for (Index y = 0; y < rows.size(); ++y) {
        const Index first = down.first[y];
        for (; next < std::min(first + down.count, needed.last); ++next) {
            loop.across(pixels + (next - top) * columns.in * 4, across.first.data(), across.shares.data(), across.count,
                        columns.size(), resized.data() + next % down.count * size);
        }
        for (Index i = 0; i < down.count; ++i) summed[i] = resized.data() + (first + i) % down.count * size;
        loop.down(summed.data(), down.shares.data() + y * down.count, down.count, size, result + y * size);
    }
}

}  // namespace seewhy
