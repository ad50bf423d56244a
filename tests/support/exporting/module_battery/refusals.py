"""Networks that the exporter must refuse, by name, each with the reason that the error gives."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from support.exporting.module_battery.convolutions import (
    Correlation,
    DynamicConvolution,
)
from support.exporting.module_battery.networks import CHANNELS, Part, network
from support.exporting.module_battery.structure import (
    resize,
)


class CustomOutput(nn.Module):
    """A small classifier followed by custom code that takes the images and the logits."""

    def __init__(self, code: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.inner, self.code = network(nn.Identity()), code

    def forward(self, x: Tensor) -> Tensor:
        return self.code(x, self.inner(x))


def by_value(x: Tensor, y: Tensor) -> Tensor:
    return y * 2 if x.mean() > 0 else y


def loop_by_value(x: Tensor, y: Tensor) -> Tensor:
    for _ in range(int(x.abs().max())):
        y = y * 2
    return y


def custom_output(code: Callable[[Tensor, Tensor], Tensor]) -> Callable[[], nn.Module]:
    return lambda: CustomOutput(code).eval()


def part(function: Part) -> Callable[[], nn.Module]:
    return lambda: network(function, live=False)


MASK = torch.tensor([True, False, True, True, False, False])

REFUSED: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "batch norm of the batch": (
        lambda: network(nn.BatchNorm2d(CHANNELS, track_running_stats=False)),
        r"aten.batch_norm.default in branches.0.part \(BatchNorm2d\) uses the statistics of the batch",
    ),
    "fractional max pool": (
        lambda: network(nn.FractionalMaxPool2d(3, output_ratio=0.5)),
        r"aten.rand.default in branches.0.part \(FractionalMaxPool2d\) draws random numbers",
    ),
    "dropout that stays on": (part(lambda x: F.dropout(x, 0.5, training=True)), "aten.dropout.default .*draws random"),
    "noise": (part(lambda x: x + 0.1 * torch.randn_like(x)), "aten.randn_like.default .*draws random"),
    "median": (part(lambda x: x.flatten(2).median(2).values), r"aten.median.dim in branches.0.part \(Function\)"),
    "indexing by a mask": (part(lambda x: x[:, MASK]), r"aten.index.Tensor in branches.0.part .*: indexing by a mask"),
    "cumprod": (part(lambda x: torch.sigmoid(x).cumprod(1)), "cumprod|prod.default"),
    "distances": (
        part(lambda x: torch.cdist(x.flatten(2), x.flatten(2)[:, :3])),
        r"aten._cdist_forward.default in branches.0.part \(Function\) has no ONNX form",
    ),
    "FFT": (part(lambda x: torch.fft.rfft2(x).abs()), r"aten._fft_r2c.default in branches.0.part .* returns complex"),
    "complex numbers": (
        part(lambda x: torch.view_as_real(torch.complex(x, x * 2) ** 2)[..., 0]),
        r"aten.complex.default in branches.0.part \(Function\) returns complex numbers",
    ),
    "determinant": (
        part(lambda x: torch.linalg.det(x[:, :, :3, :3])[:, :, None]),
        "linalg_lu_solve.* has no ONNX form",
    ),
    "antialiasing": (part(resize(size=(9, 7), mode="bilinear", antialias=True)), "bilinear2d_aa.* has no ONNX form"),
    "a kernel for each image": (
        lambda: network(DynamicConvolution()),
        r"aten.conv2d.default in branches.0.part \(DynamicConvolution\): the weights of a convolution depend",
    ),
    "a kernel of the batch": (
        lambda: network(Correlation()),
        "depends on the other images of the batch",
    ),
    "grid_sample of volumes": (
        part(
            lambda x: F.grid_sample(
                x[:, None], torch.zeros(1, 2, 3, 4, 3).expand(x.shape[0], -1, -1, -1, -1), align_corners=False
            )[:, 0]
        ),
        "aten.grid_sampler.* in branches.0.part",
    ),
    "an if by value": (custom_output(by_value), "depends on the values of a tensor"),
    "a loop by value": (custom_output(loop_by_value), "the values of a tensor"),
    "a size by value": (custom_output(lambda x, y: y * x[x > 0].mean()), "depends on the other images of the batch"),
    "a batch of two": (custom_output(lambda x, y: y.view(2, 5)), "fixes the batch size"),
    "an if by batch size": (custom_output(lambda x, y: y * 3 if x.shape[0] == 2 else y), "batch size"),
    "an if for single images": (custom_output(lambda x, y: y * 3 if x.shape[0] == 1 else y), "batch size"),
    "statistics of the batch": (custom_output(lambda x, y: y - y.mean(0)), "depends on the other images"),
    "a softmax over the batch inside": (custom_output(lambda x, y: y * y.softmax(0)), "depends on the other images"),
    "NumPy inside": (custom_output(lambda x, y: y * float(x.detach().numpy().mean())), "cannot be traced"),
}
"""Name -> (network, pattern of the one-line error)."""
