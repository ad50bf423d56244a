"""Tests of `seewhy_export.capture.forward_failures`: reasons for a failing forward pass, with what to check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from seewhy.errors import ExportError
from seewhy_export import export


class Code(nn.Module):
    def __init__(self, code: Callable[..., Any]) -> None:
        super().__init__()
        self.conv, self.code = nn.Conv2d(3, 4, 3), code

    def forward(self, x: Tensor) -> Any:
        return self.code(self.conv(x).mean((2, 3)))


class TwoInputs(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x * mask


def fails(x: Tensor) -> Tensor:
    raise NameError("name 'undefined' is not defined")


def head(width: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(width, 3)]


@pytest.mark.parametrize(
    ("module", "words", "blames_the_size"),
    [
        (nn.Sequential(nn.Conv3d(3, 4, 3), *head(4)), "is a network for volumes or videos: its first layer is", False),
        (nn.Sequential(nn.Conv1d(3, 4, 3), *head(4)), "is a network for signals or sequences: its first", False),
        (nn.Sequential(nn.Embedding(9, 4), *head(4)), "is a network for text or other sequences of indices", False),
        (nn.Sequential(nn.LSTM(9, 4)), "is a network for sequences: its first layer is LSTM", False),
        (Code(fails), r"NameError: name 'undefined' is not defined \(at test_forward_failures", False),
        (Code(lambda x: x.half() @ x.t()), "check the dtypes fixed in its code; the export runs in float32$", False),
        (
            Code(lambda x: x[0] + x.view(1, 4)),
            r"Code runs on one image, but fails on two with RuntimeError: shape '\[1, 4\]' is invalid .*: its code "
            r"fixes the batch size, and a model file takes any number of images; use x\.shape\[0\] or -1 instead of a",
            False,
        ),
        (TwoInputs(), "must take images alone, so export a wrapper module that passes the other arguments$", False),
        (
            nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(20, 4, 3)),
            "check the number of image channels .* --channels.$",
            False,
        ),
        (nn.Sequential(nn.BatchNorm2d(5), *head(4)), "check the number of image channels .* --channels.$", False),
        (nn.Sequential(*head(3 * 28 * 28)), "check the image size .* and the number of image channels", True),
        (nn.Sequential(nn.Conv2d(3, 4, 50), *head(4)), "check the image size .* and the number of", True),
    ],
)
def test_what_to_check(module: nn.Module, words: str, blames_the_size: bool, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words) as caught:
        export(module.eval(), tmp_path / "model.onnx", image_size=(32, 32))
    assert "\n" not in str(caught.value)
    assert ("check the image size" in str(caught.value)) == blames_the_size


@pytest.mark.parametrize("code", [lambda x: x.view(2, 4), lambda x: torch.stack(list(x))])
def test_code_that_fixes_the_batch_size(code: Callable[[Tensor], Tensor], tmp_path: Path) -> None:
    words = "its code fixes the batch size, and .*instead of a fixed number of images, len.x., int.* or a loop over the"
    with pytest.raises(ExportError, match=words):
        export(Code(code).eval(), tmp_path / "model.onnx", image_size=(32, 32))


def test_the_module_is_unchanged_after_a_failure(tmp_path: Path) -> None:
    module = Code(fails)
    module.conv.eval()
    with pytest.raises(ExportError, match="NameError"):
        export(module, tmp_path / "model.onnx", image_size=(32, 32))
    assert module.training and not module.conv.training
    assert torch.is_grad_enabled()
