"""Cache of onnxruntime sessions, each with a graph that is pruned to the requested outputs."""

from __future__ import annotations

import math
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.arrays import Floats
from seewhy._shared.checks import is_integer
from seewhy._shared.cpu_count import most_threads, usable_cores
from seewhy._shared.text import brief, first_line
from seewhy.contract import constants as contract
from seewhy.errors import ArgumentError, ModelFileError, ProviderError, SeewhyError
from seewhy.runtime import batch_splitting
from seewhy.runtime.device_binding import DeviceBinding
from seewhy.runtime.exact_products import make_products_exact
from seewhy.runtime.external_weights import DTYPES, refer_to
from seewhy.runtime.graph_pruning import prune
from seewhy.runtime.in_graph_maps import add_maps, file_outputs
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.model_stream import start_from
from seewhy.runtime.onnx_messages import TensorProto
from seewhy.runtime.provider_workarounds import apply_workarounds
from seewhy.runtime.providers import CPU, Provider, device_of, resolve_providers, session_options, start_session

if TYPE_CHECKING:
    import onnxruntime

Outputs: TypeAlias = "dict[str, Floats]"
Feeds: TypeAlias = "Mapping[str, NDArray[Any]]"
_Key: TypeAlias = "tuple[frozenset[str], tuple[str, ...], int]"
"""Requested outputs, outputs that are fed instead of computed, and number of threads."""

# onnxruntime names the pipe from which it reads a model, which means nothing to users.
_PIPE_IN_MESSAGE = re.compile(r"Load model from /dev/fd/\d+ failed: ?")

# One call may need five sessions: the plain run, the head, and the passes of three multi-pass methods. An evaluation
# also runs each method alone, and the methods have eight sets of outputs.
CACHED_SESSIONS = 16
"""Maximum number of sessions in the cache."""
CACHED_BYTES = 2 * 2**30
"""Maximum total size of the cached sessions' weights, in bytes. The two sessions used last are always kept."""
# The plain run, and the run that follows it.
_ALWAYS_CACHED = 2
# A program runs the same few batch sizes again and again.
_MAX_PLANS = 1000


@dataclass(frozen=True)
class CachedSession:
    """Session in the cache."""

    session: onnxruntime.InferenceSession
    outputs: tuple[str, ...]
    """Names of the outputs. They are stored because onnxruntime is slow to return them."""
    inputs: tuple[str, ...]
    """Names of the inputs."""
    weight_bytes: int
    """Size of the weights, in bytes."""
    binding: DeviceBinding | None
    """Binding to a device, or None if values are in the host's memory."""


@dataclass(frozen=True)
class RunPlan:
    """Session and sub-batches for many rows."""

    session: CachedSession
    """The session. The plan keeps it alive."""
    callers: int
    """Number of threads that call the session at the same time."""
    sub_batches: list[slice]
    """Rows of each sub-batch."""
    key: _Key
    """Key of the session in the cache."""


def validate_threads(threads: Any) -> int | None:
    """Validate a number of threads.

    Args:
        threads: Number of threads, or None for one per usable core.

    Returns:
        The number as an int, or None.

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
    """Sessions that compute any set of outputs of a model file. Threads may share the cache.

    Attributes:
        providers: Names of the execution providers in use, in order of preference.
        maps_in_graph: True if the graph should compute maps (`in_graph_maps.py`), because its values are on a device.
        created: Number of sessions that were created so far.
    """

    def __init__(
        self, model: ModelFile, providers: Sequence[Provider] | None, threads: int | None, keeps_memory: bool = True
    ) -> None:
        """Resolve the providers. Sessions are created when they are first needed.

        Args:
            model: The model file.
            providers: Providers as `resolve_providers` takes them. None means CUDA if it is usable, or else the CPU.
            threads: Number of threads, or None for one per usable core.
            keeps_memory: Whether each session on the CPU keeps the memory of its largest run for the next one.

        Raises:
            ArgumentError: If the number of threads is out of range, or `providers` is empty.
            ProviderError: If a provider is not available, or does not start.
        """
        self._model = model
        weights = model.proto.graph.initializer
        self._matrix_bytes = sum(_size(tensor) for tensor in weights if len(tensor.dims) == 2)
        self._small = sum(map(_size, weights)) <= batch_splitting.CACHED_WEIGHT_BYTES
        # onnxruntime's default ignores affinity and quotas, so the number is always set; see `_shared/cpu_count.py`.
        self._threads = validate_threads(threads) or usable_cores()
        self._keeps_memory = keeps_memory
        self._requested, self.providers = resolve_providers(providers)
        self._device = device_of(*self._requested[0])
        self.maps_in_graph = self._device is not None
        self._lock = threading.Lock()
        self._cache: OrderedDict[_Key, CachedSession] = OrderedDict()
        # Plans depend on the sessions in the cache, so they are forgotten when these change.
        self._plans: dict[tuple[Any, ...], RunPlan] = {}
        self.created = 0

    def run(self, outputs: frozenset[str], feeds: Mapping[str, NDArray[Any]]) -> Outputs:
        """Compute outputs of the graph.

        Args:
            outputs: Names of outputs of the file, or of maps of `in_graph_maps.py`.
            feeds: Values of N rows by name: the inputs `images` (N, Cin, H, W) and `targets` (N,), or outputs of the
                file, such as `activations`. Then the graph starts at these outputs, and `images` may be left out if
                nothing else needs them.

        Returns:
            The outputs by name, float32 with N rows each.

        Raises:
            ModelFileError: If onnxruntime cannot load the graph, or an input is missing in `feeds`.
            ProviderError: If onnxruntime fails to run the graph, for example for lack of memory.
        """
        plan = self.plan(outputs, feeds.keys(), len(next(iter(feeds.values()))))
        results: list[Outputs] = []

        def run(sub_batch: slice) -> Outputs:
            return self.run_planned(plan, {name: value[sub_batch] for name, value in feeds.items()})

        batch_splitting.run_sub_batches(run, plan.sub_batches, plan.callers, lambda _, found: results.append(found))
        if len(results) == 1:
            return results[0]
        return {name: np.concatenate([found[name] for found in results]) for name in plan.session.outputs}

    def plan(
        self, outputs: frozenset[str], given: Collection[str], rows: int, batch_size: int | None = None
    ) -> RunPlan:
        """Plan how to compute outputs of the graph for many rows.

        Args:
            outputs: As in `run`.
            given: Names of the values that the graph starts from.
            rows: Number of rows, at least 1.
            batch_size: Maximum number of rows that run at the same time; None is all rows.

        Returns:
            The plan, with the session that serves it.

        Raises:
            ModelFileError: If onnxruntime cannot load the graph, or it needs an input that is not in `given`.
        """
        request = (outputs, *given, rows, batch_size)
        with self._lock:
            known = self._plans.get(request)
            if known is not None:
                self._cache.move_to_end(known.key)
                return known
        at_once = rows if batch_size is None else min(rows, batch_size)
        starts = tuple(name for name in contract.OUTPUTS if name in given)
        threads = self._threads_for(outputs, starts, at_once)
        key = (outputs, starts, threads)
        session = self._session(key)
        missing = [name for name in session.inputs if name not in given]
        if missing:
            raise ModelFileError(
                f"{self._model.name}: computing {', '.join(session.outputs)} needs {' and '.join(missing)} besides "
                f"{' and '.join(given)}, although the metadata says otherwise; export the network again"
            )
        callers, largest = 1, at_once
        if threads == 1 and self.providers[0] == CPU:
            callers = min(self._threads, at_once)
            # A head mostly reads its weights, so its sub-batches should be large.
            small = not starts and (self._small or not outputs.isdisjoint(contract.GRADIENTS_OF_THE_IMAGE))
            largest = batch_splitting.largest_sub_batch(at_once, callers, self._matrix_bytes, small)
        sub_batches = batch_splitting.split_batch(rows, callers, largest)
        plan = RunPlan(session, min(callers, len(sub_batches)), sub_batches, key)
        with self._lock:
            if self._cache.get(key) is session and len(self._plans) < _MAX_PLANS:
                self._plans[request] = plan
        return plan

    def run_planned(self, plan: RunPlan, feeds: Mapping[str, NDArray[Any]]) -> Outputs:
        """Compute the outputs of a plan for one of its sub-batches. Threads may share the plan.

        Args:
            plan: The plan.
            feeds: Values of the rows of the sub-batch by name.

        Returns:
            The outputs by name.

        Raises:
            ProviderError: If onnxruntime fails to run the graph.
        """
        session = plan.session
        run = session.session.run if session.binding is None else session.binding.run
        try:
            values = run(session.outputs, {name: feeds[name] for name in session.inputs})
        except Exception as error:  # onnxruntime's exceptions share no base class
            rows = len(next(iter(feeds.values())))
            raise ProviderError(
                f"{self._model.name}: onnxruntime failed on {rows} images with {self.providers[0]}: {first_line(error)}"
            ) from error
        return dict(zip(session.outputs, values, strict=True))

    def prepare(self, outputs: frozenset[str], rows: int) -> None:
        """Create the session that computes outputs from images, so that a later run need not wait for it.

        Args:
            outputs: As in `run`.
            rows: Number of images of the run.

        Raises:
            ModelFileError: If onnxruntime cannot load the graph.
            ProviderError: If the session does not use the providers.
        """
        self._session((outputs, (), self._threads_for(outputs, (), rows)))

    def _threads_for(self, outputs: frozenset[str], given: tuple[str, ...], rows: int) -> int:
        """Return the number of threads of the best session for a batch: 1 for sub-batches, or all threads.

        An existing session with the other number is used instead, unless that is worth a split: creating a session
        takes longer than it saves.
        """
        if self.providers[0] != CPU or self._threads == 1 or rows == 1:
            return self._threads
        splits = batch_splitting.is_worth_splitting(rows, self._threads, self._matrix_bytes)
        best, other = (1, self._threads) if splits else (self._threads, 1)
        with self._lock:
            existing = {key[2] for key in self._cache if key[:2] == (outputs, given)}
        return other if other in existing and best not in existing and best != 1 else best

    def _session(self, key: _Key) -> CachedSession:
        """Return a session from the cache, creating it if necessary."""
        with self._lock:
            cached = self._cache.get(key)
            if cached is None:
                cached = self._cache[key] = self._create(*key)
                self._plans.clear()
                self.created += 1
                while len(self._cache) > _ALWAYS_CACHED and self._exceeds_limits():
                    self._cache.popitem(last=False)
            self._cache.move_to_end(key)
            return cached

    @property
    def weight_bytes(self) -> int:
        """Total size of the weights of all cached sessions, in bytes."""
        with self._lock:
            return self._total()

    def clear(self) -> None:
        """Forget all sessions. Those that run are freed at the end of their run."""
        with self._lock:
            self._cache.clear()
            self._plans.clear()

    def _total(self) -> int:
        return sum(cached.weight_bytes for cached in self._cache.values())

    def _exceeds_limits(self) -> bool:
        """Return True if the cache holds too many sessions, or too large ones."""
        return len(self._cache) > CACHED_SESSIONS or self._total() > CACHED_BYTES

    def create_session(
        self, outputs: frozenset[str], adjust: Callable[[onnxruntime.SessionOptions], object]
    ) -> onnxruntime.InferenceSession:
        """Create a session that is not kept in the cache.

        Args:
            outputs: Names of the outputs.
            adjust: Function that changes the options of the session.

        Returns:
            The session.

        Raises:
            ModelFileError: If onnxruntime cannot load the graph.
            ProviderError: If the session does not use the providers.
        """
        return self._create(outputs, (), self._threads, adjust).session

    def _create(
        self,
        outputs: frozenset[str],
        given: tuple[str, ...],
        threads: int,
        adjust: Callable[[onnxruntime.SessionOptions], object] | None = None,
    ) -> CachedSession:
        """Create a session."""
        import onnxruntime  # imported late, see `ModelFile.read`

        needed = file_outputs(outputs) - frozenset(given)
        kept = [name for name in contract.OUTPUTS if name in needed]
        pruned = prune(self._model.proto, kept, given)
        weight_bytes = sum(map(_size, pruned.graph.initializer))
        add_maps(pruned, outputs)
        apply_workarounds(pruned, self.providers)
        options = session_options()
        options.intra_op_num_threads = threads
        options.enable_cpu_mem_arena = self._keeps_memory
        make_products_exact(options, pruned.graph)
        if given:
            # The head runs only briefly, and its spinning threads would slow down what follows.
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        replaced = refer_to(pruned, self._model.weights)
        if replaced:
            # onnxruntime copies the values and releases these references when the session is created.
            values = [onnxruntime.OrtValue.ortvalue_from_numpy(self._model.weights[name]) for name in replaced]
            options.add_external_initializers(replaced, values)
        if adjust is not None:
            adjust(options)
        try:
            by_pipe = self.providers == (CPU,)
            session = start_from(
                pruned, self._model.stored, lambda source: start_session(source, options, self._requested), by_pipe
            )
        except SeewhyError:
            raise
        except Exception as error:  # onnxruntime's exceptions share no base class
            raise ModelFileError(
                f"{self._model.name}: onnxruntime {onnxruntime.__version__} cannot load it: "
                f"{_PIPE_IN_MESSAGE.sub('', first_line(error))}"
            ) from error
        if tuple(session.get_providers()) != self.providers:
            raise ProviderError(
                f"{self._model.name}: runs on {', '.join(session.get_providers())} instead of "
                f"{', '.join(self.providers)}; onnxruntime could not use the provider for this model"
            )
        binding = None if self._device is None else DeviceBinding(session, *self._device)
        names, inputs = (
            tuple(value.name for value in values) for values in (session.get_outputs(), session.get_inputs())
        )
        return CachedSession(session, names, inputs, weight_bytes, binding)


def _size(tensor: TensorProto) -> int:
    """Return the size of a tensor in bytes, inside or outside the model file."""
    try:
        return int(math.prod(tensor.dims)) * DTYPES[tensor.data_type].itemsize
    except KeyError:  # a rare or unknown type
        return 0
