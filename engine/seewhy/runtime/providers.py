"""Choose, start and check the onnxruntime providers, with their options."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import onnx
import onnxruntime

from seewhy._shared.text import brief, first_line
from seewhy.contract import constants as contract
from seewhy.errors import ArgumentError, ProviderError

Provider: TypeAlias = "str | tuple[str, Mapping[str, Any]]"

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

# cuDNN's quick choice of a way to convolve: by default onnxruntime has it look longer, for each new batch size again.
_DEFAULTS: dict[str, dict[str, str]] = {
    CUDA: {"cudnn_conv_algo_search": "HEURISTIC", "cudnn_conv_use_max_workspace": "1"}
}

MEMORY = {CUDA: ("cuda", "device_id")}
"""Providers with memory of their own: onnxruntime's name of that memory, and the option that numbers the devices."""

# onnxruntime reports through exceptions what matters; at a lower level it also writes warnings to the terminal.
_LOG_FATAL_ONLY = 4


def session_options() -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.log_severity_level = _LOG_FATAL_ONLY
    # With it, each new batch size gets a plan and one more piece of memory for all of it, which is kept; and it is no
    # quicker. See docs/performance/threads-memory-providers.md.
    options.enable_mem_pattern = False
    return options


def start_session(
    model: onnx.ModelProto, options: onnxruntime.SessionOptions, providers: Sequence[tuple[str, dict[str, Any]]]
) -> onnxruntime.InferenceSession:
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=list(providers))
    # Without this, a provider that fails during a run is replaced by the CPU, quietly.
    session.disable_fallback()
    return session


def resolve_providers(providers: Sequence[Provider] | None) -> tuple[list[tuple[str, dict[str, Any]]], tuple[str, ...]]:
    """The (name, options) pairs to ask onnxruntime for, and the names that it then uses."""
    available = onnxruntime.get_available_providers()
    if providers is None:
        asked: list[tuple[str, dict[str, Any]]] = [(CPU, {})]
        if CUDA in available:
            asked.insert(0, (CUDA, dict(_DEFAULTS[CUDA])))
        used = _probe(asked)
        return [pair for pair in asked if pair[0] in used], used
    if isinstance(providers, str):
        providers = [providers]
    asked = [_parse(provider, available) for provider in providers]
    if not asked:
        raise ArgumentError(f"no provider given; available here: {', '.join(available)}")
    names = [name for name, _ in asked]
    used = _probe(asked)
    if list(used[: len(names)]) != names:
        raise ProviderError(
            f"{', '.join(names)} did not start: onnxruntime fell back to {', '.join(used)}; check the driver and the "
            f"libraries that the provider needs"
        )
    return asked, used


def _parse(provider: Provider, available: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """`"cuda"`, `"CUDAExecutionProvider"` or a pair of such a name and options -> (full name, options)."""
    name, options = (provider, {}) if isinstance(provider, str) else provider
    known = {key: full for full in available for key in (full.lower(), full.lower().removesuffix("executionprovider"))}
    if name.lower() not in known:
        raise ProviderError(f"provider {name!r} is not available in this onnxruntime; it has {', '.join(available)}")
    full = known[name.lower()]
    return full, {**_DEFAULTS.get(full, {}), **options}


def device_of(provider: str, options: Mapping[str, Any]) -> tuple[str, int] | None:
    """The kind of memory and the number of the device that a provider's values lie on; None for the host's memory."""
    if provider not in MEMORY:
        return None
    kind, option = MEMORY[provider]
    number = str(options.get(option, 0))  # onnxruntime takes either
    if not (number.isascii() and number.isdecimal() and len(number) < 5):
        raise ArgumentError(f"{provider}: {option} must be an integer from 0, not {brief(options[option])}")
    return kind, int(number)


def _probe(asked: Sequence[tuple[str, dict[str, Any]]]) -> tuple[str, ...]:
    """Start a session of one node, and return the providers that it really got."""
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
        return tuple(start_session(model, options, asked).get_providers())
    except Exception as error:  # onnxruntime's exceptions share no base class
        names = ", ".join(name for name, _ in asked)
        raise ProviderError(f"{names} did not start: {first_line(error)}") from error
