// Python bindings: checks every argument, allocates under the interpreter lock, computes without it. The only file that
// knows Python; engine/seewhy/_core.pyi says what each function promises.

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <stdexcept>
#include <string>
#include <vector>

#include "cpu_dispatch.h"
#include "kernels/cam.h"
#include "kernels/gradients.h"
#include "kernels/minmax.h"
#include "kernels/normalize.h"
#include "kernels/overlay.h"
#include "kernels/upsample.h"

namespace py = pybind11;

namespace {

using seewhy::Index;
using Shape = std::vector<py::ssize_t>;

std::string text(const Shape& shape) {
    std::string result = "(";
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        result += (axis ? ", " : "") + std::to_string(shape[axis]);
    }
    return result + (shape.size() == 1 ? ",)" : ")");
}

std::string text(double value) { return py::str(py::float_(value)); }

// A checked view of an argument: T is its dtype, and its memory is contiguous and aligned.
template <typename T>
struct Array {
    py::array array;
    const char* name;
    Shape shape;

    const T* data() const { return static_cast<const T*>(array.data()); }
};

constexpr const char* dtype_name(float) { return "float32"; }
constexpr const char* dtype_name(std::uint8_t) { return "uint8"; }

template <typename T>
Array<T> take(const py::object& value, const char* name) {
    if (!py::isinstance<py::array>(value)) {
        throw py::type_error(std::string(name) + " must be a numpy.ndarray, not " + Py_TYPE(value.ptr())->tp_name);
    }
    const auto array = py::reinterpret_borrow<py::array>(value);
    const Shape shape(array.shape(), array.shape() + array.ndim());
    if (!py::isinstance<py::array_t<T>>(value)) {
        throw py::type_error(std::string(name) + " must be " + dtype_name(T{}) + ", not " +
                             std::string(py::str(static_cast<py::object>(array.dtype()))));
    }
    if (!(array.flags() & py::array::c_style)) {
        throw py::type_error(std::string(name) + " must be C-contiguous, not of shape " + text(shape) +
                             " with strides " + text(Shape(array.strides(), array.strides() + array.ndim())));
    }
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) {
        throw py::type_error(std::string(name) + " must lie at a multiple of " + std::to_string(alignof(T)) +
                             " bytes in memory; a copy of it does");
    }
    return {array, name, shape};
}

// `axes` names them, as in "(N, C, h, w)". Only the first, the batch, may be empty.
template <typename T>
Array<T> take(const py::object& value, const char* name, std::size_t rank, const char* axes) {
    Array<T> result = take<T>(value, name);
    if (result.shape.size() != rank) {
        throw py::value_error(std::string(name) + " must have shape " + axes + ", not " + text(result.shape));
    }
    for (std::size_t axis = 1; axis < rank; ++axis) {
        if (result.shape[axis] < 1) {
            throw py::value_error(std::string(name) + " of shape " + axes +
                                  " may be empty in the first axis only, not " + text(result.shape));
        }
    }
    return result;
}

template <typename T>
Array<T> take_exactly(const py::object& value, const char* name, const Shape& shape) {
    Array<T> result = take<T>(value, name);
    if (result.shape != shape) {
        throw py::value_error(std::string(name) + " must have shape " + text(shape) + ", not " + text(result.shape));
    }
    return result;
}

void check_threads(int threads) {
    if (threads < 0) throw py::value_error("threads must be 0 or more, not " + std::to_string(threads));
}

template <typename T>
py::array_t<T> allocate(const Shape& shape) {
    py::ssize_t bytes = sizeof(T);
    for (const py::ssize_t size : shape) {
        if (size > 0 && bytes > std::numeric_limits<py::ssize_t>::max() / size) {
            throw py::value_error("a result of shape " + text(shape) + " is larger than memory can be");
        }
        bytes *= size > 0 ? size : 1;
    }
    return py::array_t<T>(shape);
}

[[noreturn]] void refuse(const char* name, Index index, const char* what) {
    throw py::value_error(std::string(name) + "[" + std::to_string(index) + "] holds " + what);
}

py::array normalize(const py::object& pixels_, const py::object& mean_, const py::object& std_, bool reverse_channels,
                    int threads) {
    const auto pixels = take<std::uint8_t>(pixels_, "pixels", 4, "(N, H, W, C)");
    const Index count = pixels.shape[0], height = pixels.shape[1], width = pixels.shape[2], channels = pixels.shape[3];
    const auto mean = take_exactly<float>(mean_, "mean", {channels});
    const auto std = take_exactly<float>(std_, "std", {channels});
    check_threads(threads);
    for (Index c = 0; c < channels; ++c) {
        if (!std::isfinite(mean.data()[c])) {
            throw py::value_error("mean must be finite, not " + text(mean.data()[c]) + " for channel " +
                                  std::to_string(c));
        }
        if (!std::isfinite(std.data()[c]) || std.data()[c] <= 0.0f) {
            throw py::value_error("std must be finite and above 0, not " + text(std.data()[c]) + " for channel " +
                                  std::to_string(c));
        }
    }
    auto result = allocate<float>({count, channels, height, width});
    float* out = result.mutable_data();
    {
        py::gil_scoped_release release;
        seewhy::normalize(pixels.data(), mean.data(), std.data(), reverse_channels, count, height, width, channels,
                          threads, out);
    }
    return result;
}

py::array channel_means(const py::object& gradients_, int threads) {
    const auto gradients = take<float>(gradients_, "gradients", 4, "(N, C, h, w)");
    const Shape& shape = gradients.shape;
    check_threads(threads);
    auto result = allocate<float>({shape[0], shape[1]});
    float* out = result.mutable_data();
    {
        py::gil_scoped_release release;
        seewhy::channel_means(gradients.data(), shape[0] * shape[1], shape[2] * shape[3], threads, out);
    }
    return result;
}

py::array weighted_sum(const py::object& activations_, const py::object& weights_, int threads) {
    const auto activations = take<float>(activations_, "activations", 4, "(N, C, h, w)");
    const Shape& shape = activations.shape;
    const auto weights = take_exactly<float>(weights_, "weights", {shape[0], shape[1]});
    check_threads(threads);
    auto result = allocate<float>({shape[0], shape[2], shape[3]});
    float* out = result.mutable_data();
    {
        py::gil_scoped_release release;
        seewhy::weighted_sum(activations.data(), weights.data(), shape[0], shape[1], shape[2] * shape[3], threads, out);
    }
    return result;
}

using WeightsKernel = void (*)(const float*, const float*, Index, Index, int, float*);

// Weights (N, C) made of activations and gradients (N, C, h, w).
template <WeightsKernel kernel>
py::array channel_weights(const py::object& activations_, const py::object& gradients_, int threads) {
    const auto activations = take<float>(activations_, "activations", 4, "(N, C, h, w)");
    const Shape& shape = activations.shape;
    const auto gradients = take_exactly<float>(gradients_, "gradients", shape);
    check_threads(threads);
    auto result = allocate<float>({shape[0], shape[1]});
    float* out = result.mutable_data();
    {
        py::gil_scoped_release release;
        kernel(activations.data(), gradients.data(), shape[0] * shape[1], shape[2] * shape[3], threads, out);
    }
    return result;
}

py::array product_sum(const py::object& activations_, const py::object& gradients_, bool positive, int threads) {
    const auto activations = take<float>(activations_, "activations", 4, "(N, C, h, w)");
    const Shape& shape = activations.shape;
    const auto gradients = take_exactly<float>(gradients_, "gradients", shape);
    check_threads(threads);
    auto result = allocate<float>({shape[0], shape[2], shape[3]});
    float* out = result.mutable_data();
    {
        py::gil_scoped_release release;
        seewhy::product_sum(activations.data(), gradients.data(), positive, shape[0], shape[1], shape[2] * shape[3],
                            threads, out);
    }
    return result;
}

py::array upsample(const py::object& maps_, py::ssize_t height, py::ssize_t width, int threads) {
    const auto maps = take<float>(maps_, "maps", 3, "(N, h, w)");
    const Shape& shape = maps.shape;
    if (height < 1 || width < 1) {
        throw py::value_error("height and width must be at least 1, not " + text(Shape{height, width}));
    }
    check_threads(threads);
    auto result = allocate<float>({shape[0], height, width});
    float* out = result.mutable_data();
    {
        py::gil_scoped_release release;
        seewhy::upsample(maps.data(), shape[0], shape[1], shape[2], height, width, threads, out);
    }
    return result;
}

py::array minmax(const py::object& maps_, int threads) {
    const auto maps = take<float>(maps_, "maps", 3, "(N, H, W)");
    const Shape& shape = maps.shape;
    check_threads(threads);
    auto result = allocate<float>(shape);
    float* out = result.mutable_data();
    Index bad;
    {
        py::gil_scoped_release release;
        bad = seewhy::minmax(maps.data(), shape[0], shape[1] * shape[2], threads, out);
    }
    if (bad >= 0) refuse(maps.name, bad, "NaN or infinity");
    return result;
}

py::object first_not_finite(const py::object& values_, int threads) {
    const auto values = take<float>(values_, "values");
    check_threads(threads);
    if (values.shape.empty()) throw py::value_error("values must have an axis for the images, not shape ()");
    const Index count = values.array.size() > 0 ? values.shape[0] : 0, size = count > 0 ? values.array.size() / count : 0;
    Index bad;
    {
        py::gil_scoped_release release;
        bad = seewhy::first_not_finite(seewhy::spans(values.data(), count, size, threads));
    }
    return bad < 0 ? py::object(py::none()) : py::int_(bad);
}

py::array max_abs(const py::object& gradients_, int threads) {
    const auto gradients = take<float>(gradients_, "gradients", 4, "(N, C, H, W)");
    const Shape& shape = gradients.shape;
    check_threads(threads);
    auto result = allocate<float>({shape[0], shape[2], shape[3]});
    float* out = result.mutable_data();
    {
        py::gil_scoped_release release;
        seewhy::max_abs(gradients.data(), shape[0], shape[1], shape[2] * shape[3], threads, out);
    }
    return result;
}

py::array gradient_rgb(const py::object& gradients_, int threads) {
    const auto gradients = take<float>(gradients_, "gradients", 4, "(N, C, H, W)");
    const Shape& shape = gradients.shape;
    if (shape[1] != 1 && shape[1] != 3) {
        throw py::value_error("gradients must have 1 or 3 channels, not shape " + text(shape));
    }
    check_threads(threads);
    auto result = allocate<std::uint8_t>({shape[0], shape[2], shape[3], 3});
    std::uint8_t* out = result.mutable_data();
    Index bad;
    {
        py::gil_scoped_release release;
        bad = seewhy::gradient_rgb(gradients.data(), shape[0], shape[1], shape[2] * shape[3], threads, out);
    }
    if (bad >= 0) refuse(gradients.name, bad, "NaN or infinity");
    return result;
}

py::array multiply_by_map(const py::object& gradients_, const py::object& maps_, int threads) {
    const auto gradients = take<float>(gradients_, "gradients", 4, "(N, C, H, W)");
    const Shape& shape = gradients.shape;
    const auto maps = take_exactly<float>(maps_, "maps", {shape[0], shape[2], shape[3]});
    check_threads(threads);
    auto result = allocate<float>(shape);
    float* out = result.mutable_data();
    {
        py::gil_scoped_release release;
        seewhy::multiply_by_map(gradients.data(), maps.data(), shape[0], shape[1], shape[2] * shape[3], threads, out);
    }
    return result;
}

Array<std::uint8_t> take_photographs(const py::object& value) {
    const auto photographs = take<std::uint8_t>(value, "photographs", 4, "(N, H, W, 3)");
    if (photographs.shape[3] != 3) {
        throw py::value_error("photographs must have shape (N, H, W, 3), not " + text(photographs.shape));
    }
    return photographs;
}

void check_alpha(double alpha) {
    if (!(alpha >= 0.0 && alpha <= 1.0)) throw py::value_error("alpha must be in [0, 1], not " + text(alpha));
}

py::array overlay(const py::object& photographs_, const py::object& heatmaps_, const py::object& palette_, double alpha,
                  int threads) {
    const auto photographs = take_photographs(photographs_);
    const Shape& shape = photographs.shape;
    const auto heatmaps = take_exactly<float>(heatmaps_, "heatmaps", {shape[0], shape[1], shape[2]});
    const auto palette = take_exactly<std::uint8_t>(palette_, "palette", {256, 3});
    check_alpha(alpha);
    check_threads(threads);
    auto result = allocate<std::uint8_t>(shape);
    std::uint8_t* out = result.mutable_data();
    Index bad;
    {
        py::gil_scoped_release release;
        bad = seewhy::overlay(photographs.data(), heatmaps.data(), palette.data(), alpha, shape[0], shape[1] * shape[2],
                              threads, out);
    }
    if (bad >= 0) refuse(heatmaps.name, bad, "NaN");
    return result;
}

py::array overlay_maps(const py::object& photographs_, const py::object& maps_, const py::object& palette_,
                       double alpha, bool relu, int threads) {
    const auto photographs = take_photographs(photographs_);
    const Shape& shape = photographs.shape;
    const auto maps = take<float>(maps_, "maps", 3, "(N, h, w)");
    if (maps.shape[0] != shape[0]) {
        throw py::value_error("maps must be as many as photographs, " + std::to_string(shape[0]) + ", not " +
                              std::to_string(maps.shape[0]));
    }
    const auto palette = take_exactly<std::uint8_t>(palette_, "palette", {256, 3});
    check_alpha(alpha);
    check_threads(threads);
    auto result = allocate<std::uint8_t>(shape);
    std::uint8_t* out = result.mutable_data();
    Index bad;
    {
        py::gil_scoped_release release;
        bad = seewhy::overlay_maps(photographs.data(), maps.data(), palette.data(), alpha, relu, shape[0],
                                   maps.shape[1], maps.shape[2], shape[1], shape[2], threads, out);
    }
    if (bad >= 0) refuse(maps.name, bad, "NaN or infinity");
    return result;
}

// The environment is asked once, when the module is loaded.
void use_isa_of_environment() {
    const char* name = std::getenv("SEEWHY_ISA");
    if (name == nullptr || *name == '\0') return;
    try {
        seewhy::use_isa(name);
    } catch (const std::invalid_argument& error) {
        throw py::import_error(std::string("environment variable SEEWHY_ISA: ") + error.what());
    }
}

}  // namespace

PYBIND11_MODULE(_core, module, py::mod_gil_not_used()) {
    module.doc() = "Compiled kernels; see the stubs in _core.pyi.";
    use_isa_of_environment();
    module.def("isa", [] { return seewhy::loops().isa; });
    module.def("isas", [] { return py::tuple(py::cast(seewhy::isas())); });
    module.def("use_isa", &seewhy::use_isa, py::arg("name"));
    const auto threads = [] { return py::arg("threads") = 0; };
    module.def("normalize", &normalize, py::arg("pixels"), py::arg("mean"), py::arg("std"),
               py::arg("reverse_channels") = false, threads());
    module.def("channel_means", &channel_means, py::arg("gradients"), threads());
    module.def("weighted_sum", &weighted_sum, py::arg("activations"), py::arg("weights"), threads());
    module.def("gradcam_plus_plus_weights", &channel_weights<seewhy::gradcam_plus_plus_weights>, py::arg("activations"),
               py::arg("gradients"), threads());
    module.def("xgradcam_weights", &channel_weights<seewhy::xgradcam_weights>, py::arg("activations"),
               py::arg("gradients"), threads());
    module.def("product_sum", &product_sum, py::arg("activations"), py::arg("gradients"), py::arg("positive") = false,
               threads());
    module.def("upsample", &upsample, py::arg("maps"), py::arg("height"), py::arg("width"), threads());
    module.def("minmax", &minmax, py::arg("maps"), threads());
    module.def("first_not_finite", &first_not_finite, py::arg("values"), threads());
    module.def("max_abs", &max_abs, py::arg("gradients"), threads());
    module.def("gradient_rgb", &gradient_rgb, py::arg("gradients"), threads());
    module.def("multiply_by_map", &multiply_by_map, py::arg("gradients"), py::arg("maps"), threads());
    module.def("overlay", &overlay, py::arg("photographs"), py::arg("heatmaps"), py::arg("palette"), py::arg("alpha"),
               threads());
    module.def("overlay_maps", &overlay_maps, py::arg("photographs"), py::arg("maps"), py::arg("palette"),
               py::arg("alpha"), py::arg("relu") = false, threads());
}
