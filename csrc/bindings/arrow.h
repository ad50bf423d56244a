// Access to pixels by the Arrow C data interface (https://arrow.apache.org/docs/format/CDataInterface.html).
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <string>

#include "bindings/arguments.h"

namespace seewhy::bindings {

// The structure that the interface defines.
struct ArrowArray {
    std::int64_t length;
    std::int64_t null_count;
    std::int64_t offset;
    std::int64_t n_buffers;
    std::int64_t n_children;
    const void** buffers;
    ArrowArray** children;
    ArrowArray* dictionary;
    void (*release)(ArrowArray*);
    void* private_data;
};

// Returns a read-only view of an array of height * width lists of four bytes. The view keeps the capsule.
inline py::array arrow_pixels(const py::object& array_, py::ssize_t height, py::ssize_t width) {
    if (!PyCapsule_IsValid(array_.ptr(), "arrow_array")) {
        throw py::type_error(std::string("array must be a capsule named arrow_array, not ") +
                             Py_TYPE(array_.ptr())->tp_name);
    }
    if (height < 1 || width < 1) {
        throw py::value_error("height and width must be at least 1, not " + text(Shape{height, width}));
    }
    const auto* array = static_cast<const ArrowArray*>(PyCapsule_GetPointer(array_.ptr(), "arrow_array"));
    if (array->release == nullptr) throw py::value_error("array must not be released");
    const ArrowArray* bytes = array->n_children == 1 ? array->children[0] : nullptr;
    // A division, because the product of height and width may overflow.
    const bool fits = array->length % width == 0 && array->length / width == height;
    if (bytes == nullptr || !fits || bytes->length != 4 * array->length || array->offset != 0 || bytes->offset != 0 ||
        array->null_count != 0 || bytes->null_count != 0 || bytes->n_buffers != 2 || bytes->buffers[1] == nullptr) {
        throw py::value_error("array must hold four bytes without nulls for each of " + text(Shape{height, width}) +
                              " pixels");
    }
    auto result = py::array_t<std::uint8_t>({height, width, py::ssize_t{4}},
                                            static_cast<const std::uint8_t*>(bytes->buffers[1]), array_);
    py::detail::array_proxy(result.ptr())->flags &= ~py::detail::npy_api::NPY_ARRAY_WRITEABLE_;
    return result;
}

}  // namespace seewhy::bindings
