"""Run sessions on a device with its own memory.

onnxruntime's plain `run` allocates the outputs in every call. Here they are allocated on the device once per batch
size, and a run copies each input to the device and each output back exactly once.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import onnxruntime

# All batches but the last have the same size.
KEPT_SIZES = 2
"""Number of batch sizes whose outputs each thread keeps allocated."""


class DeviceBinding:
    """Session whose values are on a device. Threads may share it: each thread has its own outputs."""

    def __init__(self, session: onnxruntime.InferenceSession, device: str, number: int) -> None:
        """Bind a session to a device.

        Args:
            session: The session.
            device: onnxruntime's name of the kind of memory, such as `cuda` or `cpu`.
            number: Number of the device.
        """
        self._session = session
        self._device, self._number = device, number
        self._shapes = {value.name: tuple(value.shape) for value in session.get_outputs()}
        self._per_thread = threading.local()

    def run(self, names: Sequence[str], feeds: Mapping[str, NDArray[Any]]) -> list[NDArray[Any]]:
        """Compute outputs, as the session's own `run` does.

        Args:
            names: Names of the outputs.
            feeds: Inputs by name.

        Returns:
            The outputs in the host's memory. The arrays belong to the caller.
        """
        from onnxruntime import OrtValue  # imported late, see `ModelFile.read`

        binding = self._session.io_binding()
        # Keep a reference during the run, because the binding does not own its inputs.
        inputs = {
            name: OrtValue.ortvalue_from_numpy(np.ascontiguousarray(value), *self._location)
            for name, value in feeds.items()
        }
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        outputs = self._outputs(len(next(iter(feeds.values()))))
        for name in names:
            if name in outputs:
                binding.bind_ortvalue_output(name, outputs[name])
            else:
                binding.bind_output(name, *self._location)
        self._session.run_with_iobinding(binding)
        # On the CPU, numpy() returns a view of memory that the next run overwrites.
        return [np.array(value.numpy()) if self._device == "cpu" else value.numpy() for value in binding.get_outputs()]

    @property
    def _location(self) -> tuple[str, int]:
        """Kind of memory and number of the device."""
        return self._device, self._number

    def _outputs(self, rows: int) -> dict[str, onnxruntime.OrtValue]:
        """Return memory on the device, for this thread and number of rows, for the outputs with a known shape."""
        sizes: OrderedDict[int, dict[str, onnxruntime.OrtValue]] = self._per_thread.__dict__.setdefault(
            "sizes", OrderedDict()
        )
        if rows not in sizes:
            while len(sizes) >= KEPT_SIZES:
                sizes.popitem(last=False)
            from onnxruntime import OrtValue

            sizes[rows] = {
                name: OrtValue.ortvalue_from_shape_and_type([rows, *rest], np.float32, *self._location)
                for name, (_, *rest) in self._shapes.items()
                if all(isinstance(length, int) for length in rest)
            }
        sizes.move_to_end(rows)
        return sizes[rows]
