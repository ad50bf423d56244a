"""Tests of `seewhy_export.capture.in_place_removal`: in-place operators are replaced where it is safe."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from seewhy_export.capture.forward_graph import trace_forward
from seewhy_export.capture.in_place_removal import make_functional
from seewhy_export.capture.module_preparation import prepare


class CodeModule(nn.Module):
    def __init__(self, code: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.code = code
        self.register_buffer("kept", torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return self.code(x * 2).flatten(1)


def read_after(x: Tensor) -> Tensor:
    flat = x.flatten(1)
    x.relu_()
    return flat


def view_written(x: Tensor) -> Tensor:
    x[:, 0].mul_(3)
    return x


def ignored_result(x: Tensor) -> Tensor:
    nn.functional.relu(x, inplace=True)
    return x


def written_twice(x: Tensor) -> Tensor:
    return (x.relu_() + 1).mul_(2).clamp_(max=3)


def through_dropout(x: Tensor) -> Tensor:
    same = nn.functional.dropout(x, training=False)
    x.add_(1)
    return same


def chunk_written(x: Tensor) -> Tensor:
    first, second = x.chunk(2, 3)
    first.neg_()
    return x + torch.cat([second, second], 3)


def test_undeclared_shared_memory_is_not_replaced() -> None:
    """Dropout in evaluation mode returns its input itself. PyTorch's own functionalization overlooks this too; the
    comparison of the graph with the module then refuses the export."""
    x = torch.zeros(2, 3, 4, 4)
    program = torch.export.export(
        prepare(CodeModule(through_dropout)), (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False
    )
    assert not make_functional(program.graph_module.graph)


CASES = [
    (ignored_result, True),
    (written_twice, True),
    (lambda x: x + x.clone().relu_(), True),
    (read_after, False),
    (view_written, False),
    (chunk_written, False),
]


@pytest.mark.parametrize(("code", "replaced"), CASES)
def test_the_graph_computes_the_same_as_the_module(code: Callable[[Tensor], Tensor], replaced: bool) -> None:
    module = prepare(CodeModule(code))
    x = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(module, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},), strict=False)
    before = str(program.graph_module.graph)
    assert make_functional(program.graph_module.graph) is replaced
    assert replaced or str(program.graph_module.graph) == before, "the graph is unchanged"
    forward = trace_forward(module, (4, 4), 3, None)
    assert not any("_." in str(node.target) for node in forward.nodes if "aten" in str(node.target))
    (value,) = forward.graph_module(*forward.weights.values(), x.clone())[-1:]
    torch.testing.assert_close(value, module(x.clone()), rtol=0, atol=0)
