"""Tests of benchmarks/compatibility/zoo.py, and exports of some networks of docs/reference/models.md."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from benchmarks.compatibility import zoo, zoo_page
from benchmarks.shared.random_networks import calibrated_network
from torch import Tensor, nn

import support.exporting.torch_setup  # noqa: F401
from seewhy_export import export
from seewhy_export._shared.error_measure import relative_error
from seewhy_export.verification.parity import untested_outputs

MEMBERS = [
    "timm:convnextv2_atto",
    "timm:deit_tiny_distilled_patch16_224",
    "timm:efficientvit_b0",
    "timm:ghostnetv2_100",
    "timm:mobilenetv4_conv_small",
    "timm:mobilevitv2_050",
    "timm:regnety_002",
    "timm:repvgg_a0",
    "timm:resmlp_12_224",
    "torchvision:efficientnet_b0",
    "torchvision:swin_t",
]


def logits_and_gradient(module: nn.Module, images: Tensor, targets: Tensor) -> list[Tensor]:
    """Run the network eagerly in the dtype of the images, which is also the default dtype during the call."""
    images = images.clone().requires_grad_(True)
    torch.set_default_dtype(images.dtype)
    try:
        logits = copy.deepcopy(module).to(images.dtype)(images)
    finally:
        torch.set_default_dtype(torch.float32)
    (gradient,) = torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), images)
    return [logits.detach(), gradient]


@pytest.mark.slow
@pytest.mark.parametrize("spec", MEMBERS)
def test_exports_and_agrees(spec: str, tmp_path: Path) -> None:
    assert spec in zoo.specs()
    module, image_size = calibrated_network(spec)
    report = export(module, tmp_path / "model.onnx", image_size=image_size)
    assert untested_outputs(report.parity) == []
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    targets, found = torch.tensor([3, 700]), []
    # If rounding flips a rectifier, draw another input, as the exporter does.
    for seed in range(5):
        images = torch.randn(2, 3, *image_size, generator=torch.Generator().manual_seed(seed))
        feeds = {"images": images.numpy(), "targets": targets.numpy()}
        values, again = (session.run(["logits", "input_gradients"], feeds) for _ in range(2))
        assert all(map(np.array_equal, values, again)), "threads race"
        exact = logits_and_gradient(module, images.double(), targets)
        own = [relative_error(*pair) for pair in zip(logits_and_gradient(module, images, targets), exact, strict=True)]
        ours = [relative_error(torch.from_numpy(value), e) for value, e in zip(values, exact, strict=True)]
        found.append((ours, own))
        if all(error <= max(1e-4, min(4 * torch_error, 0.1)) for error, torch_error in zip(ours, own, strict=True)):
            return
    raise AssertionError(f"(errors of the export, errors of PyTorch) for each draw: {found}")


def test_the_list_has_all_of_torchvision_and_many_families() -> None:
    import timm

    specs = zoo.specs()
    assert len(set(specs)) == len(specs)
    assert sum(spec.startswith("torchvision:") for spec in specs) == 80
    members = [spec.removeprefix("timm:") for spec in specs if spec.startswith("timm:")]
    families = {timm.model_entrypoint(name).__module__ for name in members}
    assert len(families) >= 40


EXPORTS = """
import json, sys

for spec in sys.argv[2:]:
    if spec == "crashes":
        sys.exit("out of memory")
    print(json.dumps({"seconds": 1.0}), flush=True)
if "fails at the end" in sys.argv:
    sys.exit("terminate called")
"""


@pytest.mark.parametrize(
    "specs",
    [
        ["fails at the end"],
        [*"abcde", "fails at the end"],
        [*"abcde", "fails at the end", "next"],
        ["a", "crashes", "b", *"cdefgh"],
        [*"abcde", "crashes", "next"],
        ["crashes"],
    ],
)
def test_a_crash_fails_only_its_own_network(specs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "exports.py").write_text(EXPORTS)
    monkeypatch.setattr(zoo, "__file__", str(tmp_path / "exports.py"))
    crashed = {"failed": "exit status 1: out of memory"}
    expected = [(spec, crashed if spec == "crashes" else {"seconds": 1.0}) for spec in specs]
    assert list(zoo.export_several(specs)) == expected


def test_the_page_is_written_even_after_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object) -> None:
        raise RuntimeError("the disk is full")

    monkeypatch.setattr(zoo, "export_selected", stop)
    monkeypatch.setattr(zoo, "TABLE", tmp_path / "models.md")
    monkeypatch.setattr(sys, "argv", ["zoo.py"])
    with pytest.raises(RuntimeError, match="the disk is full"):
        zoo.main()
    assert (tmp_path / "models.md").read_text() == zoo_page.table(zoo.specs(), zoo.read_results())


def test_the_page_matches_the_results() -> None:
    """The page in docs equals the table of the stored results."""
    assert zoo.TABLE.read_text() == zoo_page.table(zoo.specs(), zoo.read_results())


def test_the_page_shows_disagreements_and_refusals() -> None:
    def errors(error: float, own: float) -> dict[str, dict[str, dict[str, float]]]:
        kinds = {"noise": {"error": error, "torch_float32": own, "draw": 1}}
        return dict.fromkeys(zoo_page.OUTPUTS, kinds)

    exported = {
        "layer": "a",
        "form": "tokens",
        "activations": [3, 2, 2],
        "rectifiers": {},
        "smooth": {"gelu": 2},
        "bytes": 2**20,
        "seconds": 1.0,
    }
    results = {
        "timm:good": {**exported, "parity": errors(3e-4, 1e-4)},
        "timm:bad": {**exported, "parity": errors(5e-4, 1e-4)},
        "timm:refused": {"refused": "operator | x"},
        "timm:broken": {"failed": "exit status -9: no message"},
    }
    page = zoo_page.table([*results, "timm:absent"], results)
    assert "timm: 1 of 5 exported and within the limit, 1 outside it, 1 refused, 2 not measured" in page
    assert "| good | `a` | 3×2×2 tokens | none; 2 gelu | 1 | 1 | 3e-04 (1e-04) |" in page
    assert "| refused | refused: operator \\| x |" in page and "| broken | exit status -9" in page
