"""Tests of wrong arguments of the kernels: the message contains the values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from seewhy import _core
from support.kernel_calls import ARGUMENTS, KERNELS, SHARED, call

ARRAYS = [
    (kernel, name)
    for kernel in KERNELS
    for name, value in ARGUMENTS[kernel](2, 4, 6).items()
    if isinstance(value, np.ndarray)
]


def with_argument(kernel: str, name: str, value: Any) -> dict[str, Any]:
    return {**ARGUMENTS[kernel](2, 4, 6), name: value}


def array(kernel: str, name: str) -> np.ndarray:
    value: np.ndarray = ARGUMENTS[kernel](2, 4, 6)[name]
    return value


def test_the_table_of_kernels_is_complete() -> None:
    tested_in_other_files = {
        *("cpu_features", "isa", "isas", "use_isa", "first_not_finite", "finite_copy"),
        *("add_normal_noise", "arrow_pixels", "resize", "resize_source"),
    }
    assert [name for name in dir(_core) if not name.startswith("_") and name not in tested_in_other_files] == KERNELS


@pytest.mark.parametrize(("kernel", "name"), ARRAYS)
@pytest.mark.parametrize("dtype", [np.float64, np.float16, np.int64, np.int8, np.uint16, np.bool_, object, ">f4", "U3"])
def test_any_other_dtype_is_a_type_error(kernel: str, name: str, dtype: Any) -> None:
    good = array(kernel, name)
    expected = f"^{name} must be {good.dtype}, not {np.dtype(dtype)}$"
    with pytest.raises(TypeError, match=expected):
        call(kernel, with_argument(kernel, name, good.astype(dtype)))


@pytest.mark.parametrize(("kernel", "name"), ARRAYS)
@pytest.mark.parametrize("value", [None, [[1.0]], 3, "text", memoryview(b"1234")])
def test_other_objects_than_arrays_are_type_errors(kernel: str, name: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"^{name} must be a numpy.ndarray, not {type(value).__name__}$"):
        call(kernel, with_argument(kernel, name, value))


@pytest.mark.parametrize(("kernel", "name"), ARRAYS)
def test_any_other_memory_order_is_a_type_error(kernel: str, name: str) -> None:
    good = array(kernel, name)
    wide = np.repeat(good, 2, axis=-1)
    views = [wide[..., ::2], good[..., ::-1]] + ([np.asfortranarray(good)] if good.ndim > 1 else [])
    for view in views:
        with pytest.raises(TypeError, match=f"^{name} must be C-contiguous, not of shape .* with strides "):
            call(kernel, with_argument(kernel, name, view))


@pytest.mark.parametrize(("kernel", "name"), [case for case in ARRAYS if array(*case).dtype == np.float32])
def test_unaligned_memory_is_a_type_error(kernel: str, name: str) -> None:
    good = array(kernel, name)
    moved = np.frombuffer(b"\0" + good.tobytes(), np.uint8)[1:].view(np.float32).reshape(good.shape)
    assert not moved.flags.aligned
    with pytest.raises(TypeError, match=f"^{name} must lie at a multiple of 4 bytes in memory"):
        call(kernel, with_argument(kernel, name, moved))


@pytest.mark.parametrize(("kernel", "name"), ARRAYS)
def test_another_rank_is_a_value_error(kernel: str, name: str) -> None:
    good = array(kernel, name)
    for wrong in (np.array(good[0]), good[None], np.array(good.flat[0])):
        shape = ", ".join(map(str, wrong.shape)) + ("," if wrong.ndim == 1 else "")
        with pytest.raises(ValueError, match=rf"^{name} must have shape \(.*\), not \({shape}\)$"):
            call(kernel, with_argument(kernel, name, wrong))


@pytest.mark.parametrize("kernel", KERNELS)
def test_only_the_batch_may_be_empty(kernel: str) -> None:
    for name, good in ARGUMENTS[kernel](2, 4, 6).items():
        if not isinstance(good, np.ndarray) or name in SHARED or good.ndim < 3:
            continue
        for axis in range(1, good.ndim):
            shape = list(good.shape)
            shape[axis] = 0
            with pytest.raises(ValueError, match=rf"^{name} .*\(.*\b0\b.*\)$"):
                call(kernel, with_argument(kernel, name, np.zeros(shape, good.dtype)))


@pytest.mark.parametrize("kernel", KERNELS)
def test_an_empty_batch_gives_an_empty_result(kernel: str) -> None:
    full = call(kernel, ARGUMENTS[kernel](2, 4, 6))
    empty = call(kernel, ARGUMENTS[kernel](0, 4, 6))
    assert empty.shape == (0, *full.shape[1:])
    assert empty.dtype == full.dtype


@pytest.mark.parametrize(
    ("kernel", "name", "shape", "message"),
    [
        ("normalize", "mean", (4,), "mean must have shape (3,), not (4,)"),
        ("normalize", "std", (2,), "std must have shape (3,), not (2,)"),
        ("weighted_sum", "weights", (2, 4), "weights must have shape (2, 5), not (2, 4)"),
        ("weighted_sum", "weights", (1, 5), "weights must have shape (2, 5), not (1, 5)"),
        (
            "gradcam_plus_plus_weights",
            "gradients",
            (2, 5, 6, 4),
            "gradients must have shape (2, 5, 4, 6), not (2, 5, 6, 4)",
        ),
        ("xgradcam_weights", "gradients", (1, 5, 4, 6), "gradients must have shape (2, 5, 4, 6), not (1, 5, 4, 6)"),
        ("product_sum", "gradients", (2, 4, 4, 6), "gradients must have shape (2, 5, 4, 6), not (2, 4, 4, 6)"),
        ("multiply_by_map", "maps", (2, 6, 4), "maps must have shape (2, 4, 6), not (2, 6, 4)"),
        ("multiply_by_map", "maps", (1, 4, 6), "maps must have shape (2, 4, 6), not (1, 4, 6)"),
        ("gradient_rgb", "gradients", (2, 2, 4, 6), "gradients must have 1 or 3 channels, not shape (2, 2, 4, 6)"),
        ("gradient_rgb", "gradients", (2, 4, 4, 6), "gradients must have 1 or 3 channels, not shape (2, 4, 4, 6)"),
        ("overlay", "images", (2, 4, 6, 4), "images must have shape (N, H, W, 3), not (2, 4, 6, 4)"),
        ("overlay", "heatmaps", (2, 4, 7), "heatmaps must have shape (2, 4, 6), not (2, 4, 7)"),
        ("overlay", "palette", (255, 3), "palette must have shape (256, 3), not (255, 3)"),
        ("overlay", "palette", (256, 4), "palette must have shape (256, 3), not (256, 4)"),
        ("overlay_maps", "images", (2, 4, 6, 1), "images must have shape (N, H, W, 3), not (2, 4, 6, 1)"),
        ("overlay_maps", "maps", (3, 7, 6), "maps must be as many as images, 2, not 3"),
        ("overlay_maps", "palette", (3, 256), "palette must have shape (256, 3), not (3, 256)"),
    ],
)
def test_wrong_sizes_are_value_errors(kernel: str, name: str, shape: tuple[int, ...], message: str) -> None:
    with pytest.raises(ValueError) as error:
        call(kernel, with_argument(kernel, name, np.ones(shape, array(kernel, name).dtype)))
    assert str(error.value) == message


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_negative_number_of_threads_is_a_value_error(kernel: str) -> None:
    with pytest.raises(ValueError, match="^threads must be 0 or more, not -1$"):
        call(kernel, ARGUMENTS[kernel](2, 4, 6), threads=-1)


@pytest.mark.parametrize(("height", "width"), [(0, 4), (4, 0), (-1, 4), (4, -7)])
def test_upsampling_to_nothing_is_a_value_error(height: int, width: int) -> None:
    with pytest.raises(ValueError, match=rf"^height and width must be at least 1, not \({height}, {width}\)$"):
        _core.upsample(np.ones((1, 2, 2), np.float32), height, width)
    with pytest.raises(ValueError, match=rf"^height and width must be at least 1, not \({height}, {width}\)$"):
        _core.heatmaps(np.ones((1, 2, 2), np.float32), True, height, width)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_upsampling_beyond_any_memory_is_a_value_error(batch: int) -> None:
    with pytest.raises(ValueError, match="is larger than memory can be$"):
        _core.upsample(np.ones((batch, 2, 2), np.float32), 2**40, 2**40)


@pytest.mark.parametrize("kernel", ["overlay", "overlay_maps"])
@pytest.mark.parametrize("alpha", [-0.001, 1.001, float("nan"), float("inf"), -float("inf")])
def test_alpha_outside_0_to_1_is_a_value_error(kernel: str, alpha: float) -> None:
    with pytest.raises(ValueError, match=rf"^alpha must be in \[0, 1\], not {alpha}$"):
        call(kernel, with_argument(kernel, "alpha", alpha))


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_a_std_that_is_not_finite_and_positive_is_a_value_error(value: float) -> None:
    std = np.array([1.0, value, 1.0], np.float32)
    with pytest.raises(ValueError, match=f"^std must be finite and above 0, not {value} for channel 1$"):
        call("normalize", with_argument("normalize", "std", std))


@pytest.mark.parametrize("value", [float("nan"), -float("inf")])
def test_a_mean_that_is_not_finite_is_a_value_error(value: float) -> None:
    mean = np.array([0.5, 0.5, value], np.float32)
    with pytest.raises(ValueError, match=f"^mean must be finite, not {value} for channel 2$"):
        call("normalize", with_argument("normalize", "mean", mean))


@pytest.mark.parametrize("kernel", KERNELS)
def test_arguments_are_not_changed_and_the_result_shares_no_memory(kernel: str) -> None:
    arguments = ARGUMENTS[kernel](2, 4, 6)
    for value in arguments.values():
        if isinstance(value, np.ndarray):
            value.setflags(write=False)
    copies = {name: np.copy(value) for name, value in arguments.items()}
    result = call(kernel, arguments)
    assert result.flags.c_contiguous and result.flags.writeable and result.flags.owndata
    for name, value in arguments.items():
        np.testing.assert_array_equal(value, copies[name])
        assert not np.shares_memory(result, value)
