// Python bindings. Each function checks its arguments, allocates the result under the interpreter lock and computes
// without the lock. engine/seewhy/_core.pyi documents the functions.

#include <pybind11/stl.h>

#include <cmath>
#include <cstdlib>
#include <stdexcept>

#include "bindings/arguments.h"
#include "bindings/arrow.h"
#include "cpu_dispatch.h"
#include "cpu_features.h"
#include "kernels/cam.h"
#include "kernels/gradients.h"
#include "kernels/heatmaps.h"
#include "kernels/minmax.h"
#include "kernels/noise.h"
#include "kernels/normalize.h"
#include "kernels/overlay.h"
#include "kernels/resize.h"
#include "kernels/upsample.h"

namespace seewhy::bindings {

namespace {

// Checks `threads`, allocates the result, and calls kernel(data) without the interpreter lock to fill it.
template <typename T, typename Kernel>
py::array compute(const Shape& shape, int threads, const Kernel& kernel) {
    check_threads(threads);
    auto result = allocate<T>(shape);
    T* data = result.mutable_data();
    {
        py::gil_scoped_release release;
        kernel(data);
    }
    return result;
}

py::array normalize(const py::object& pixels_, const py::object& mean_, const py::object& std_, bool reverse_channels,
                    int threads) {
    const auto pixels = take<std::uint8_t>(pixels_, "pixels", 4, "(N, H, W, C)");
    const Images images = images_of(pixels);
    const auto mean = take_exactly<float>(mean_, "mean", {images.channels});
    const auto std = take_exactly<float>(std_, "std", {images.channels});
    check_threads(threads);  // check before the values of mean and std
    for (Index c = 0; c < images.channels; ++c) {
        const float m = mean.data()[c], s = std.data()[c];
        const std::string where = " for channel " + std::to_string(c);
        if (!std::isfinite(m)) throw py::value_error("mean must be finite, not " + text(m) + where);
        if (!std::isfinite(s) || s <= 0.0f) {
            throw py::value_error("std must be finite and above 0, not " + text(s) + where);
        }
    }
    return compute<float>({images.count, images.channels, images.height, images.width}, threads, [&](float* result) {
        seewhy::normalize(images, {mean.data(), std.data(), reverse_channels}, threads, result);
    });
}

py::array channel_means(const py::object& gradients_, int threads) {
    const auto gradients = take<float>(gradients_, "gradients", 4, "(N, C, h, w)");
    const Shape& shape = gradients.shape;
    return compute<float>({shape[0], shape[1]}, threads,
                          [&](float* result) { seewhy::channel_means(maps_of(gradients), threads, result); });
}

py::array weighted_sum(const py::object& activations_, const py::object& weights_, int threads) {
    const auto activations = take<float>(activations_, "activations", 4, "(N, C, h, w)");
    const Shape& shape = activations.shape;
    const auto weights = take_exactly<float>(weights_, "weights", {shape[0], shape[1]});
    return compute<float>({shape[0], shape[2], shape[3]}, threads, [&](float* result) {
        seewhy::weighted_sum(maps_of(activations), weights.data(), threads, result);
    });
}

using WeightsKernel = void (*)(const Maps& activations, const Maps& gradients, int threads, float* result);

// Channel weights computed from activations and gradients.
template <WeightsKernel kernel>
py::array channel_weights(const py::object& activations_, const py::object& gradients_, int threads) {
    const auto activations = take<float>(activations_, "activations", 4, "(N, C, h, w)");
    const Shape& shape = activations.shape;
    const auto gradients = take_exactly<float>(gradients_, "gradients", shape);
    return compute<float>({shape[0], shape[1]}, threads, [&](float* result) {
        kernel(maps_of(activations), maps_of(gradients), threads, result);
    });
}

py::array product_sum(const py::object& activations_, const py::object& gradients_, bool positive, int threads) {
    const auto activations = take<float>(activations_, "activations", 4, "(N, C, h, w)");
    const Shape& shape = activations.shape;
    const auto gradients = take_exactly<float>(gradients_, "gradients", shape);
    return compute<float>({shape[0], shape[2], shape[3]}, threads, [&](float* result) {
        seewhy::product_sum(maps_of(activations), maps_of(gradients), positive, threads, result);
    });
}

py::array upsample(const py::object& maps_, py::ssize_t height, py::ssize_t width, int threads) {
    const auto maps = take<float>(maps_, "maps", 3, "(N, h, w)");
    check_size(height, width);
    return compute<float>({maps.shape[0], height, width}, threads,
                          [&](float* result) { seewhy::upsample(maps_of(maps), height, width, threads, result); });
}

py::array minmax(const py::object& maps_, int threads) {
    const auto maps = take<float>(maps_, "maps", 3, "(N, H, W)");
    FirstNotFinite not_finite;
    auto result = compute<float>(maps.shape, threads,
                                 [&](float* data) { not_finite = seewhy::minmax(maps_of(maps), threads, data); });
    raise_if_found(maps, not_finite, "NaN or infinity");
    return result;
}

// The view of an argument of any shape but () as images of one row.
Maps rows_of(const Array<float>& values) {
    if (values.shape.empty()) throw py::value_error(values.name + " must have an axis for the images, not shape ()");
    const Index total = values.array.size(), count = total > 0 ? values.shape[0] : 0;
    return {values.data(), count, 1, 1, count > 0 ? total / count : 0};
}

py::object first_not_finite(const py::args& values_) {
    std::vector<Array<float>> arrays;
    std::vector<Maps> rows;
    for (const py::handle& value : values_) {
        arrays.push_back(take<float>(py::reinterpret_borrow<py::object>(value), "values"));
        rows.push_back(rows_of(arrays.back()));
    }
    std::pair<std::size_t, FirstNotFinite> found;
    {
        py::gil_scoped_release release;
        for (; found.first < rows.size() && !found.second; found.first += !found.second) {
            // Starting a second thread takes longer than the whole check.
            found.second = seewhy::first_not_finite(spans_of(rows[found.first], 1));
        }
    }
    return found.second ? py::cast(std::make_pair(found.first, *found.second)) : py::object(py::none());
}

py::tuple finite_copy(const py::object& values_, int threads) {
    const auto values = take<float>(values_, "values");
    const Maps rows = rows_of(values);
    FirstNotFinite not_finite;
    auto copy = compute<float>(values.shape, threads,
                               [&](float* data) { not_finite = seewhy::copy_and_check(rows, threads, data); });
    return py::make_tuple(copy, not_finite);
}

py::array heatmaps(const py::object& maps_, bool relu, py::ssize_t height, py::ssize_t width, int threads) {
    const auto maps = take<float>(maps_, "maps", 3, "(N, h, w)");
    check_size(height, width);
    FirstNotFinite not_finite;
    auto result = compute<float>({maps.shape[0], height, width}, threads, [&](float* data) {
        not_finite = seewhy::heatmaps(maps_of(maps), relu, height, width, threads, data);
    });
    raise_if_found(maps, not_finite, "NaN or infinity");
    return result;
}

py::array max_abs(const py::object& gradients_, int threads) {
    const auto gradients = take<float>(gradients_, "gradients", 4, "(N, C, H, W)");
    const Shape& shape = gradients.shape;
    return compute<float>({shape[0], shape[2], shape[3]}, threads,
                          [&](float* result) { seewhy::max_abs(maps_of(gradients), threads, result); });
}

py::array gradient_rgb(const py::object& gradients_, int threads) {
    const auto gradients = take<float>(gradients_, "gradients", 4, "(N, C, H, W)");
    const Shape& shape = gradients.shape;
    if (shape[1] != 1 && shape[1] != 3) {
        throw py::value_error("gradients must have 1 or 3 channels, not shape " + text(shape));
    }
    FirstNotFinite not_finite;
    auto result = compute<std::uint8_t>({shape[0], shape[2], shape[3], 3}, threads, [&](std::uint8_t* data) {
        not_finite = seewhy::gradient_rgb(maps_of(gradients), threads, data);
    });
    raise_if_found(gradients, not_finite, "NaN or infinity");
    return result;
}

py::array multiply_by_map(const py::object& gradients_, const py::object& maps_, int threads) {
    const auto gradients = take<float>(gradients_, "gradients", 4, "(N, C, H, W)");
    const Shape& shape = gradients.shape;
    const auto maps = take_exactly<float>(maps_, "maps", {shape[0], shape[2], shape[3]});
    return compute<float>(shape, threads, [&](float* result) {
        seewhy::multiply_by_map(maps_of(gradients), maps_of(maps), threads, result);
    });
}

py::array add_normal_noise(const py::object& values_, float deviation, const py::object& state_) {
    const auto values = take<float>(values_, "values");
    const auto state = take_exactly<std::uint32_t>(state_, "state", {4, NoiseLoops::kLanes});
    const Index size = values.array.size();
    return compute<float>(values.shape, 1, [&](float* result) {
        seewhy::add_normal_noise(values.data(), deviation, state.data(), size, result);
    });
}

Array<std::uint8_t> take_images(const py::object& value) {
    const auto images = take<std::uint8_t>(value, "images", 4, "(N, H, W, 3)");
    if (images.shape[3] != 3) {
        throw py::value_error("images must have shape (N, H, W, 3), not " + text(images.shape));
    }
    return images;
}

py::array overlay(const py::object& images_, const py::object& heatmaps_, const py::object& palette_, double alpha,
                  int threads) {
    const auto images = take_images(images_);
    const Shape& shape = images.shape;
    const auto heatmaps = take_exactly<float>(heatmaps_, "heatmaps", {shape[0], shape[1], shape[2]});
    const auto palette = take_exactly<std::uint8_t>(palette_, "palette", {256, 3});
    check_alpha(alpha);
    FirstNan nan;
    auto result = compute<std::uint8_t>(shape, threads, [&](std::uint8_t* data) {
        nan = seewhy::overlay(images_of(images), maps_of(heatmaps), {palette.data(), alpha}, threads, data);
    });
    raise_if_found(heatmaps, nan, "NaN");
    return result;
}

py::array overlay_maps(const py::object& images_, const py::object& maps_, const py::object& palette_,
                       double alpha, bool relu, int threads) {
    const auto images = take_images(images_);
    const Shape& shape = images.shape;
    const auto maps = take<float>(maps_, "maps", 3, "(N, h, w)");
    if (maps.shape[0] != shape[0]) {
        throw py::value_error("maps must be as many as images, " + std::to_string(shape[0]) + ", not " +
                              std::to_string(maps.shape[0]));
    }
    const auto palette = take_exactly<std::uint8_t>(palette_, "palette", {256, 3});
    check_alpha(alpha);
    FirstNotFinite not_finite;
    auto result = compute<std::uint8_t>(shape, threads, [&](std::uint8_t* data) {
        const Style style = {palette.data(), alpha};
        not_finite = seewhy::overlay_maps(images_of(images), maps_of(maps), style, relu, threads, data);
    });
    raise_if_found(maps, not_finite, "NaN or infinity");
    return result;
}

const seewhy::ResizeFilter& resize_filter(const std::string& name) {
    std::string names;
    for (const seewhy::ResizeFilter& filter : seewhy::resize_filters) {
        if (name == filter.name) return filter;
        names += std::string(names.empty() ? "" : ", ") + filter.name;
    }
    throw py::value_error("filter must be one of " + names + ", not " + name);
}

// `crop` is [first, last) of the resized pixels.
Axis resized_axis(const std::string& name, Index length, Index resized, const std::pair<Index, Index>& crop) {
    constexpr Index kMost = std::numeric_limits<std::int32_t>::max();  // positions have fractions of 21 bits or more
    const Index lengths[] = {length, resized};
    for (const Index each : lengths) {
        if (each < 1 || each > kMost) {
            throw py::value_error(name + " must be from 1 to " + std::to_string(kMost) +
                                  " before and after resizing, not " + std::to_string(each));
        }
    }
    if (crop.first < 0 || crop.second <= crop.first || crop.second > resized) {
        throw py::value_error("the crop of " + name + " " + std::to_string(resized) + " must be a range in it, not " +
                              text(Shape{crop.first, crop.second}));
    }
    return {length, resized, crop.first, crop.second};
}

py::tuple resize_source(const std::string& filter, Index length, Index resized, const std::pair<Index, Index>& crop) {
    const Range range = seewhy::source_range(resize_filter(filter), resized_axis("length", length, resized, crop));
    return py::make_tuple(range.first, range.last);
}

py::array resize(const py::object& pixels_, const std::string& filter_, Index height, Index width,
                 const std::pair<Index, Index>& rows_, const std::pair<Index, Index>& columns_, Index top,
                 std::optional<Index> whole_height) {
    const auto pixels = take<std::uint8_t>(pixels_, "pixels", 3, "(H, W, 4)");
    const Shape& shape = pixels.shape;
    if (shape[2] != 4) throw py::value_error("pixels must have shape (H, W, 4), not " + text(shape));
    const auto& filter = resize_filter(filter_);
    const Axis rows = resized_axis("height", whole_height.value_or(shape[0]), height, rows_);
    const Axis columns = resized_axis("width", shape[1], width, columns_);
    const Range needed = seewhy::source_range(filter, rows);
    if (top > needed.first || needed.last - top > shape[0]) {
        throw py::value_error("pixels must hold the rows " + text(Shape{needed.first, needed.last}) + ", not " +
                              text(Shape{top, top + shape[0]}));
    }
    return compute<std::uint8_t>({rows.size(), columns.size(), 3}, 1, [&](std::uint8_t* data) {
        seewhy::resize(pixels.data(), top, filter, rows, columns, data);
    });
}

// Called once, when the module is loaded.
void use_isa_of_environment() {
    const char* name = std::getenv("SEEWHY_ISA");
    if (name == nullptr || *name == '\0') return;
    try {
        use_isa(name);
    } catch (const std::invalid_argument& error) {
        throw py::import_error(std::string("environment variable SEEWHY_ISA: ") + error.what());
    }
}

}  // namespace

}  // namespace seewhy::bindings

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
    using namespace seewhy::bindings;
    using namespace py::literals;
    module.doc() = "Compiled kernels; see the stubs in _core.pyi.";
    use_isa_of_environment();
    module.def("isa", [] { return seewhy::loops().isa; });
    module.def("isas", [] { return py::tuple(py::cast(seewhy::isas())); });
    module.def("use_isa", &seewhy::use_isa, "name"_a);
    module.def("cpu_features", []() -> py::object {
        const auto features = seewhy::cpu_features();
        return features ? py::object(py::tuple(py::cast(*features))) : py::object(py::none());
    });
    const py::arg_v threads = "threads"_a = 0;
    module.def("normalize", &normalize, "pixels"_a, "mean"_a, "std"_a, "reverse_channels"_a = false, threads);
    module.def("arrow_pixels", &arrow_pixels, "array"_a, "height"_a, "width"_a);
    module.def("resize_source", &resize_source, "filter"_a, "length"_a, "resized"_a, "crop"_a);
    module.def("resize", &resize, "pixels"_a, "filter"_a, "height"_a, "width"_a, "rows"_a, "columns"_a, "top"_a = 0,
               "whole_height"_a = py::none());
    module.def("channel_means", &channel_means, "gradients"_a, threads);
    module.def("weighted_sum", &weighted_sum, "activations"_a, "weights"_a, threads);
    module.def("gradcam_plus_plus_weights", &channel_weights<seewhy::gradcam_plus_plus_weights>, "activations"_a,
               "gradients"_a, threads);
    module.def("xgradcam_weights", &channel_weights<seewhy::xgradcam_weights>, "activations"_a, "gradients"_a, threads);
    module.def("product_sum", &product_sum, "activations"_a, "gradients"_a, "positive"_a = false, threads);
    module.def("upsample", &upsample, "maps"_a, "height"_a, "width"_a, threads);
    module.def("minmax", &minmax, "maps"_a, threads);
    module.def("heatmaps", &heatmaps, "maps"_a, "relu"_a, "height"_a, "width"_a, threads);
    module.def("first_not_finite", &first_not_finite);
    module.def("finite_copy", &finite_copy, "values"_a, threads);
    module.def("max_abs", &max_abs, "gradients"_a, threads);
    module.def("gradient_rgb", &gradient_rgb, "gradients"_a, threads);
    module.def("multiply_by_map", &multiply_by_map, "gradients"_a, "maps"_a, threads);
    module.def("add_normal_noise", &add_normal_noise, "values"_a, "deviation"_a, "state"_a);
    module.def("overlay", &overlay, "images"_a, "heatmaps"_a, "palette"_a, "alpha"_a, threads);
    module.def("overlay_maps", &overlay_maps, "images"_a, "maps"_a, "palette"_a, "alpha"_a, "relu"_a = false,
               threads);
}
