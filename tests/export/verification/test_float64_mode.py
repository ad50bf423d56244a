"""Tests of `seewhy_export.verification.float64_mode`: float64 instead of float32, and gradients of batch norms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from seewhy_export.verification.float64_mode import computing_in
from seewhy_export.verification.reference import eager_output_and_gradient


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("count", [1, 2])
def test_batch_norm_takes_gradients_in_any_memory_order(dtype: torch.dtype, count: int) -> None:
    norm = nn.BatchNorm2d(16).to(dtype).eval()
    with torch.no_grad():
        for value in (norm.weight, norm.running_var):
            value.uniform_(0.5, 1.5)
    x = torch.randn(count, 16, 4, 4, dtype=dtype, requires_grad=True)
    gradient = torch.randn(count, 16, 4, 4, dtype=dtype)
    # Attention produces gradients with this memory order: positions first, and for one image a stride of the first
    # dimension that is never used.
    strided = torch.empty_strided(gradient.shape, (16 if count == 1 else 256, 1, 64, 16), dtype=dtype).copy_(gradient)
    with computing_in(dtype):
        (ours,) = torch.autograd.grad(norm(x), x, strided)
    expected = gradient * (norm.weight / (norm.running_var + norm.eps).sqrt()).reshape(-1, 1, 1)
    torch.testing.assert_close(ours, expected.detach())


class AttentionNetwork(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.norm = nn.BatchNorm2d(16)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x))
        queries = x.flatten(2).transpose(-2, -1)
        attended = (queries @ queries.transpose(-2, -1)).softmax(-1) @ queries
        return self.head(attended.mean(1))


def test_an_image_has_the_same_gradient_alone_and_in_a_batch() -> None:
    module = AttentionNetwork().double().eval()
    images = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    alone, in_batch = eager_output_and_gradient(module, images[:1]), eager_output_and_gradient(module, images)
    for name, value in alone.items():
        torch.testing.assert_close(value, in_batch[name][:1])


def test_code_that_names_float32_computes_in_float64() -> None:
    x = torch.full((1, 3), 1 / 3, dtype=torch.float64)
    with computing_in(torch.float64):
        values = x.float() + torch.full((3,), 0.1) + torch.tensor([0.1], dtype=torch.float32)
    assert values.dtype == torch.float64
    # A tensor that is already rounded to float32 keeps its value.
    torch.testing.assert_close(values, x + 0.1 + torch.tensor([0.1]).double(), rtol=0, atol=1e-15)
    assert torch.get_default_dtype() == torch.float32
