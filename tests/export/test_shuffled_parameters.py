"""Model files whose parameters are shuffled equal the files of networks whose parameters are shuffled alike.

A second copy of a parameter anywhere in a file would keep its old values, and an output would differ.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from seewhy import Explainer
from seewhy.contract import constants as contract
from seewhy.runtime.checked_runs import GraphRunner
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.parameter_shuffling import with_shuffled_values
from seewhy.runtime.sessions import SessionCache
from seewhy_export import export
from seewhy_export.sources.torchvision_import import import_torchvision
from support.exporting.networks import live_weights
from support.exporting.onnx_models import classifier, loaded, node, random

SEED = 5


class Tied(nn.Module):
    """Two convolutions with one weight, and a plain parameter that the network's own code uses."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.second, self.third = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.third.weight = self.second.weight
        self.scale = nn.Parameter(torch.rand(8, 1, 1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.second(torch.relu(self.first(x))))
        return self.head((torch.relu(self.third(x)) * self.scale).mean((2, 3)))


class LearnedPower(nn.Module):
    """Generalised mean pooling (Radenovic et al. 2018), whose derivative needs p - 1 beside p and 1 / p; and PReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.activation = nn.PReLU(8)
        self.power = nn.Parameter(torch.linspace(1.5, 3, 8).reshape(1, 8, 1, 1))
        self.gate = nn.Parameter(torch.linspace(0.1, 0.9, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.features(x))
        x = x.abs().clamp(min=1e-3).pow(self.power).mean((2, 3), keepdim=True).pow(1 / self.power).flatten(1)
        return self.head(x * self.gate + x.flip(1) * (1 - self.gate))


class Computed(nn.Module):
    """Values computed from parameters: weight norm, interpolated positions, a gate and its complement."""

    def __init__(self) -> None:
        super().__init__()
        self.features = torch.nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 8, 3, stride=2, padding=1))
        self.positions = nn.Parameter(0.3 * torch.randn(1, 8, 4, 4))
        self.gate = nn.Parameter(torch.linspace(-2, 2, 8))
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.features(x))
        x = torch.tanh(x + nn.functional.interpolate(self.positions, x.shape[2:], mode="bilinear"))
        share = torch.sigmoid(self.gate)[:, None, None]
        return self.head((x * share + x.flip(1) * x * (1 - share)).mean((2, 3)))


class Attention(nn.Module):
    """Queries, keys and values as slices of one weight, learned positions, and layer scale."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 4, stride=4)
        self.positions = nn.Parameter(0.1 * torch.randn(1, 64, 16))
        self.norm = nn.LayerNorm(16)
        self.qkv = nn.Parameter(0.3 * torch.randn(48, 16))
        self.layer_scale = nn.Parameter(torch.rand(16))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).flatten(2).transpose(1, 2) + self.positions
        q, k, v = (self.norm(x) @ part.t() for part in self.qkv.chunk(3))
        x = x + self.layer_scale * (torch.softmax(q @ k.transpose(1, 2) / 4, -1) @ v)
        return self.head(x.mean(1))


def _torchvision(name: str, **options: object) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        return getattr(import_torchvision().models, name)(num_classes=5, **options)

    return make


def _vit() -> nn.Module:
    return import_torchvision().models.VisionTransformer(32, 8, 2, 2, 32, 64, num_classes=5)


def _swin() -> nn.Module:
    return import_torchvision().models.SwinTransformer(
        [2, 2], 16, [2, 2], [2, 2], [4, 4], stochastic_depth_prob=0.0, num_classes=5
    )


def _convnext() -> nn.Module:
    blocks = import_torchvision().models.convnext
    settings = [blocks.CNBlockConfig(16, 32, 1), blocks.CNBlockConfig(32, None, 1)]
    return blocks.ConvNeXt(settings, num_classes=5)


def _densenet() -> nn.Module:
    return import_torchvision().models.DenseNet(8, (2, 2), 16, num_classes=5)


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "tied": Tied,
    "learned-power": LearnedPower,
    "attention": Attention,
    "resnet": _torchvision("resnet18"),
    "densenet": _densenet,
    "mobilenet-v3": _torchvision("mobilenet_v3_small"),
    "efficientnet": _torchvision("efficientnet_b0"),
    "convnext": _convnext,
    "vit": _vit,
    "swin": _swin,
}
LARGE = {"efficientnet", "mobilenet-v3", "resnet"}


def _network(name: str) -> nn.Module:
    torch.manual_seed(0)
    module = NETWORKS[name]()
    if name == "learned-power":
        return module.eval()
    return live_weights(module).eval()


def _run(model: ModelFile, images: np.ndarray) -> dict[str, np.ndarray]:
    run = GraphRunner(model, SessionCache(model, ["cpu"], 1))
    targets = np.arange(len(images)) % model.metadata.class_count
    return run(frozenset(model.outputs), {"images": images, "targets": targets}, range(len(images)))


def _listed(model: ModelFile) -> list[str]:
    assert model.metadata.parameters
    return [name for group in model.metadata.parameters for name in group.tensors]


def _twin(module: nn.Module, model: ModelFile) -> nn.Module:
    """Return a copy of the network with the values of the model file.

    A convolution takes the kernel and the bias into which its norm was folded, and the norm does nothing.
    """
    twin = copy.deepcopy(module)
    values = {name: torch.from_numpy(np.array(value)) for name, value in model.values(_listed(model)).items()}
    parameters = dict(twin.named_parameters(remove_duplicate=False))
    for group in model.metadata.parameters or ():
        for name in group.tensors:
            if name in parameters:
                parameters[name].data = values[name]
                continue
            convolution = twin.get_submodule(group.module)
            assert isinstance(convolution, nn.Conv2d), name
            if values[name].dim() == 4:
                convolution.weight = nn.Parameter(values[name])
            else:
                convolution.bias = nn.Parameter(values[name])
    for path, part in list(twin.named_modules()):
        if isinstance(part, nn.BatchNorm2d) and f"{path}.weight" not in values:
            parent, _, child = path.rpartition(".")
            setattr(twin.get_submodule(parent), child, nn.Identity())
    return twin


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if n in LARGE else n for n in NETWORKS])
def test_a_file_with_shuffled_parameters_equals_the_file_of_the_shuffled_network(name: str, tmp_path: Path) -> None:
    module, size = _network(name), 32
    export(module, tmp_path / "m.onnx", image_size=size, verify=False)
    model = ModelFile.read(tmp_path / "m.onnx")
    shuffled = with_shuffled_values(model, _listed(model), SEED)
    twin = _twin(module, shuffled)
    export(twin, tmp_path / "twin.onnx", image_size=size, verify=False, layer=_layer(model, module))

    images = np.random.default_rng(1).standard_normal((3, 3, size, size)).astype(np.float32)
    before, after, expected = (_run(one, images) for one in (model, shuffled, ModelFile.read(tmp_path / "twin.onnx")))
    assert not np.allclose(before["logits"], after["logits"], rtol=0.01)
    assert after.keys() == expected.keys() and "input_gradients" in after
    for output, value in expected.items():
        scale = np.abs(value).max()
        assert scale > 0
        np.testing.assert_allclose(after[output] / scale, value / scale, atol=2e-5, err_msg=output)

    pixels = torch.from_numpy(images).double().requires_grad_(True)
    logits = twin.double()(pixels)
    logits[torch.arange(3), torch.arange(3) % 5].sum().backward()
    assert pixels.grad is not None
    for output, value in (("logits", logits.detach()), ("input_gradients", pixels.grad)):
        scale = float(value.abs().max())
        np.testing.assert_allclose(after[output] / scale, value.numpy() / scale, atol=1e-4, err_msg=output)


def _layer(model: ModelFile, module: nn.Module) -> str | None:
    """Return the target layer by its name if it is a module; identities in place of norms may change the choice."""
    layer = model.metadata.layer
    return layer.name if layer is not None and layer.name in dict(module.named_modules()) else None


@pytest.mark.parametrize("name", ["tied", "densenet", "attention", "swin"])
def test_every_parameter_is_listed_once_and_counts(name: str, tmp_path: Path) -> None:
    module = _network(name)
    export(module, tmp_path / "m.onnx", image_size=32, verify=False)
    model = ModelFile.read(tmp_path / "m.onnx")
    images = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)
    logits = _run(model, images)["logits"]
    for tensor in _listed(model):
        if np.ptp(model.values([tensor])[tensor]) > 0:
            changed = _run(with_shuffled_values(model, [tensor], SEED), images)["logits"]
            # Adding one number to all keys changes no softmax, so the bias of keys may be without effect.
            assert not np.array_equal(changed, logits), tensor
    stored = sum(tensor.ByteSize() for tensor in model.proto.graph.initializer if tensor.name in _listed(model))
    own = sum(value.numel() * 4 for value in module.parameters())
    assert stored < own * 1.05 + 5_000


def test_gradients_follow_shuffled_values_that_are_computed_from_parameters(tmp_path: Path) -> None:
    """Compare with differences of the file's own logits in a random direction."""
    torch.manual_seed(0)
    export(Computed().eval(), tmp_path / "m.onnx", image_size=32, outputs=["input_gradients"])
    model = ModelFile.read(tmp_path / "m.onnx")
    shuffled = with_shuffled_values(model, _listed(model), SEED)
    assert [group.module for group in model.metadata.parameters or ()] == ["head", "", "features"]
    rng = np.random.default_rng(2)
    images, direction = rng.standard_normal((2, 2, 3, 32, 32)).astype(np.float32)
    ahead, behind = (_run(shuffled, images + step * direction)["logits"] for step in (0.02, -0.02))
    found = (_run(shuffled, images)["input_gradients"] * direction).sum((1, 2, 3))
    np.testing.assert_allclose(found, np.diagonal(ahead - behind) / 0.04, rtol=0.01)
    plain = (_run(model, images)["input_gradients"] * direction).sum((1, 2, 3))
    assert np.abs(plain - found).max() > 0.1 * np.abs(found).max()


def test_groups_go_from_the_output_down(tmp_path: Path) -> None:
    export(_network("tied"), tmp_path / "m.onnx", image_size=32, verify=False)
    groups = ModelFile.read(tmp_path / "m.onnx").metadata.parameters
    assert groups is not None
    assert [group.module for group in groups] == ["head", "", "third", "second", "first"]
    tensors = {group.module: set(group.tensors) for group in groups}
    # The first of two modules that share a weight owns it.
    assert len(tensors["second"]) == 2 and tensors["third"] == {"third.bias"}
    assert tensors["head"] == {"head.weight", "head.bias"} and tensors[""] == {"scale"}


def test_a_folded_norm_belongs_to_its_convolution(tmp_path: Path) -> None:
    module = live_weights(
        nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)
        )
    ).eval()
    export(module, tmp_path / "m.onnx", image_size=16, verify=False)
    model = ModelFile.read(tmp_path / "m.onnx")
    groups = model.metadata.parameters
    assert groups is not None and [group.module for group in groups] == ["5", "0"]
    shapes = {tuple(value.shape) for value in model.values(groups[1].tensors).values()}
    assert shapes == {(8, 3, 3, 3), (8,)}


def test_layers_with_equal_values_stay_two_layers(tmp_path: Path) -> None:
    convolution = nn.Conv2d(8, 8, 3, padding=1)
    module = live_weights(
        nn.Sequential(
            nn.Conv2d(3, 8, 1), convolution, nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5),
        )
    ).eval()  # fmt: skip
    module[3].load_state_dict(module[1].state_dict())
    export(module, tmp_path / "m.onnx", image_size=16, verify=False)
    groups = ModelFile.read(tmp_path / "m.onnx").metadata.parameters
    assert groups is not None and [len(group.tensors) for group in groups] == [2, 2, 2, 2]


def test_a_network_from_onnx_lists_its_weights_by_node(tmp_path: Path) -> None:
    model = classifier(size=32)
    before, last = model.graph.node[3], model.graph.node[4]
    before.output[0], last.input[0] = "d0", "d"
    norm = {
        f"norm.{name}": random(10, seed=seed, low=0.5) for seed, name in enumerate(("gamma", "beta", "mean", "var"))
    }
    model.graph.node.insert(4, node("BatchNormalization", ["d0", *norm], ["d"], name="/norm/BatchNormalization"))
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in norm.items())
    export(loaded(model, tmp_path).module, tmp_path / "m.onnx", image_size=32, verify=False)
    written = ModelFile.read(tmp_path / "m.onnx")
    found = {
        group.module: {value.shape for value in written.values(group.tensors).values()}
        for group in written.metadata.parameters or ()
    }
    assert list(found.values()) == [{(5, 10), (5,)}, {(10, 8, 3, 3), (10,)}, {(8, 3, 3, 3), (8,)}]
    assert [module.split("_")[0] for module in found] == ["fc", "last", "features"]


def test_weights_beside_the_file_are_shuffled_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = _network("attention")
    export(module, tmp_path / "inside.onnx", image_size=32, verify=False)
    monkeypatch.setattr(contract, "EXTERNAL_DATA_THRESHOLD", 1000)
    export(module, tmp_path / "beside.onnx", image_size=32, verify=False)
    assert (tmp_path / "beside.onnx.data").exists()
    images = np.random.default_rng(1).standard_normal((2, 3, 32, 32)).astype(np.float32)
    found = []
    for name in ("inside", "beside"):
        explainer = Explainer(tmp_path / f"{name}.onnx", threads=1)
        tensors = [tensor for group in explainer.metadata.parameters or () for tensor in group.tensors]
        plain = explainer.explain(images, "backprop").attributions
        shuffled = explainer.with_shuffled_parameters(tensors, SEED)
        found.append(shuffled.explain(images, "backprop").attributions)
        np.testing.assert_array_equal(shuffled.with_threads(2).explain(images, "backprop").attributions, found[-1])
        np.testing.assert_array_equal(explainer.explain(images, "backprop").attributions, plain)
        assert not np.allclose(plain, found[-1])
        assert shuffled.sha256 == explainer.sha256
    np.testing.assert_array_equal(*found)
    assert onnx.load(tmp_path / "beside.onnx", load_external_data=False).graph.initializer
