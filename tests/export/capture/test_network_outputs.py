"""Tests of `seewhy_export.capture.network_outputs`: the choice of the logits, and networks that are not classifiers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

import seewhy
from seewhy.errors import ExportError
from seewhy_export import export
from support.exporting import module_hooks
from support.exporting.file_runs import SIZE, assert_close, images, run
from support.exporting.networks import branches, live_weights


class Pair(NamedTuple):
    logits: Tensor
    features: Tensor


@dataclasses.dataclass
class Output:
    features: Tensor
    logits: Tensor
    loss: Tensor | None = None


class TwoOutputs(nn.Module):
    """Small network that returns two results in the container that `form` makes."""

    def __init__(self, form: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.network = branches()
        self.form = form

    def forward(self, x: Tensor) -> Any:
        return self.form(self.network(x), 2 * self.network(x.flip(3)))


@pytest.mark.parametrize(
    ("form", "output", "first"),
    [
        (lambda a, b: {"logits": a, "other": b}, None, True),
        (lambda a, b: Pair(a, b), None, True),
        (lambda a, b: Output(features=b, logits=a), None, True),
        (lambda a, b: (a, b), 0, True),
        (lambda a, b: [a, b], 1, False),
        (lambda a, b: (a, {"deep": (b, a)}), "1.deep.0", False),
        (lambda a, b: {"logits": a, "other": b}, "other", False),
        (lambda a, b: (a,), None, True),
    ],
)
def test_one_of_several_outputs(form: Any, output: str | int | None, first: bool, tmp_path: Path) -> None:
    module = TwoOutputs(form).eval()
    report = export(module, tmp_path / "model.onnx", image_size=SIZE, head=output)
    assert [message for message in report.messages if "preprocessing" not in message] == []

    def logits(x: Tensor) -> Tensor:
        network = module.network
        return network(x) if first else 2 * network(x.flip(3))

    module.double()
    assert_close(run(report.path, "logits"), logits(images().double()))
    picked = nn.Module()
    picked.forward = logits  # type: ignore[method-assign]
    assert_close(
        run(report.path, "input_gradients"), module_hooks.gradient(picked, images().double(), torch.tensor([0, 1, 2]))
    )


@pytest.mark.parametrize(
    ("form", "output", "message"),
    [
        (lambda a, b: (a, b), None, r"several tensors: 0 \(N, 7\), 1 \(N, 7\); choose the logits with `head`"),
        (lambda a, b: (a, b), 2, r"no output 2\. The network returns 0 \(N, 7\), 1 \(N, 7\)"),
        (lambda a, b: {"x": a, "y": b}, "z", r"no output 'z'\. The network returns x \(N, 7\), y \(N, 7\)"),
        (lambda a, b: a, "z", r"^head 'z': the network returns a single tensor"),
        (lambda a, b: None, None, r"returns no tensor"),
        (lambda a, b: "logits", None, r"returns no tensor"),
    ],
)
def test_unknown_outputs_are_refused(form: Any, output: str | int | None, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export(TwoOutputs(form).eval(), tmp_path / "model.onnx", image_size=SIZE, head=output)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


class Maps(nn.Module):
    """Convolution and a linear layer whose results `make` turns into the network's output."""

    def __init__(self, make: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.conv, self.head, self.make = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 4), make

    def forward(self, x: Tensor) -> Any:
        maps = self.conv(x).relu()
        return self.make(maps, self.head(maps.mean((2, 3))))


@dataclasses.dataclass
class BackboneOutput:
    """Output of a network without a classifier, with the names that Hugging Face's models use."""

    last_hidden_state: Tensor
    pooler_output: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None


def tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).transpose(1, 2)


def boxes(maps: Tensor, _scores: Tensor) -> list[dict[str, Tensor]]:
    return [{"boxes": torch.ones(5, 4), "labels": torch.zeros(5), "scores": m[0, 0, :5]} for m in maps]


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda m, s: m,
            r"returns a map \(N, 8, 16, 20\) for each image, as segmentation networks do, and is not a classifier; "
            r"export a module .*: `return self\.network\(x\)\.mean\(\(2, 3\)\)`$",
        ),
        (lambda m, s: {"out": m, "aux": m}, r"`return self\.network\(x\)\['out'\]\.mean\(\(2, 3\)\)`$"),
        (lambda m, s: [m, {"side": m}], r"`return self\.network\(x\)\[0\]\.mean"),
        (lambda m, s: m[:, :, None], r"returns a volume \(N, 8, 1, 16, 20\) for each image"),
        (lambda m, s: tokens(m), r"several vectors \(N, 320, 8\) for each image, as networks for sequences"),
        (boxes, r"returns boxes \(0\.boxes \(5, 4\), .*\), as detection networks do, and is not a classifier"),
        (lambda m, s: {"logits": tokens(m), "pred_boxes": tokens(m)[..., :4]}, "returns boxes .* as detection"),
        (
            lambda m, s: BackboneOutput(tokens(m), m.mean((2, 3)), (m, m)),
            r"features but no logits \(last_hidden_state \(N, 320, 8\), pooler_output \(N, 8\), .*has no classifier; "
            r"load the class with a classifier, such as AutoModelForImageClassification, or choose .* `head`",
        ),
        (lambda m, s: {"pooler_output": m.mean((2, 3))}, "features but no logits"),
        (lambda m, s: s.sum(), "returns one number for the whole batch; it must return one score per image and class"),
        (lambda m, s: s.argmax(1), r"returns torch\.int64 \(N\), such as the index of the highest score \(argmax\)"),
        (lambda m, s: s > 0, r"returns torch\.bool \(N, 4\)"),
        (lambda m, s: s.flatten(), r"returns 8 numbers for 2 images instead of \(N, classes\); its code merges images"),
    ],
)
def test_networks_that_are_not_classifiers(make: Any, words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words) as caught:
        export(Maps(make).eval(), tmp_path / "model.onnx", image_size=SIZE)
    message = str(caught.value)
    assert "\n" not in message and "image size" not in message and list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("head", ["pooler_output", 1])
def test_features_can_be_chosen_by_name(head: str | int, tmp_path: Path) -> None:
    module = Maps(lambda m, s: BackboneOutput(tokens(m), m.mean((2, 3)))).eval()
    export(module, tmp_path / "model.onnx", image_size=SIZE, head=head, verify=False)
    assert_close(run(tmp_path / "model.onnx", "logits"), module(images()).pooler_output)


def test_the_suggested_wrapper_of_a_segmentation_network_works(tmp_path: Path) -> None:
    class MeanScore(nn.Module):
        def __init__(self, network: nn.Module) -> None:
            super().__init__()
            self.network = network

        def forward(self, x: Tensor) -> Tensor:
            return self.network(x)["out"].mean((2, 3))

    segmentation = live_weights(Maps(lambda m, s: {"out": m, "aux": m})).eval()
    export(MeanScore(segmentation), tmp_path / "model.onnx", image_size=SIZE)
    assert_close(run(tmp_path / "model.onnx", "logits"), segmentation(images())["out"].mean((2, 3)))


@pytest.mark.parametrize(
    "squeeze",
    [lambda s: s[:, 0], lambda s: s[:, :1].squeeze(1), lambda s: s[:, :1].squeeze(), lambda s: (s[:, 0],)],
    ids=["index", "squeeze(1)", "squeeze()", "tuple"],
)
@pytest.mark.parametrize("final", [False, True], ids=["logits", "sigmoid"])
def test_one_number_per_image(squeeze: Callable[[Tensor], Any], final: bool, tmp_path: Path) -> None:
    module = live_weights(Maps(lambda m, s: squeeze(s[:, :1].sigmoid() if final else s))).eval()
    report = export(module, tmp_path / "model.onnx", image_size=SIZE, score="softmax" if final else "sigmoid")
    assert "the network returns one number per image, (N,); the file returns it as (N, 1), for one class" in (
        report.messages
    )
    exact = module.head(module.conv(images()).relu().mean((2, 3)))[:, :1]
    values = seewhy.Explainer(tmp_path / "model.onnx").predict(images().numpy())
    assert_close(values.logits, exact)
    assert_close(values.probabilities, exact.sigmoid())


def test_cam_applies_to_one_number_per_image(tmp_path: Path) -> None:
    class Binary(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 3), nn.Linear(8, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).relu().mean((2, 3))).squeeze(1)

    module = live_weights(Binary()).eval()
    export(module, tmp_path / "model.onnx", image_size=SIZE, score="sigmoid")
    targets = {"images": images().numpy(), "targets": np.zeros(3, np.int64)}
    (weights,) = onnxruntime.InferenceSession(tmp_path / "model.onnx").run(["class_weights"], targets)
    assert_close(weights, module.head.weight.expand(3, 8))


@pytest.mark.parametrize(
    ("make", "score", "words"),
    [
        (lambda m, s: s[:, :1], "softmax", r"is 100 % for every image; choose the score sigmoid .*, --score\)$"),
        (lambda m, s: s[:, 0], "softmax", r"is 100 % for every image; choose the score sigmoid .*, --score\)$"),
        (lambda m, s: s[:, :1].softmax(1), "none", r"ends in a softmax over its only output, .* remove that softmax$"),
    ],
)
def test_a_softmax_over_one_class_is_refused(make: Any, score: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=words):
        export(Maps(make).eval(), tmp_path / "model.onnx", image_size=SIZE, score=score)
    assert list(tmp_path.iterdir()) == []


def test_a_regression_with_one_output(tmp_path: Path) -> None:
    module = live_weights(Maps(lambda m, s: s[:, :1])).eval()
    export(module, tmp_path / "model.onnx", image_size=SIZE, score="none")
    assert_close(run(tmp_path / "model.onnx", "logits"), module(images()))
