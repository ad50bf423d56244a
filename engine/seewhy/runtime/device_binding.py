"""Runs on a device with memory of its own: what goes there and what comes back.

onnxruntime's plain `run` allocates the outputs anew in every call. Here they are allocated on the device once for each
batch size, and a run copies each input there and each output back exactly once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

# Batches are all of one size but the last.
KEPT_SIZES = 2
"""Number of batch sizes whose outputs each thread keeps allocated."""


class DeviceBinding:
    """A session whose values lie on a device. May be shared by threads: each has outputs of its own."""

    def __init__(self, session: onnxruntime.InferenceSession, device: str, number: int) -> None:
        """`device` is onnxruntime's name of a kind of memory, such as `cuda` or `cpu`."""
        self._session = session
        self._device, self._number = device, number
        self._shapes = {value.name: tuple(value.shape) for value in session.get_outputs()}
        self._own = threading.local()

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """As the session's own `run`: arrays in the host's memory, which nothing else refers to."""
        binding = self._session.io_binding()
        # Kept here for as long as the run lasts: the binding does not own them.
        inputs = {
            name: onnxruntime.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), *self._place)
            for name, value in feeds.items()
        }
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        outputs = self._outputs(len(next(iter(feeds.values()))))
        for name in names:
            if name in outputs:
                binding.bind_ortvalue_output(name, outputs[name])
            else:
                binding.bind_output(name, *self._place)
        self._session.run_with_iobinding(binding)
        # On the CPU, numpy() is a view of memory that the next run writes to.
        return [np.array(value.numpy()) if self._device == "cpu" else value.numpy() for value in binding.get_outputs()]

    @property
    def _place(self) -> tuple[str, int]:
        return self._device, self._number

    def _outputs(self, rows: int) -> dict[str, onnxruntime.OrtValue]:
        """Memory for the outputs whose shape the file tells, for this many rows and the calling thread."""
        sizes: OrderedDict[int, dict[str, onnxruntime.OrtValue]] = self._own.__dict__.setdefault("sizes", OrderedDict())
        if rows not in sizes:
            while len(sizes) >= KEPT_SIZES:
                sizes.popitem(last=False)
            sizes[rows] = {
                name: onnxruntime.OrtValue.ortvalue_from_shape_and_type([rows, *rest], np.float32, *self._place)
                for name, (_, *rest) in self._shapes.items()
                if all(isinstance(length, int) for length in rest)
            }
        sizes.move_to_end(rows)
        return sizes[rows]
