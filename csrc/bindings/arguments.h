// Checks of arguments from Python. Each message gives the name of the argument, the allowed value and the actual value.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "kernels/views.h"

namespace py = pybind11;

namespace seewhy::bindings {

using Shape = std::vector<py::ssize_t>;

inline std::string text(const Shape& shape) {
    std::string result = "(";
    for (std::size_t axis = 0; axis < shape.size(); ++axis) {
        result += (axis ? ", " : "") + std::to_string(shape[axis]);
    }
    return result + (shape.size() == 1 ? ",)" : ")");
}

inline std::string text(double value) { return py::str(py::float_(value)); }

// Argument that was checked: its dtype is T, and its memory is C-contiguous and aligned.
template <typename T>
struct Array {
    py::array array;
    std::string name;
    Shape shape;

    const T* data() const { return static_cast<const T*>(array.data()); }
};

constexpr const char* dtype_name(float) { return "float32"; }
constexpr const char* dtype_name(std::uint8_t) { return "uint8"; }
constexpr const char* dtype_name(std::uint32_t) { return "uint32"; }

template <typename T>
Array<T> take(const py::object& value, const std::string& name) {
    if (!py::isinstance<py::array>(value)) {
        throw py::type_error(name + " must be a numpy.ndarray, not " + Py_TYPE(value.ptr())->tp_name);
    }
    const auto array = py::reinterpret_borrow<py::array>(value);
    const Shape shape(array.shape(), array.shape() + array.ndim());
    if (!py::isinstance<py::array_t<T>>(value)) {
        const py::object dtype = array.dtype();
        throw py::type_error(name + " must be " + dtype_name(T{}) + ", not " + std::string(py::str(dtype)));
    }
    if (!(array.flags() & py::array::c_style)) {
        throw py::type_error(name + " must be C-contiguous, not of shape " + text(shape) + " with strides " +
                             text(Shape(array.strides(), array.strides() + array.ndim())));
    }
    if (reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) {
        throw py::type_error(name + " must lie at a multiple of " + std::to_string(alignof(T)) +
                             " bytes in memory; a copy of it does");
    }
    return {array, name, shape};
}

// `axes` names the axes, for example "(N, C, h, w)". Only the first one, the batch, may be empty.
template <typename T>
Array<T> take(const py::object& value, const std::string& name, std::size_t rank, const std::string& axes) {
    const Array<T> result = take<T>(value, name);
    if (result.shape.size() != rank) {
        throw py::value_error(name + " must have shape " + axes + ", not " + text(result.shape));
    }
    for (std::size_t axis = 1; axis < rank; ++axis) {
        if (result.shape[axis] < 1) {
            throw py::value_error(name + " of shape " + axes + " may be empty in the first axis only, not " +
                                  text(result.shape));
        }
    }
    return result;
}

template <typename T>
Array<T> take_exactly(const py::object& value, const std::string& name, const Shape& shape) {
    const Array<T> result = take<T>(value, name);
    if (result.shape != shape) {
        throw py::value_error(name + " must have shape " + text(shape) + ", not " + text(result.shape));
    }
    return result;
}

// The view of an argument of shape (N, C, H, W) or (N, H, W).
inline Maps maps_of(const Array<float>& array) {
    const Shape& s = array.shape;
    return s.size() == 3 ? Maps{array.data(), s[0], 1, s[1], s[2]} : Maps{array.data(), s[0], s[1], s[2], s[3]};
}

// The view of an argument of shape (N, H, W, C).
inline Images images_of(const Array<std::uint8_t>& array) {
    const Shape& s = array.shape;
    return {array.data(), s[0], s[1], s[2], s[3]};
}

inline void check_threads(int threads) {
    if (threads < 0) throw py::value_error("threads must be 0 or more, not " + std::to_string(threads));
}

inline void check_size(Index height, Index width) {
    if (height < 1 || width < 1) {
        throw py::value_error("height and width must be at least 1, not " + text(Shape{height, width}));
    }
}

inline void check_alpha(double alpha) {
    if (!(alpha >= 0.0 && alpha <= 1.0)) throw py::value_error("alpha must be in [0, 1], not " + text(alpha));
}

// Raises if a kernel has found a map that it cannot process. `holds` describes the invalid values.
inline void raise_if_found(const Array<float>& array, const std::optional<Index>& found, const std::string& holds) {
    if (found) throw py::value_error(array.name + "[" + std::to_string(*found) + "] holds " + holds);
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

}  // namespace seewhy::bindings
