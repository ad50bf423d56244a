"""Time of each operator type and part of the graph, from onnxruntime's profile."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from seewhy.bench.protocol import FORWARD, BenchCase, WorkerTask
from seewhy.contract.constants import IMAGES, LOGITS, PREDICTED, TARGETS
from seewhy.errors import SeewhyError
from seewhy.methods.registry import METHODS
from seewhy.runtime.graph_pruning import needed_nodes
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.sessions import SessionCache

_RUNS = 3
_SUFFIX = "_kernel_time"
# Weights of the optimised graph are written to a file beside it, because the graph file may have at most 2 GiB.
_WEIGHTS = "weights.bin"


def measure(task: WorkerTask, send: Callable[[dict[str, Any]], object]) -> None:
    """Measure the operators of each case.

    Args:
        task: The task.
        send: Function that sends a message: the operators of a case, those that take longest first, or an error.
    """
    model = ModelFile.read(task.path, verify=False)
    task.check(model)
    data = model.metadata
    shape = (task.batch, data.channels, *data.image_size)
    images = np.random.default_rng(0).standard_normal(shape, np.float32)
    feeds = {IMAGES: images, TARGETS: np.full(task.batch, PREDICTED, np.int64)}
    for number, case in enumerate(task.cases):
        try:
            operators = _profile(SessionCache(model, task.providers, case.threads), case, feeds)
        except (SeewhyError, MemoryError) as error:
            send({"case": number, "error": str(error)})
        else:
            send({"case": number, "operators": operators})


def _profile(sessions: SessionCache, case: BenchCase, feeds: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Run a case with onnxruntime's profiler, and return its operators."""
    outputs = frozenset({LOGITS} if case.method == FORWARD else {LOGITS, *METHODS[case.method].outputs})
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder) / "optimised.onnx"

        def adjust(options: onnxruntime.SessionOptions) -> None:
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "profile")
            options.optimized_model_filepath = str(graph)
            options.add_session_config_entry("session.optimized_model_external_initializers_file_name", _WEIGHTS)
            options.add_session_config_entry("session.optimized_model_external_initializers_min_size_in_bytes", "1024")

        session = sessions.create_session(outputs, adjust)
        inputs = {value.name: feeds[value.name] for value in session.get_inputs()}
        for _ in range(_RUNS + 1):
            session.run(None, inputs)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        parts = _parts(onnx.load(graph, load_external_data=False).graph)
    return sum_by_type(events, parts)


def _parts(graph: onnx.GraphProto) -> dict[str, str]:
    """Return the part of each operator of the optimised graph: `forward` if the logits need it, or else `backward`."""
    forward = {node.name for node in needed_nodes(graph.node, [LOGITS])[0]}
    return {node.name: "forward" if node.name in forward else "backward" for node in graph.node if node.name}


def sum_by_type(events: Iterable[Mapping[str, Any]], parts: Mapping[str, str]) -> list[dict[str, Any]]:
    """Sum the times of operators by part and type.

    The time of an operator is the median over all runs but the first, because a run may be interrupted.

    Args:
        events: Events of onnxruntime's profile.
        parts: Part of each operator by its name.

    Returns:
        Dicts with part, type, count, milliseconds and share (0 to 1), those that take longest first.
    """
    times: dict[tuple[str, str], list[float]] = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith(_SUFFIX):
            name = event["name"].removesuffix(_SUFFIX)
            times.setdefault((name, event["args"]["op_name"]), []).append(event["dur"] / 1000)
    sums: dict[tuple[str, str], list[float]] = {}
    for (name, kind), durations in times.items():
        sums.setdefault((parts.get(name, "unknown"), kind), []).append(float(np.median(durations[1:] or durations)))
    total = sum(map(sum, sums.values())) or 1.0
    rows = [
        {"part": part, "type": kind, "count": len(found), "milliseconds": sum(found), "share": sum(found) / total}
        for (part, kind), found in sums.items()
    ]
    return sorted(rows, key=lambda row: -row["milliseconds"])
