"""Tests of exports of the networks in `support.exporting.module_battery`.

Each network is exported and agrees with PyTorch, or is refused with one line that gives the reason. Every export
verifies itself. These tests also compare the file with the module run eagerly in float64, without any graph.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from torch import nn

from seewhy.errors import ExportError
from seewhy_export import export
from support.exporting import module_battery
from support.exporting.agreement import check

ALL = {f"{table}: {name}": make for table, parts in module_battery.TABLES.items() for name, make in parts.items()}
QUICK = [name for name in ALL if name.partition(": ")[2] not in module_battery.HEAVY]
BATCH = 12
pytestmark = pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")


def expected(names: list[str]) -> Counter[str]:
    parts = [name.partition(": ")[2] for name in names]
    return sum((Counter(module_battery.RECTIFIERS.get(part, {})) for part in parts), Counter())


@pytest.mark.parametrize("start", range(0, len(QUICK), BATCH))
def test_parts_together_export_and_agree(start: int, tmp_path: Path) -> None:
    """A dozen modules share one network, because most of the time of an export does not depend on its size."""
    names = QUICK[start : start + BATCH]
    kinds = check(module_battery.network(*(ALL[name]() for name in names)), tmp_path / "model.onnx")
    assert kinds == expected(names)


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_each_part_exports_and_agrees(name: str, tmp_path: Path) -> None:
    assert check(module_battery.network(ALL[name]()), tmp_path / "model.onnx") == expected([name])


@pytest.mark.parametrize("name", module_battery.REFUSED)
def test_refused_in_one_line(name: str, tmp_path: Path) -> None:
    make, message = module_battery.REFUSED[name]
    with pytest.raises(ExportError, match=message) as caught:
        export(make(), tmp_path / "model.onnx", image_size=module_battery.SIZE)
    assert "\n" not in str(caught.value) and not list(tmp_path.iterdir())


@pytest.mark.parametrize(("channels", "size"), [(1, (16, 16)), (4, (13, 30)), (2, (31, 9))])
def test_other_channels_and_sizes(channels: int, size: tuple[int, int], tmp_path: Path) -> None:
    parts = [
        nn.MaxPool2d(3, 2, 1),
        nn.Conv2d(module_battery.CHANNELS, 4, 3, 2),
        nn.AdaptiveAvgPool2d(7),
        nn.PReLU(),
        nn.SiLU(),
    ]
    check(module_battery.network(*parts, channels=channels, size=size), tmp_path / "model.onnx", size, channels)
