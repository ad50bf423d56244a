"""onnxruntime sessions: which provider runs them, and a bounded cache of pruned graphs."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats
from seewhy._shared.checks import is_integer
from seewhy._shared.cpu_count import most_threads, usable_cores
from seewhy._shared.text import brief, first_line
from seewhy.contract import constants as contract
from seewhy.errors import ArgumentError, ModelFileError, ProviderError, SeewhyError
from seewhy.runtime import batch_splitting
from seewhy.runtime.device_binding import DeviceBinding
from seewhy.runtime.graph_pruning import prune
from seewhy.runtime.in_graph_maps import add_maps, sources
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.provider_workarounds import adapt
from seewhy.runtime.providers import CPU, Provider, device_of, resolve_providers, session_options, start_session

Outputs: TypeAlias = "dict[str, Floats]"
_Key: TypeAlias = "tuple[frozenset[str], tuple[str, ...], int]"
"""The outputs wanted, those that are given, and threads."""

# A call may take five: the plain run, the head, and passes of three kinds.
CACHED_SESSIONS = 8
"""Largest number of sessions that are kept."""
CACHED_BYTES = 2 * 2**30
"""Largest total of the kept sessions' weights, in bytes; the two sessions used last are kept in any case."""
# A plain run and what follows it.
_ALWAYS_CACHED = 2
# Outputs that a backward pass through the whole network makes.
_OF_THE_IMAGE = frozenset({contract.INPUT_GRADIENTS, contract.GUIDED_GRADIENTS, contract.DECONVNET_GRADIENTS})


@dataclass(frozen=True)
class _Cached:
    session: onnxruntime.InferenceSession
    outputs: tuple[str, ...]
    """Names; onnxruntime takes long to tell them."""
    inputs: tuple[str, ...]
    weights: int
    """Bytes."""
    bound: DeviceBinding | None
    """Where values lie on a device."""
    threads: int


def validate_threads(threads: Any) -> int | None:
    """Return a number of threads as an int, or None for one on each usable core.

    Raises:
        ArgumentError: If it is not an integer from 1 to `most_threads()`.
    """
    if threads is None:
        return None
    if not is_integer(threads) or not 1 <= threads <= most_threads():
        raise ArgumentError(
            f"threads must be an integer from 1 to {most_threads()} on this machine, not {brief(threads)}; leave it "
            f"out for one thread on each of the {usable_cores()} usable cores"
        )
    return int(threads)


class SessionCache:
    """Runs a model file for any set of its outputs. May be shared by threads.

    Attributes:
        providers: names of the execution providers in use, in order of preference.
        reduces: whether maps are best left to the graph (`in_graph_maps.py`), since its values lie on another device.
    """

    def __init__(self, model: ModelFile, providers: Sequence[Provider] | None, threads: int | None) -> None:
        """Settle on `providers`; None takes CUDA if usable, else the CPU. `threads` None is one for each usable core.

        Raises:
            ProviderError: a provider is unknown, not installed, or does not start.
        """
        self._model = model
        weights = model.proto.graph.initializer
        self._matrices = sum(_size(tensor) for tensor in weights if len(tensor.dims) == 2)
        self._small = sum(map(_size, weights)) <= batch_splitting.IN_CACHE
        # Always said, since onnxruntime's own choice looks past affinity and quotas; see `_shared/cpu_count.py`.
        self._threads = validate_threads(threads) or usable_cores()
        self._asked, self.providers = resolve_providers(providers)
        self._device = device_of(*self._asked[0])
        self.reduces = self._device is not None
        self._lock = threading.Lock()
        self._cache: OrderedDict[_Key, _Cached] = OrderedDict()

    def run(self, outputs: frozenset[str], feeds: Mapping[str, NDArray[Any]]) -> Outputs:
        """Return the named outputs for `feeds`: values of N rows by name.

        Outputs are those of the file, and maps of `in_graph_maps.py`. Besides the graph's inputs `images`
        (N,Cin,H,W) and `targets` (N,), feeds may be outputs of the file, such as `activations`: then the graph starts
        there, and `images` may be left out where nothing else needs them.

        Raises:
            ModelFileError: onnxruntime cannot load the graph, or it needs an input that is not among `feeds`.
            ProviderError: onnxruntime fails to run it, for lack of memory for instance.
        """
        given = tuple(name for name in contract.OUTPUTS if name in feeds)
        rows = len(next(iter(feeds.values())))
        cached = self._session((outputs, given, self._threads_for(outputs, given, rows)))
        names, inputs = cached.outputs, cached.inputs
        missing = [name for name in inputs if name not in feeds]
        if missing:
            raise ModelFileError(
                f"{self._model.path}: computing {', '.join(names)} needs {' and '.join(missing)} besides "
                f"{' and '.join(feeds)}, though the metadata says otherwise; export the network again"
            )
        run = cached.session.run if cached.bound is None else cached.bound.run

        def run_rows(part: slice) -> list[Floats]:
            values: list[Floats] = run(names, {name: feeds[name][part] for name in inputs})
            return values

        try:
            if cached.threads == 1 and self.providers[0] == CPU:
                small = self._small or not outputs.isdisjoint(_OF_THE_IMAGE)
                parts = batch_splitting.split_rows(rows, self._threads, self._matrices, small)
                results = batch_splitting.run_slices(run_rows, parts, self._threads)
                values = (
                    results[0] if len(parts) == 1 else [np.concatenate(found) for found in zip(*results, strict=True)]
                )
            else:
                values = run_rows(slice(None))
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ProviderError(
                f"{self._model.path}: onnxruntime failed on {rows} images with {self.providers[0]}: {first_line(error)}"
            ) from error
        return dict(zip(names, values, strict=True))

    def _threads_for(self, outputs: frozenset[str], given: tuple[str, ...], rows: int) -> int:
        """Threads of the session that `rows` images are best run by: 1 for pieces, or all.

        What is there already serves any number but 1: a session takes longer to make than it then saves.
        """
        if self.providers[0] != CPU or self._threads == 1 or rows == 1:
            return self._threads
        splits = batch_splitting.is_worth_splitting(rows, self._threads, self._matrices)
        best, other = (1, self._threads) if splits else (self._threads, 1)
        with self._lock:
            there = {key[2] for key in self._cache if key[:2] == (outputs, given)}
        return other if other in there and best not in there and best != 1 else best

    def _session(self, key: _Key) -> _Cached:
        with self._lock:
            cached = self._cache.get(key)
            if cached is None:
                cached = self._cache[key] = self._make(*key)
                while len(self._cache) > _ALWAYS_CACHED and self._too_much():
                    self._cache.popitem(last=False)
            self._cache.move_to_end(key)
            return cached

    def _too_much(self) -> bool:
        weights = sum(cached.weights for cached in self._cache.values())
        return len(self._cache) > CACHED_SESSIONS or weights > CACHED_BYTES

    def make(
        self, outputs: frozenset[str], adjust: Callable[[onnxruntime.SessionOptions], object]
    ) -> onnxruntime.InferenceSession:
        """A session for the outputs that stays out of the cache, with its options changed by `adjust`."""
        return self._make(outputs, (), self._threads, adjust).session

    def _make(
        self,
        outputs: frozenset[str],
        given: tuple[str, ...],
        threads: int,
        adjust: Callable[[onnxruntime.SessionOptions], object] | None = None,
    ) -> _Cached:
        needed = sources(outputs) - frozenset(given)
        # Copied into the graph they would be written out and read again, which takes longer than all the rest.
        external = self._model.weights
        weights: dict[str, NDArray[Any]] | None = {} if self.providers == (CPU,) or external else None
        wanted = [name for name in contract.OUTPUTS if name in needed]
        pruned = prune(self._model.proto, wanted, given, weights, external)
        add_maps(pruned, outputs)
        adapt(pruned, self.providers)
        options = session_options()
        options.intra_op_num_threads = threads
        if given:
            # What runs behind the target layer is short, and its threads would go on spinning beside what follows.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if weights:
            # onnxruntime copies them, and lets go of these when the session is there.
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(values) for values in weights.values()]
            options.add_external_initializers(list(weights), values)
        if adjust is not None:
            adjust(options)
        try:
            session = start_session(pruned, options, self._asked)
        except SeewhyError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ModelFileError(
                f"{self._model.path}: onnxruntime {onnxruntime.__version__} cannot load it: {first_line(error)}"
            ) from error
        if tuple(session.get_providers()) != self.providers:
            raise ProviderError(
                f"{self._model.path}: runs on {', '.join(session.get_providers())} instead of "
                f"{', '.join(self.providers)}; onnxruntime could not use the provider for this model"
            )
        bound = None if self._device is None else DeviceBinding(session, *self._device)
        names, inputs = (
            tuple(value.name for value in values) for values in (session.get_outputs(), session.get_inputs())
        )
        return _Cached(session, names, inputs, sum(map(_size, pruned.graph.initializer)), bound, threads)


def _size(tensor: onnx.TensorProto) -> int:
    """Bytes, wherever they are stored."""
    try:
        return int(math.prod(tensor.dims)) * onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    except KeyError:  # an unknown type, which onnxruntime will refuse
        return 0
