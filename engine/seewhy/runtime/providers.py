"""Choose onnxruntime's execution providers, and check that they start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

from seewhy._shared.text import brief, first_line
from seewhy.contract import constants as contract
from seewhy.errors import ArgumentError, ProviderError

# The functions import onnxruntime, because `ModelFile.read` imports it while a file is read.
if TYPE_CHECKING:
    import onnxruntime

Provider: TypeAlias = "str | tuple[str, Mapping[str, Any]]"

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

# Let cuDNN choose its convolution algorithms by heuristics. By default, onnxruntime makes it search, for each new batch
# size again.
_DEFAULTS: dict[str, dict[str, str]] = {
    CUDA: {"cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv_use_max_workspace": "1"}
}

DEVICE_MEMORY = {CUDA: ("cuda", "device_id")}
"""Providers with their own memory: onnxruntime's name of the memory, and the option with the number of the device."""

# Errors are reported by exceptions. At a lower level, onnxruntime also writes warnings to the terminal.
_LOG_FATAL_ONLY = 4


def session_options() -> onnxruntime.SessionOptions:
    """Return the session options that all sessions share."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _LOG_FATAL_ONLY
    # With memory patterns, onnxruntime allocates and keeps one more block of memory for each new batch size, and is not
    # faster. See docs/performance/threads-memory-providers.md.
    options.enable_mem_pattern = False
    return options


def start_session(
    model: str | bytes, options: onnxruntime.SessionOptions, providers: Sequence[tuple[str, dict[str, Any]]]
) -> onnxruntime.InferenceSession:
    """Start a session.

    Args:
        model: Path or bytes of the model.
        options: Options of the session.
        providers: Full names of the providers, and their options.

    Returns:
        The session.

    Raises:
        Exception: If onnxruntime cannot load the model or start a provider; its exceptions share no base class.
    """
    import onnxruntime

    session = onnxruntime.InferenceSession(model, options, providers=list(providers))
    # Otherwise onnxruntime silently replaces a provider that fails during a run by the CPU.
    session.disable_fallback()
    return session


def resolve_providers(providers: Sequence[Provider] | None) -> tuple[list[tuple[str, dict[str, Any]]], tuple[str, ...]]:
    """Resolve the execution providers to use.

    Args:
        providers: Names of providers, or pairs of a name and a dict of options. A name may be short (`cuda`) or full
            (`CUDAExecutionProvider`), in any case. None means CUDA if it is usable, or else the CPU.

    Returns:
        Full names and options of the requested providers, and the names of the providers that onnxruntime uses then.

    Raises:
        ArgumentError: If `providers` is empty.
        ProviderError: If a provider is not available, or does not start.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    if providers is None:
        requested: list[tuple[str, dict[str, Any]]] = [(CPU, {})]
        if CUDA in available:
            requested.insert(0, (CUDA, dict(_DEFAULTS[CUDA])))
        used = _started_providers(requested)
        return [pair for pair in requested if pair[0] in used], used
    if isinstance(providers, str):
        providers = [providers]
    requested = [parse_provider(provider, available) for provider in providers]
    if not requested:
        raise ArgumentError(f"no provider given; available here: {', '.join(available)}")
    names = [name for name, _ in requested]
    used = _started_providers(requested)
    if list(used[: len(names)]) != names:
        raise ProviderError(
            f"{', '.join(names)} did not start: onnxruntime fell back to {', '.join(used)}; check the driver and the "
            f"libraries that the provider needs"
        )
    return requested, used


def parse_provider(provider: Provider, available: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """Return the full name and the options of a provider."""
    name, options = (provider, {}) if isinstance(provider, str) else provider
    known = {key: full for full in available for key in (full.lower(), full.lower().removesuffix("executionprovider"))}
    if name.lower() not in known:
        raise ProviderError(f"provider {name!r} is not available in this onnxruntime; it has {', '.join(available)}")
    full = known[name.lower()]
    return full, {**_DEFAULTS.get(full, {}), **options}


def device_of(provider: str, options: Mapping[str, Any]) -> tuple[str, int] | None:
    """Return the device on which a provider keeps its values.

    Args:
        provider: Full name of the provider.
        options: Options of the provider.

    Returns:
        Kind of memory and number of the device, or None for the host's memory.

    Raises:
        ArgumentError: If the option with the number of the device is not a non-negative integer.
    """
    if provider not in DEVICE_MEMORY:
        return None
    kind, option = DEVICE_MEMORY[provider]
    number = str(options.get(option, 0))  # onnxruntime accepts an integer or a string
    if not (number.isascii() and number.isdecimal() and len(number) < 5):
        raise ArgumentError(f"{provider}: {option} must be a non-negative integer, not {brief(options[option])}")
    return kind, int(number)


def _started_providers(requested: Sequence[tuple[str, dict[str, Any]]]) -> tuple[str, ...]:
    """Start a session with a single node, and return the providers that it uses."""
    if requested == [(CPU, {})]:
        return (CPU,)  # part of every onnxruntime
    import onnx

    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["x"], ["y"])],
        "probe",
        [value("x", onnx.TensorProto.FLOAT, [1])],
        [value("y", onnx.TensorProto.FLOAT, [1])],
    )
    opset = onnx.helper.make_opsetid("", contract.OPSET)
    model = onnx.helper.make_model(graph, ir_version=contract.IR_VERSION, opset_imports=[opset])
    options = session_options()
    options.intra_op_num_threads = 1
    try:
        return tuple(start_session(model.SerializeToString(), options, requested).get_providers())
    except Exception as error:  # onnxruntime's exceptions share no base class
        names = ", ".join(name for name, _ in requested)
        raise ProviderError(f"{names} did not start: {first_line(error)}") from error
