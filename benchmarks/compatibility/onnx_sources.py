"""Write classifiers to ONNX as people do, take the files as sources, and write docs/onnx-source.md.

    python benchmarks/compatibility/onnx_sources.py               all of them, from scratch (an hour on two cores)
    python benchmarks/compatibility/onnx_sources.py --missing     those without a result yet
    python benchmarks/compatibility/onnx_sources.py --only swin   those whose name holds this, again
    python benchmarks/compatibility/onnx_sources.py --peers       what onnx2torch and onnx2pytorch make of the files
    python benchmarks/compatibility/onnx_sources.py --table       the page alone, from the results

Each network has live random weights (tests/export/networks.py). PyTorch's two exporters write it, for one image at a
time and for any number. Each file is converted, compared with onnxruntime, and traced for any number of images. One
of each network is exported and held to PyTorch's autograd in float64, and its logits to those of the first file.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import platform
import subprocess
import sys
import tempfile
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "onnx_sources.json"
PAGE = ROOT / "docs" / "onnx-source.md"
SECONDS = 1800

NETWORKS = """
    torchvision:squeezenet1_1 torchvision:mobilenet_v2 torchvision:mobilenet_v3_small torchvision:shufflenet_v2_x0_5
    torchvision:mnasnet0_5 torchvision:resnet18 torchvision:efficientnet_b0 torchvision:convnext_tiny
    torchvision:swin_t timm:deit_tiny_patch16_224 timm:edgenext_xx_small timm:mobilevit_xxs
""".split()

# (exporter, opset, whether the file takes any number of images). The last one is held to autograd as well.
WAYS = (("script", 11, False), ("script", 17, True), ("dynamo", 20, True), ("dynamo", 18, False))

PEERS = ("onnx2torch", "onnx2pytorch")


def write(spec: str, way: tuple[str, int, bool], path: Path) -> tuple[int, int]:
    """Write the network to `path`, and return its image size."""
    import torch

    sys.path.insert(0, str(ROOT / "tests" / "export"))
    from networks import live_weights, torchvision_network

    source, _, name = spec.partition(":")
    if source == "torchvision":
        network, size = torchvision_network(name), (224, 224)
    else:
        import timm

        network = live_weights(timm.create_model(name, pretrained=False)).eval()
        size = tuple(network.pretrained_cfg["input_size"][1:])
    exporter, opset, free = way
    # A batch of one is a constant for torch.export.
    images = torch.zeros(2 if free and exporter == "dynamo" else 1, 3, *size)
    options: dict[str, Any] = {"opset_version": opset, "dynamo": exporter == "dynamo"}
    if exporter == "dynamo":
        options |= {"verbose": False, "external_data": False}
        options |= {"dynamic_shapes": ({0: torch.export.Dim.DYNAMIC},)} if free else {}
    else:
        options |= {"input_names": ["input"], "output_names": ["output"]}
        options |= {"dynamic_axes": {"input": {0: "N"}, "output": {0: "N"}}} if free else {}
    torch.onnx.export(network, (images,), path, **options)
    return size


def take(spec: str, way: tuple[str, int, bool]) -> dict[str, Any]:
    """What becomes of one network, written in one way."""
    import numpy as np
    import onnx
    import onnxruntime
    import torch

    from seewhy.errors import SeewhyError
    from seewhy_export import export
    from seewhy_export.capture.forward_graph import trace_forward
    from seewhy_export.capture.module_preparation import prepare
    from seewhy_export.sources.registry import load_source

    torch.set_num_threads(1)
    record: dict[str, Any] = {"versions": versions()}
    with tempfile.TemporaryDirectory() as folder:
        path, exported = Path(folder) / "model.onnx", Path(folder) / "exported.onnx"
        try:
            size = write(spec, way, path)
        except Exception as error:  # noqa: BLE001  whatever PyTorch's exporter stumbles over is a result
            return {**record, "unwritten": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
        graph = onnx.load(path, load_external_data=False).graph
        record["nodes"], record["operators"] = len(graph.node), sorted({node.op_type for node in graph.node})
        try:
            source = load_source(str(path))
            record["conversion"] = float(source.notes[0].rpartition("by ")[2].split()[0])
            if way != WAYS[-1]:
                trace_forward(prepare(source.module), source.image_size, source.channels or 3, None)
                return {**record, "traced": True}
            report = export(
                source.module,
                exported,
                image_size=source.image_size,
                channels=source.channels,
            )
        except SeewhyError as error:
            return {**record, "refused": str(error).replace(f"{path}: ", "")}
        record["layer"], record["rectifiers"] = report.layer, dict(report.rectifiers.kinds)
        kinds = [kind for kinds in report.parity.values() for kind in kinds.values() if kind["error"] is not None]
        worst = max(kinds, key=lambda kind: kind["error"] or 0.0, default=None)
        record["worst"] = None if worst is None else [worst["error"], worst["torch_float32"]]
        images = np.random.default_rng(1).standard_normal((3, 3, *size)).astype(np.float32)
        first, second = (
            onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"]) for file in (path, exported)
        )
        name = first.get_inputs()[0].name
        # One at a time, which every file takes.
        theirs = np.concatenate([first.run(None, {name: image[None]})[0] for image in images])
        ours = second.run(["logits"], {"images": images, "targets": np.full(3, -1)})[0]
        record["file"] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return record


def try_peers(spec: str, way: tuple[str, int, bool]) -> dict[str, str]:
    """Whether other converters' modules can be traced for any number of images."""
    import torch

    from seewhy_export.sources.torchvision_import import import_torchvision

    import_torchvision()
    torch.set_num_threads(1)
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            size = write(spec, way, path)
        except Exception:  # noqa: BLE001  as above
            return {}
        for peer in PEERS:
            try:
                module = converters()[peer](path)
            except Exception as error:  # noqa: BLE001  any failure of theirs is the result
                found[peer] = f"does not convert: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
                continue
            try:
                shapes = ({0: torch.export.Dim.DYNAMIC},)
                torch.export.export(module, (torch.zeros(2, 3, *size),), dynamic_shapes=shapes, strict=False)
                found[peer] = "traces"
            except Exception as error:  # noqa: BLE001  as above
                found[peer] = f"cannot be traced: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
    return found


def converters() -> dict[str, Callable[[Path], Any]]:
    import onnx
    from torch import nn

    def onnx2torch(path: Path) -> nn.Module:
        from onnx2torch import convert

        return convert(path).eval()

    class One(nn.Module):
        """Theirs takes any arguments, which torch.export cannot see through."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, images: Any) -> Any:
            return self.module(images)

    def onnx2pytorch(path: Path) -> nn.Module:
        from onnx2pytorch import ConvertModel

        return One(ConvertModel(onnx.load(path))).eval()

    return {"onnx2torch": onnx2torch, "onnx2pytorch": onnx2pytorch}


def versions() -> dict[str, str]:
    packages = ("seewhy", "torch", "torchvision", "timm", "onnx", "onnxruntime")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


def peer_versions() -> dict[str, str]:
    found = {}
    for peer in PEERS:
        try:
            found[peer] = version(peer)
        except PackageNotFoundError:
            module = __import__(peer)
            found[peer] = str(getattr(module, "__version__", "of unknown version"))
    return found


def in_own_process(arguments: list[str]) -> dict[str, Any]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"longer than {SECONDS} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:200]}
    return json.loads(lines[-1])


def label(spec: str, way: tuple[str, int, bool]) -> str:
    exporter, opset, free = way
    return f"{spec} {exporter} {opset} {'any' if free else 'one'}"


def read_results() -> dict[str, dict[str, Any]]:
    return json.loads(RESULTS.read_text()) if RESULTS.exists() else {}


def save(key: str, record: dict[str, Any]) -> None:
    results = {**read_results(), key: record}
    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    RESULTS.write_text(json.dumps(dict(sorted(results.items())), indent=1) + "\n")


HEAD = """# ONNX files as sources

    seewhy export model.onnx --labels labels.txt --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225

is for networks whose PyTorch source nobody has. The graph becomes a PyTorch module, of one child a node, which goes the
way of every other source. Before that its output is compared with what onnxruntime computes from the file, on noise
and on a picture with large areas of one value: relative L2 error at most 1e-4, or four times PyTorch's own float32
error where that is more (2e-2 for a file in half precision), on one of five draws. Labels and preprocessing are not in
such a file, so flags say them.

What is taken: opsets {opsets}, one input of images (N, C, H, W) or (N, H, W, C) in floating point, weights in the
file or beside it. `--head` chooses among several outputs, or names a value inside the graph; `--size` says what a file
leaves open; `--layer` takes a node's name, a value's, or the module path that `seewhy` prints. Where the file is for a
fixed number of images, the exported one is for any: shapes that hold the file's own batch get the real one back. A
score at the end (softmax, sigmoid) is taken off as usual. Clip from 0 to 6 counts as ReLU6.

What is refused, by the names of operator and node: control flow (If, Loop, Scan), quantised arithmetic
(QuantizeLinear, QLinearConv, ...; weights that are only stored in eight bits are fine), operators of other domains
(com.microsoft, which onnxruntime writes into files that it has optimised), random numbers, shapes that depend on
pixels, and sizes of more than 64 bits.

These operators are converted:

{operators}

## What was tried

Written by `python benchmarks/compatibility/onnx_sources.py`, not by hand: networks with random weights that leave no
branch switched off, written by PyTorch's TorchScript exporter (`script`) and its present one (`dynamo`), for one image
at a time or for any number. *Conversion* is the relative L2 difference of the converted network's output from
onnxruntime's. Every file was then traced for any number of images, which is the exporter's first step, and one of each
network was exported: *logits* is the difference of the exported file's logits, for three images at once, from those of
the file that it came from, and *gradients* the largest error of any output against PyTorch's autograd in float64, with
PyTorch's own float32 error in brackets where it was needed ([semantics.md](semantics.md#parity) says what it is for).

{summary}

| network | written by | opset | batch | nodes | conversion | then | logits | gradients |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""

TAIL = """
## Other converters

The converters on PyPI were tried first, on the same files. What matters here is whether `torch.export` can trace what
they make, for any number of images.

| converter | files | converted | of these, traced | what stops it most often |
| --- | --- | --- | --- | --- |
{rows}
Neither was built to be traced: a shape that is an input of a node is a tensor there, whose numbers a trace does not
know. Here such values are kept apart from tensors, with symbolic sizes in them (`onnx_import/values.py`).
"""


def page(results: dict[str, dict[str, Any]]) -> str:
    sys.path[:0] = [str(ROOT / "export"), str(ROOT / "engine")]
    from seewhy_export.sources.onnx_import.file_reading import OLDEST_OPSET
    from seewhy_export.sources.onnx_import.graph_module import OPERATORS
    from seewhy_export.sources.onnx_import.shape_arithmetic import KNOWN

    names = [f"`{name}`" for name in sorted({*OPERATORS, *KNOWN, "Constant"} - {"Linear"})]
    text = HEAD.format(
        opsets=f"{OLDEST_OPSET} and later",
        operators=textwrap.fill(" ".join(names), 120),
        summary=summary(results),
    )
    for spec in NETWORKS:
        for way in WAYS:
            text += row(spec, way, results.get(label(spec, way), {})) + "\n"
    return text + peers(results)


def summary(results: dict[str, dict[str, Any]]) -> str:
    records = [results.get(label(spec, way), {}) for spec in NETWORKS for way in WAYS]
    written = [record for record in records if record and "unwritten" not in record]
    good = sum("file" in record or "traced" in record for record in written)
    refused = sum("refused" in record for record in written)
    of = next((record["versions"] for record in written if "versions" in record), {})
    names = ", ".join(f"{name} {number}" for name, number in of.items())
    missing = sum(not record for record in records)
    text = (
        f"Of {len(written)} files that PyTorch could write, {good} were taken and {refused} refused"
        + (f"; {missing} were not tried" if missing else "")
        + f". With {names}."
    )
    return textwrap.fill(text, 120, break_on_hyphens=False)


def row(spec: str, way: tuple[str, int, bool], record: dict[str, Any]) -> str:
    exporter, opset, free = way
    cells = [spec, exporter, str(opset), "any" if free else "one", str(record.get("nodes", "")), *outcome(record)]
    return "| " + " | ".join(cells) + " |"


def outcome(record: dict[str, Any]) -> list[str]:
    """Conversion, what came then, logits, gradients; or what stopped it."""
    for key, told in (("unwritten", "PyTorch does not write it"), ("refused", "refused"), ("failed", "failed")):
        if key in record:
            reason = record[key].replace("|", "/")
            return [f"{told}: {reason}", "", "", ""]
    if not record:
        return ["not tried", "", "", ""]
    if "file" not in record:
        return [f"{record['conversion']:.1e}", "traced", "", ""]
    return [f"{record['conversion']:.1e}", "exported", f"{record['file']:.1e}", gradients(record["worst"])]


def gradients(worst: list[float | None] | None) -> str:
    if worst is None:
        return ""
    own = "" if worst[1] is None else f" ({worst[1]:.1e})"
    return f"{worst[0]:.1e}{own}"


def peers(results: dict[str, dict[str, Any]]) -> str:
    tried = {key.removeprefix("peers "): record for key, record in results.items() if key.startswith("peers ")}
    numbers = tried.pop("versions", {})
    if not tried:
        return ""
    rows = ""
    for peer in PEERS:
        told = [record[peer] for record in tried.values() if peer in record]
        traced = sum(text == "traces" for text in told)
        converted = sum(not text.startswith("does not convert") for text in told)
        reasons = Counter(reason(text) for text in told if text != "traces").most_common(2)
        listed = "; ".join(f"{text} ({count})" for text, count in reasons)
        rows += f"| {peer} {numbers.get(peer, '')} | {len(told)} | {converted} | {traced} | {listed} |\n"
    return TAIL.format(rows=rows)


def reason(text: str) -> str:
    """A failure without what differs from file to file."""
    if "operation_type=" in text:
        operator, number = text.partition("operation_type='")[2].split("', version=")
        return f"no {operator} of opset {number.rstrip(')')}"
    if "data-dependent" in text:
        return "a shape that depends on data"
    return text.partition(": ")[2].split(":")[0] + (": a name of the file" if "no attribute" in text else "")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--missing", action="store_true")
    parser.add_argument("--only", default="")
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--peers-of", nargs=2, help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for asked, work in ((chosen.one, take), (chosen.peers_of, try_peers)):
        if asked:
            print("\n" + json.dumps(work(asked[0], WAYS[int(asked[1])])))
            return
    for spec in NETWORKS if not chosen.table else ():
        for i, way in enumerate(WAYS):
            key = ("peers " if chosen.peers else "") + label(spec, way)
            if chosen.only not in key or (chosen.missing and key in read_results()):
                continue
            record = in_own_process(["--peers-of" if chosen.peers else "--one", spec, str(i)])
            save(key, record)
            told = {name: value for name, value in record.items() if name not in ("versions", "operators")}
            print(f"{key}: {json.dumps(told)[:240]}", flush=True)
    if chosen.peers:
        save("peers versions", peer_versions())
    PAGE.write_text(page(read_results()), encoding="utf-8")


if __name__ == "__main__":
    main()
