"""Export classifiers from ONNX files that PyTorch wrote, and write docs/reference/onnx-source.md.

    python benchmarks/compatibility/onnx_sources.py               test all files again (an hour on two cores)
    python benchmarks/compatibility/onnx_sources.py --missing     test the files without a result
    python benchmarks/compatibility/onnx_sources.py --only swin   test the files whose name contains this
    python benchmarks/compatibility/onnx_sources.py --peers       test onnx2torch and onnx2pytorch on the files
    python benchmarks/compatibility/onnx_sources.py --table       only write the page from the stored results

Each network has random weights that leave no branch inactive (tests/support/exporting/networks.py). PyTorch's two
exporters write it for one image or for any batch size. Each file is converted, compared with onnxruntime, and traced
for any batch size. One file of each network is exported and compared with PyTorch's autograd in float64, and its logits
with those of the original file.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from benchmarks import RESULTS, ROOT
from benchmarks.compatibility.onnx_sources_page import NETWORKS, PEERS, VARIANTS, label, page
from benchmarks.shared import json_files
from benchmarks.shared.child_processes import last_line
from benchmarks.shared.machine_facts import versions
from benchmarks.shared.random_networks import live_network

FILE = RESULTS / "onnx_sources.json"
PAGE = ROOT / "docs" / "reference" / "onnx-source.md"
SECONDS = 1800
PACKAGES = ("seewhy", "torch", "torchvision", "timm", "onnx", "onnxruntime")


def write(spec: str, variant: tuple[str, int, bool], path: Path) -> tuple[int, int]:
    """Write the network to `path` and return its image size."""
    import torch

    network, size = live_network(spec)
    exporter, opset, free = variant
    # torch.export treats a batch size of 1 as a constant.
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


def check_export(spec: str, variant: tuple[str, int, bool]) -> dict[str, Any]:
    """Write one network with one exporter, export it from the file, and return the result."""
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
    record: dict[str, Any] = {"versions": versions(*PACKAGES)}
    with tempfile.TemporaryDirectory() as folder:
        path, exported = Path(folder) / "model.onnx", Path(folder) / "exported.onnx"
        try:
            size = write(spec, variant, path)
        except Exception as error:  # noqa: BLE001  any failure of PyTorch's exporter is a result
            return {**record, "unwritten": f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"}
        graph = onnx.load(path, load_external_data=False).graph
        record["nodes"], record["operators"] = len(graph.node), sorted({node.op_type for node in graph.node})
        try:
            source = load_source(str(path))
            record["conversion"] = float(source.notes[0].rpartition("by ")[2].split()[0])
            if variant != VARIANTS[-1]:
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
        # Run the images one at a time, which every file supports.
        theirs = np.concatenate([first.run(None, {name: image[None]})[0] for image in images])
        ours = second.run(["logits"], {"images": images, "targets": np.full(3, -1)})[0]
        record["file"] = float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))
    return record


def check_converters(spec: str, variant: tuple[str, int, bool]) -> dict[str, str]:
    """Return for each other converter the result of converting and tracing for any batch size."""
    import torch

    from seewhy_export.sources.torchvision_import import import_torchvision

    import_torchvision()
    torch.set_num_threads(1)
    results = {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        try:
            size = write(spec, variant, path)
        except Exception:  # noqa: BLE001  as above
            return {}
        for peer in PEERS:
            try:
                module = converters()[peer](path)
            except Exception as error:  # noqa: BLE001  any failure of the converter is a result
                results[peer] = f"does not convert: {type(error).__name__}: {str(error).splitlines()[0][:120]}"
                continue
            try:
                shapes = ({0: torch.export.Dim.DYNAMIC},)
                torch.export.export(module, (torch.zeros(2, 3, *size),), dynamic_shapes=shapes, strict=False)
                results[peer] = "traces"
            except Exception as error:  # noqa: BLE001  as above
                results[peer] = f"cannot be traced: {type(error).__name__}: {str(error).strip().splitlines()[0][:120]}"
    return results


def converters() -> dict[str, Callable[[Path], Any]]:
    import onnx
    from torch import nn

    def onnx2torch(path: Path) -> nn.Module:
        from onnx2torch import convert

        return convert(path).eval()

    class SingleInput(nn.Module):
        """A module with one input; the converter's module takes any arguments, which torch.export cannot trace."""

        def __init__(self, module: nn.Module) -> None:
            super().__init__()
            self.module = module

        def forward(self, images: Any) -> Any:
            return self.module(images)

    def onnx2pytorch(path: Path) -> nn.Module:
        from onnx2pytorch import ConvertModel

        return SingleInput(ConvertModel(onnx.load(path))).eval()

    return {"onnx2torch": onnx2torch, "onnx2pytorch": onnx2pytorch}


def peer_versions() -> dict[str, str]:
    results = {}
    for peer in PEERS:
        try:
            results[peer] = version(peer)
        except PackageNotFoundError:
            module = __import__(peer)
            results[peer] = str(getattr(module, "__version__", "of unknown version"))
    return results


def run_in_child(arguments: list[str]) -> dict[str, Any]:
    """Run this script with arguments in a child process and return the JSON that it prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, *arguments]
    try:
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return {"failed": f"longer than {SECONDS} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        return {"failed": last_line(done.stderr)[:200]}
    return json.loads(lines[-1])


def save(key: str, record: dict[str, Any]) -> None:
    """Store one result in the results file."""
    json_files.write(FILE, dict(sorted({**json_files.read(FILE), key: record}.items())))


def write_page() -> None:
    """Write the page from the stored results."""
    sys.path[:0] = [str(ROOT / "export"), str(ROOT / "engine")]
    from seewhy_export.sources.onnx_import.file_reading import OLDEST_OPSET
    from seewhy_export.sources.onnx_import.graph_module import OPERATORS
    from seewhy_export.sources.onnx_import.shape_arithmetic import KNOWN_OPERATORS

    names = sorted({*OPERATORS, *KNOWN_OPERATORS, "Constant"} - {"Linear"})
    PAGE.write_text(page(json_files.read(FILE), OLDEST_OPSET, names), encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--missing", action="store_true", help="test only files without a result")
    parser.add_argument("--only", default="", help="test only files whose name contains this")
    parser.add_argument("--peers", action="store_true", help="test other converters instead of the exporter")
    parser.add_argument("--table", action="store_true", help="only write the page from the stored results")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    parser.add_argument("--peers-of", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    for case, check in ((options.one, check_export), (options.peers_of, check_converters)):
        if case:
            print("\n" + json.dumps(check(case[0], VARIANTS[int(case[1])])))
            return
    for spec in NETWORKS if not options.table else ():
        for i, variant in enumerate(VARIANTS):
            key = ("peers " if options.peers else "") + label(spec, variant)
            if options.only not in key or (options.missing and key in json_files.read(FILE)):
                continue
            record = run_in_child(["--peers-of" if options.peers else "--one", spec, str(i)])
            save(key, record)
            shown = {name: value for name, value in record.items() if name not in ("versions", "operators")}
            print(f"{key}: {json.dumps(shown)[:240]}", flush=True)
    if options.peers:
        save("peers versions", peer_versions())
    write_page()


if __name__ == "__main__":
    main()
