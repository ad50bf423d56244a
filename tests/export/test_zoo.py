"""Members of docs/models.md, of as many kinds as possible; benchmarks/zoo.py exports them all."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from seewhy_export import export
from seewhy_export.verify import agrees, untested

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT / "benchmarks"))

import zoo  # noqa: E402
import zoo_table  # noqa: E402

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


@pytest.mark.slow
@pytest.mark.parametrize("spec", MEMBERS)
def test_exports_and_agrees(spec: str, tmp_path: Path) -> None:
    assert spec in zoo.specs()
    module, image_size = zoo.build(spec)
    report = export(module, tmp_path / "model.onnx", image_size=image_size)
    assert all(agrees(errors) for kinds in report.parity.values() for errors in kinds.values())
    assert untested(report.parity) == []


def test_the_list_is_all_of_torchvision_and_many_families() -> None:
    import timm

    specs = zoo.specs()
    assert len(set(specs)) == len(specs)
    assert sum(spec.startswith("torchvision:") for spec in specs) == 80
    members = [spec.removeprefix("timm:") for spec in specs if spec.startswith("timm:")]
    families = {timm.model_entrypoint(name).__module__ for name in members}
    assert len(families) >= 40


def test_the_page_is_written_from_the_results() -> None:
    """The page in docs is what the table makes of the results beside it."""
    assert zoo.TABLE.read_text() == zoo_table.table(zoo.specs(), zoo.read_results())


def test_the_page_tells_what_disagrees_and_what_is_refused() -> None:
    def errors(error: float, own: float) -> dict[str, dict[str, dict[str, float]]]:
        kinds = {"noise": {"error": error, "torch_float32": own, "draw": 1}}
        return dict.fromkeys(zoo_table.OUTPUTS, kinds)

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
    page = zoo_table.table([*results, "timm:absent"], results)
    assert "timm: 1 of 5 exported and within the measure, 1 outside of it, 1 refused, 2 not measured" in page
    assert "| good | `a` | 3×2×2 tokens | none; 2 gelu | 1 | 1 | 3e-04 (1e-04) |" in page
    assert "| refused | refused: operator \\| x |" in page and "| broken | exit status -9" in page
