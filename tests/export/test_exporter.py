"""Tests of `seewhy_export.export`: the module stays unchanged, the file is complete, invalid arguments are refused."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import seewhy
from seewhy.contract import constants as contract
from seewhy.contract.metadata import Layer, Preprocessing
from seewhy.errors import ExportError, ModelFileError
from seewhy_export import export
from seewhy_export.sources.torchvision_import import import_torchvision
from support.exporting.networks import branches, live_weights


def hooks(module: nn.Module) -> dict[str, list[int]]:
    """Return the ids of all registered hooks, by the module attributes that hold them."""
    attributes = [
        (f"{path}.{name}", value) for path, part in module.named_modules() for name, value in vars(part).items()
    ]
    found = {name: list(value) for name, value in attributes if name.endswith("_hooks") and value}
    assert found, "no module has hooks"
    return found


def test_the_module_stays_unchanged(tmp_path: Path) -> None:
    module = branches()
    module.train()
    module.norm.eval()
    module.stem.weight.requires_grad_(False)
    module.head.weight.grad = torch.ones_like(module.head.weight)
    module.stem.register_forward_hook(lambda *_: None)
    hooked = hooks(module)
    before = copy.deepcopy(module.state_dict())
    modes = [part.training for part in module.modules()]
    export(module, tmp_path / "model.onnx", image_size=(40, 40), layer="last")
    assert [part.training for part in module.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())
    assert not module.stem.weight.requires_grad and module.head.weight.requires_grad
    assert torch.equal(module.head.weight.grad, torch.ones_like(module.head.weight))
    assert hooks(module) == hooked
    assert module.left[2].inplace


def test_contents_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    preprocessing = Preprocessing("shorter-side", 46, "bicubic", True, (0.5,) * 3, (0.25,) * 3)
    labels = [f"class {i}" for i in range(7)]
    report = export(
        branches(), path, image_size=(40, 48), labels=labels, preprocessing=preprocessing, score="sigmoid", name="b"
    )
    proto = onnx.load(path)
    onnx.checker.check_model(proto, full_check=True)
    assert proto.ir_version == contract.IR_VERSION
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", contract.OPSET)]
    dims = {
        value.name: [d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
        for value in [*proto.graph.input, *proto.graph.output]
    }
    assert dims == {
        "images": ["N", 3, 40, 48],
        "targets": ["N"],
        "logits": ["N", 7],
        "activations": ["N", 10, 5, 6],
        "gradients": ["N", 10, 5, 6],
        "input_gradients": ["N", 3, 40, 48],
        "guided_gradients": ["N", 3, 40, 48],
        "class_weights": ["N", 10],
    }
    metadata = seewhy.Explainer(path).metadata
    assert metadata.labels == tuple(labels) and metadata.preprocessing == preprocessing
    assert (metadata.model.name, metadata.score_kind, metadata.image_size, metadata.class_count) == (
        "b",
        "sigmoid",
        (40, 48),
        7,
    )
    assert metadata.layer == Layer("act", "automatic", True, "activations")
    assert metadata.rectifiers.kinds == {"relu": 3, "relu6": 1, "clamp": 1} and metadata.rectifiers.guided == 5
    assert set(metadata.parity) == set(report.outputs) and metadata.parity == report.parity
    assert metadata.versions["torch"] == torch.__version__
    assert report.size == path.stat().st_size and report.layer == "act" and report.activations == (10, 5, 6)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


def test_the_report_is_short_in_a_console(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    report = export(branches(), path, image_size=(40, 40), outputs=["input_gradients"], verify=False)
    kilobytes = path.stat().st_size / 1e3
    assert repr(report) == (
        f"ExportReport(path={str(path)!r}, layer=None, outputs=('logits', 'input_gradients'), verified=False, "
        f"{kilobytes:.1f} kB)"
    )


def test_two_exports_are_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a.onnx", "b.onnx"):
        export(branches(), tmp_path / name, image_size=(40, 40))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


@pytest.mark.parametrize(
    ("outputs", "held", "methods"),
    [
        ([], ["logits"], []),
        (["input_gradients"], ["logits", "input_gradients"], ["backprop"]),
        (["activations", "gradients"], ["logits", "activations", "gradients"], ["gradcam"]),
        (["activations", "class_weights"], ["logits", "activations", "class_weights"], ["cam"]),
        (["gradcam_map"], ["logits", "gradcam_map"], []),
    ],
)
def test_a_subset_of_outputs(outputs: list[str], held: list[str], methods: list[str], tmp_path: Path) -> None:
    report = export(branches(), tmp_path / "model.onnx", image_size=(40, 40), outputs=outputs)
    assert list(report.outputs) == held
    basic = ("backprop", "guided-backprop", "cam", "gradcam", "guided-gradcam")
    assert [name for name in seewhy.Explainer(tmp_path / "model.onnx").methods if name in basic] == methods


def test_gradcam_map_is_the_explainers_gradcam(tmp_path: Path) -> None:
    import onnxruntime

    path = tmp_path / "model.onnx"
    export(branches(), path, image_size=(40, 40), outputs=["activations", "gradients", "gradcam_map"])
    images = np.random.default_rng(0).standard_normal((3, 3, 40, 40), np.float32)
    feeds = {"images": images, "targets": np.array([0, 1, 2])}
    (maps,) = onnxruntime.InferenceSession(path).run(["gradcam_map"], feeds)
    ours = seewhy.Explainer(path).explain(images, target=[0, 1, 2]).maps
    np.testing.assert_allclose(maps, np.maximum(ours, 0), rtol=0, atol=1e-6 * np.abs(ours).max())


@pytest.mark.parametrize(
    ("final", "score"), [(nn.Softmax(1), "softmax"), (nn.Sigmoid(), "sigmoid"), (nn.LogSoftmax(1), "softmax")]
)
def test_a_final_score_is_removed_with_a_message(final: nn.Module, score: str, tmp_path: Path) -> None:
    inner = branches()
    report = export(nn.Sequential(inner, final).eval(), tmp_path / "model.onnx", image_size=(40, 40), score="none")
    assert any(f"ends in {score}; its input is exported as logits" in message for message in report.messages)
    images = torch.randn(2, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    result = seewhy.Explainer(tmp_path / "model.onnx").explain(images.numpy())
    # Allow a few hundred float32 roundings.
    np.testing.assert_allclose(result.logits, inner(images).detach().numpy(), rtol=0, atol=1e-4)
    assert seewhy.Explainer(tmp_path / "model.onnx").metadata.score_kind == score


def test_a_softmax_over_the_batch_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="softmax over dimension 0"):
        export(nn.Sequential(branches(), nn.Softmax(0)).eval(), tmp_path / "model.onnx", image_size=(40, 40))


class Smooth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.entry, self.conv, self.head = nn.Identity(), nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(nn.functional.silu(self.conv(self.entry(x))).mean((2, 3)))


def test_without_rectifiers_guided_gradients_are_the_plain_ones(tmp_path: Path) -> None:
    report = export(live_weights(Smooth()).eval(), tmp_path / "model.onnx", image_size=(8, 8))
    assert report.rectifiers.guided == 0 and report.rectifiers.smooth == {"silu": 1}
    explainer = seewhy.Explainer(tmp_path / "model.onnx")
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)
    results = explainer.explain(images, method=["backprop", "guided-backprop"])
    assert np.array_equal(results["backprop"].attributions, results["guided-backprop"].attributions)
    assert np.abs(results["backprop"].attributions).max() > 0


def test_a_scope_without_rectifiers_guides_nothing(tmp_path: Path) -> None:
    report = export(branches(), tmp_path / "model.onnx", image_size=(40, 40), guided_scope=["head"])
    assert report.rectifiers.guided == 0 and set(report.outputs) >= {"input_gradients", "guided_gradients"}


def test_a_layer_that_returns_its_input(tmp_path: Path) -> None:
    export(live_weights(Smooth()).eval(), tmp_path / "model.onnx", image_size=(8, 8), layer="entry")
    images = np.random.default_rng(0).standard_normal((2, 3, 8, 8), np.float32)
    result = seewhy.Explainer(tmp_path / "model.onnx").explain(images, method=["gradcam", "backprop"])
    weights = result["backprop"].attributions.mean((2, 3), keepdims=True)
    expected = (weights * images).sum(1)
    np.testing.assert_allclose(result["gradcam"].maps, expected, rtol=0, atol=1e-6 * np.abs(expected).max())


def test_one_channel(tmp_path: Path) -> None:
    export(branches(channels=1), tmp_path / "model.onnx", image_size=(40, 40))
    result = seewhy.Explainer(tmp_path / "model.onnx").explain(np.zeros((2, 1, 40, 40), np.float32), method="backprop")
    assert result.attributions.shape == (2, 1, 40, 40)


def test_plain_arguments_of_python_callers(tmp_path: Path) -> None:
    module = branches()
    labels = [f"class {i}" for i in range(7)]
    (tmp_path / "labels.txt").write_text("\n".join(labels))
    preprocessing = {"resize": "shorter-side", "size": 46, "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25]}
    phases: list[str] = []
    for given in (tmp_path / "labels.txt", dict(enumerate(labels))):
        report = export(
            module,
            tmp_path / "model.onnx",
            image_size=40,
            layer=module.left,
            labels=given,
            preprocessing=preprocessing,
            outputs=["activations"],
            on_phase=phases.append,
        )
        metadata = seewhy.Explainer(report.path).metadata
        assert metadata.labels == tuple(labels) and metadata.image_size == (40, 40)
        assert metadata.preprocessing == Preprocessing("shorter-side", 46, "bilinear", True, (0.5,) * 3, (0.25,) * 3)
        assert metadata.layer is not None and (metadata.layer.name, metadata.layer.chosen) == ("left", "named")
        assert report.messages == ()
    assert phases[: len(phases) // 2] == [
        *("tracing the forward pass", "comparing the traced network with the original"),
        *("building the backward pass", "converting to ONNX", "verifying the file against PyTorch"),
    ]


def test_transforms_define_preprocessing_and_size(tmp_path: Path) -> None:
    import_torchvision()
    from torchvision import transforms

    steps = [transforms.Resize((40, 48)), transforms.ToTensor(), transforms.Normalize([0.5] * 3, [0.25] * 3)]
    transform = transforms.Compose(steps)
    report = export(branches(), tmp_path / "model.onnx", preprocessing=transform, outputs=[], verify=False)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 70, 3), np.uint8))
    explainer = seewhy.Explainer(report.path)
    assert explainer.metadata.image_size == (40, 48)
    # Both use Pillow, so only the arithmetic of the normalisation may round.
    np.testing.assert_allclose(explainer.preprocess(image)[0], transform(image).numpy(), atol=1e-5)
    with pytest.raises(ExportError, match="gives arrays of 40x48 pixels, but image_size is 50x50"):
        export(branches(), tmp_path / "other.onnx", 50, preprocessing=transform)


def test_a_file_without_preprocessing_says_so(tmp_path: Path) -> None:
    report = export(branches(), tmp_path / "model.onnx", image_size=40, outputs=[], verify=False)
    assert report.messages == (
        "no preprocessing is recorded, so the file explains only arrays that are already preprocessed",
    )


def test_large_weights_go_to_the_sibling_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = tmp_path / "whole.onnx"
    export(branches(), whole, image_size=(40, 40))
    monkeypatch.setattr(contract, "EXTERNAL_DATA_THRESHOLD", 4096)
    split = tmp_path / "split" / "model.onnx"
    split.parent.mkdir()
    export(branches(), split, image_size=(40, 40))
    assert sorted(file.name for file in split.parent.iterdir()) == ["model.onnx", "model.onnx.data"]
    images = np.random.default_rng(0).standard_normal((2, 3, 40, 40), np.float32)
    results = [seewhy.Explainer(path).explain(images, method="backprop") for path in (whole, split)]
    assert np.array_equal(results[0].attributions, results[1].attributions)
    metadata = seewhy.Explainer(split).metadata
    assert metadata.model.weights_sha256 == seewhy.Explainer(whole).metadata.model.weights_sha256
    data = split.with_name("model.onnx.data")
    damaged = bytearray(data.read_bytes())
    damaged[100] ^= 1
    data.write_bytes(damaged)
    with pytest.raises(ModelFileError, match="damaged or changed"):
        seewhy.Explainer(split)


def test_a_smaller_export_removes_the_old_weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(contract, "EXTERNAL_DATA_THRESHOLD", 4096)
        export(branches(), tmp_path / "model.onnx", image_size=(40, 40), verify=False)
    export(branches(), tmp_path / "model.onnx", image_size=(40, 40), verify=False)
    assert [file.name for file in tmp_path.iterdir()] == ["model.onnx"]


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise AssertionError("the work has begun")


def test_a_failed_export_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(b"mine")
    with pytest.raises(ExportError):
        export(branches(), path, image_size=(40, 40), layer="nowhere")
    assert path.read_bytes() == b"mine" and len(list(tmp_path.iterdir())) == 1


class Returns(nn.Module):
    def __init__(self, make: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner, self.make = branches(), make

    def forward(self, x: Tensor) -> object:
        return self.make(self.inner(x))


def bag(y: Tensor) -> Tensor:
    """Return sums of embeddings, which the converter writes as a Loop."""
    return functional.embedding_bag(torch.arange(4)[None], torch.ones(4, y.shape[1]))


class BatchDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = branches()

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) * (2 if x.shape[0] == 2 else 1)


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        ("resnet18", {}, "module must be a torch.nn.Module, not str"),
        (branches(), {"image_size": "224"}, "image_size must be .height, width. or one side in pixels, not '224'"),
        (branches(), {"image_size": (0, 5)}, r"not \(0, 5\)"),
        (branches(), {"image_size": True}, "not True"),
        (branches(), {"image_size": 2.5}, r"not 2\.5"),
        (branches(), {"channels": "3"}, "channels must be a number of image channels, at least 1, not '3'"),
        (branches(), {"channels": 0}, "channels must be a number of image channels, at least 1, not 0"),
        (branches(), {"outputs": "gradients"}, r"outputs must be a list of names such as \['gradients'\], not 'grad"),
        (branches(), {"outputs": 3}, "outputs must be a list of names"),
        (branches(), {"layer": 4}, "layer must be a module path such as 'layer4', or a module of the network, not 4"),
        (branches(), {"layer": nn.ReLU()}, r"layer is not a module of the network \(ReLU\)"),
        (branches(), {"labels": 7}, "labels must be a list of labels in the order of the classes, .*, not 7"),
        (branches(), {"labels": {"a", "b"}}, "labels must be a list of labels in the order of the classes"),
        (branches(), {"labels": {0: "a", 2: "b"}}, "labels: index 1 is missing"),
        (branches(), {"labels": "no-labels.txt"}, "no-labels.txt: cannot be read: No such file"),
        (branches(), {"preprocessing": "imagenet"}, "preprocessing must be a seewhy_export.Preprocessing, .* not str"),
        (branches(), {"preprocessing": {"mean": 0.5}}, "preprocessing lacks std: one number per channel"),
        (branches(), {"preprocessing": {"means": 0}}, r"no key 'means'\. Did you mean 'mean'\?"),
        (branches(), {"preprocessing": {"mean": "x", "std": (1,)}}, "mean must be one number per channel"),
        (branches(), {"preprocessing": Preprocessing(interpolation="cubic")}, "preprocessing is not valid: .*bicubic"),
        (
            branches(),
            {"preprocessing": Preprocessing(std=(0.0, 1.0, 1.0))},
            "preprocessing is not valid: .*positive std",
        ),
        (branches(), {"score": "argmax"}, "score must be one of softmax, sigmoid, none, not 'argmax'"),
        (
            branches(),
            {"outputs": ["gradient"]},
            r"Unknown output 'gradient'\. Did you mean 'gradients'\? Outputs are logits, ",
        ),
        (branches(), {"labels": ["a", "b"]}, "2 labels for 7 classes"),
        (
            branches(),
            {"guided_scope": "left"},
            "guided_scope must be a list of module path prefixes, not the string 'left'",
        ),
        (
            branches(),
            {"guided_scope": ["nowhere"]},
            "guided_scope: no module in the forward pass has the path prefix 'nowhere'",
        ),
        (
            branches(),
            {"layer": "left", "outputs": ["class_weights"]},
            "class_weights: CAM requires global average pooling",
        ),
        (Returns(lambda y: (y, y)), {}, r"several tensors: 0 \(N, 7\), 1 \(N, 7\); choose"),
        (Returns(lambda y: y[:, :, None]), {}, "returns several vectors"),
        (Returns(lambda y: y * float(y.detach().sum())), {}, "cannot be traced"),
        (BatchDependent(), {}, "its code fixes the batch size"),
        (Returns(lambda y: y + bag(y)), {}, "cannot be written as ONNX without Loop, which a model file may not hold"),
        (branches(channels=5), {"preprocessing": Preprocessing()}, "3 values, but the network takes images of 5 chan"),
    ],
)
def test_refused_in_one_line(module: object, options: dict, message: str, tmp_path: Path) -> None:
    options = {"image_size": (40, 40), **options}
    if isinstance(module, nn.Module):
        module.eval()
    with pytest.raises(ExportError, match=message) as caught:
        export(module, tmp_path / "model.onnx", **options)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ["cat", "dog", "x" * 8193]}, "label 2: expected a string of at most 8192 bytes, not "),
        ({"labels": ["ü" * 4097, "dog"]}, "label 0: expected a string of at most 8192 bytes, not "),
        ({"labels": ["cat", 5]}, "label 1: expected a string, not 5"),
        ({"labels": ["cat", None]}, "label 1: expected a string, not null"),
        ({"labels": ["\ud83d", "dog"]}, "label 0: expected a string, not "),
        ({"name": "x" * 8193}, "name: expected a string of at most 8192 bytes, not "),
        ({"layer": "x" * 8193}, "layer: expected a string of at most 8192 bytes, not "),
        ({"source": "x" * 8193}, "source: expected a string of at most 8192 bytes, not "),
        ({"guided_scope": ["a", "x" * 8193]}, "prefix 1 of guided_scope: expected a string of at most 8192 bytes"),
    ],
)
def test_strings_are_checked_before_any_work(options: dict, message: str, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        export(Fails(), tmp_path / "model.onnx", **options)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 200


def test_a_target_layer_whose_name_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_late(*_: object) -> None:
        raise AssertionError("the work has begun")

    monkeypatch.setattr("seewhy_export.exporter.to_onnx", too_late)
    module = nn.Sequential()
    module.add_module("x" * 8193, nn.Conv2d(3, 4, 3))
    for name, part in {"pool": nn.AdaptiveAvgPool2d(1), "flat": nn.Flatten(), "head": nn.Linear(4, 2)}.items():
        module.add_module(name, part)
    with pytest.raises(ExportError, match="the target layer's name: expected a string of at most 8192 bytes, not "):
        export(module.eval(), tmp_path / "model.onnx", image_size=(16, 16))


class TwoStreams(nn.Module):
    """Network for six channels, three for each convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.left(x[:, :3]).relu() + self.right(x[:, 3:]).relu()
        return self.head(y.mean((2, 3)))


def test_a_wrong_guess_of_the_channels_names_the_argument(tmp_path: Path) -> None:
    hint = "; check the number of image channels .`channels`, --channels.$"
    module = live_weights(TwoStreams()).eval()
    with pytest.raises(ExportError, match=hint) as caught:
        export(module, tmp_path / "model.onnx", image_size=(8, 8))
    assert "\n" not in str(caught.value)
    export(module, tmp_path / "model.onnx", image_size=(8, 8), channels=6, verify=False)
    assert seewhy.Explainer(tmp_path / "model.onnx").metadata.channels == 6


class ChunkedWeights(nn.Module):
    """Network that splits a parameter into chunks and does not use all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
        self.scale = nn.Parameter(torch.full((1, 6), 0.5))

    def forward(self, x: Tensor) -> Tensor:
        first, second, _ = self.scale.chunk(3, 1)
        return self.head(self.conv(x).relu().mean((2, 3))) * first[:, :1].reshape(()) * second.sum()


def test_nothing_is_printed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    export(live_weights(ChunkedWeights()).eval(), tmp_path / "model.onnx", image_size=(8, 8))
    assert capfd.readouterr() == ("", "")
    # Lower levels are hidden by default.
    assert [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_a_folder_that_does_not_exist(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="cannot be written: No such file or directory"):
        export(branches(), tmp_path / "no" / "model.onnx", image_size=(40, 40))


def test_an_untested_output_is_named(tmp_path: Path) -> None:
    """All guided gradients are zero if all weights after the rectifier are negative."""

    class Negative(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 2)
            live_weights(self)
            self.head.weight.data = -self.head.weight.data.abs()

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.conv(x).relu().mean((2, 3)))

    report = export(Negative().eval(), tmp_path / "model.onnx", image_size=(8, 8))
    assert "guided_gradients: not tested, because it is zero on every test input" in report.messages
    assert report.parity["guided_gradients"]["noise"]["error"] is None
