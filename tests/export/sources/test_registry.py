"""Tests of `seewhy_export.sources.registry` and `seewhy export`: sources, weights, labels, help and errors."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import click
import pytest
import torch
from click.testing import CliRunner

import seewhy
from seewhy.cli.main import main
from seewhy.contract.metadata import Preprocessing
from seewhy.errors import ExportError
from seewhy_export.cli import export_command
from seewhy_export.sources.preprocessing_overrides import PreprocessingOverrides
from seewhy_export.sources.registry import load_source, recorded_source
from support.exporting.networks import branches

FACTORY = """
import torch
from torch import nn
from seewhy_export import Source

def small():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), *head)

def grey():
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), *head)

def two_heads():
    class TwoHeads(nn.Module):
        def __init__(self):
            super().__init__()
            self.base, self.a, self.b = nn.Conv2d(3, 4, 3), nn.Linear(4, 2), nn.Linear(4, 5)

        def forward(self, x):
            x = self.base(x).relu().mean((2, 3))
            return {"a": self.a(x), "b": self.b(x)}

    return TwoHeads()

def odd_name():
    return Source(small(), name="../escape")

def described():
    return Source(small(), labels=("cat", "dog"), image_size=(16, 24))

def long_labels():
    return Source(small(), labels=("cat", "x" * 8193))

def fails():
    raise ValueError("no GPU\\nhere")

def leaves():
    raise SystemExit(0)

nothing = 5
"""


@pytest.fixture
def factories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "my_factories.py").write_text(FACTORY)
    (tmp_path / "my_script.py").write_text("raise SystemExit(0)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def test_torchvision() -> None:
    source = load_source("torchvision:resnet18", "none", seed=3)
    assert source.labels is not None and len(source.labels) == 1000 and source.labels[281] == "tabby"
    assert source.image_size == (224, 224)
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    assert source.preprocessing == Preprocessing("shorter-side", 256, "bilinear", True, mean, std)
    again = load_source("torchvision:resnet18", "none", seed=3).module.state_dict()
    other = load_source("torchvision:resnet18", "none", seed=4).module.state_dict()
    name = "conv1.weight"
    assert torch.equal(source.module.state_dict()[name], again[name])
    assert not torch.equal(source.module.state_dict()[name], other[name])


def test_another_size_keeps_the_share_of_the_crop() -> None:
    source = load_source("torchvision:resnet18", "none", image_size=(448, 448))
    assert source.image_size == (448, 448)
    assert source.preprocessing is not None and source.preprocessing.size == 512


def test_squash() -> None:
    source = load_source(
        "torchvision:alexnet", "none", image_size=(512, 512), overrides=PreprocessingOverrides(resize="squash")
    )
    assert source.preprocessing is not None
    assert (source.preprocessing.resize, source.preprocessing.size, source.preprocessing.crop) == (
        "squash",
        None,
        False,
    )


def test_timm() -> None:
    timm = pytest.importorskip("timm")
    source = load_source("timm:resnet10t", "none")
    assert source.labels is not None and len(source.labels) == 1000 and "tabby" in source.labels[281]
    assert source.preprocessing is not None and source.preprocessing.resize == "shorter-side"
    theirs = timm.data.create_transform(**timm.data.resolve_model_data_config(source.module))
    assert source.preprocessing.size == theirs.transforms[0].size
    assert source.image_size == tuple(theirs.transforms[1].size)
    assert torch.equal(torch.tensor(source.preprocessing.mean), theirs.transforms[-1].mean)


def test_factories(factories: Path) -> None:
    source = load_source("my_factories:small")
    assert source.name == "small" and source.preprocessing is None
    assert load_source("my_factories:described").image_size == (16, 24)


def test_checkpoint(tmp_path: Path, factories: Path) -> None:
    module = load_source("my_factories:small").module
    path = tmp_path / "weights.pth"
    torch.save(module.state_dict(), path)
    loaded = load_source("my_factories:small", str(path), seed=9).module
    assert all(torch.equal(value, module.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_a_network_for_another_number_of_classes(tmp_path: Path) -> None:
    other = load_source("torchvision:squeezenet1_1", "none", class_count=5)
    assert other.labels is None
    torch.save({"model": other.module.state_dict()}, tmp_path / "five.pth")
    again = load_source("torchvision:squeezenet1_1", str(tmp_path / "five.pth"), seed=8, class_count=5)
    assert again.notes == ("five.pth: weights loaded from model",)
    with pytest.raises(
        ExportError, match="classifier.1.weight 5x512x1x1 instead of 1000x512x1x1, .* set it with --classes"
    ):
        load_source("torchvision:squeezenet1_1", str(tmp_path / "five.pth"))
    with pytest.raises(ExportError, match="its own weights are for 1000 classes"):
        load_source("torchvision:squeezenet1_1", class_count=5)


def test_timm_with_other_channels_and_classes() -> None:
    pytest.importorskip("timm")
    source = load_source("timm:test_resnet", "none", channels=1, class_count=4)
    assert source.module(torch.zeros(1, 1, 64, 64)).shape == (1, 4)
    assert (source.labels, source.preprocessing, source.channels) == (None, None, 1)
    assert "mean and std are not for 1 channels" in source.notes[0]
    described = load_source(
        "timm:test_resnet", "none", channels=1, overrides=PreprocessingOverrides(mean=(0.5,), std=(0.25,))
    )
    assert described.preprocessing is not None and described.preprocessing.mean == (0.5,)


@pytest.mark.parametrize(
    ("spec", "weights", "message"),
    [
        (
            "resnet18",
            "none",
            r"Unknown source 'resnet18'\. Did you mean 'torchvision:resnet18'\? Write torchvision:NAME, timm:NAME, ",
        ),
        (
            "zzz",
            "none",
            r"Unknown source 'zzz'\. Write torchvision:NAME, timm:NAME, transformers:ID_OR_FOLDER, package",
        ),
        (
            "torchvison:resnet50",
            "none",
            r"Unknown source 'torchvison:resnet50'\. Did you mean 'torchvision:resnet50'\?",
        ),
        ("Torchvision:resnet5O", "none", r"Did you mean 'torchvision:resnet50'\?$"),
        ("torchvision:resnet5O", "none", r"torchvision classifier 'resnet5O'\. Did you mean 'torchvision:resnet50'\?"),
        ("timm:resnet19", "none", r"Unknown timm model 'resnet19'\. Did you mean 'timm:resnet18'\?"),
        ("no_such_module:factory", "none", "no module named 'no_such_module'"),
        ("my_factories:nowhere", "none", "my_factories has no function 'nowhere'"),
        ("my_factories:nothing", "none", "my_factories has no function 'nothing'"),
        ("my_factories:smal", "none", r"my_factories has no function 'smal'\. Did you mean 'small'\?$"),
        ("my_factories:fails", "none", "calling fails.. failed: ValueError: no GPU"),
        ("my_factories:leaves", "none", "calling leaves.. failed: SystemExit: 0$"),
        ("my_script:small", "none", "importing my_script failed: SystemExit: 0$"),
        ("my_factories:small", "missing.pth", "missing.pth: cannot be read: No such file"),
        ("my_factories:small", "other.pth", "other.pth .*: does not fit the network: it lacks .* and has unknown"),
        (
            "other.pth",
            "none",
            "other.pth: is not an ONNX file; if it is a checkpoint, .* --weights other.pth",
        ),
    ],
)
def test_refused_in_one_line(spec: str, weights: str, message: str, factories: Path) -> None:
    torch.save(branches().state_dict(), factories / "other.pth")
    with pytest.raises(ExportError, match=message) as caught:
        load_source(spec, weights)
    assert "\n" not in str(caught.value)


def test_weights_that_cannot_be_downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))  # an empty cache of downloads
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ExportError, match="Network is unreachable; give --weights FILE, or --weights none"):
        load_source("torchvision:resnet18", "DEFAULT")


def test_the_command(factories: Path) -> None:
    arguments = [
        "export",
        "my_factories:described",
        "-o",
        "out.onnx",
        "--weights",
        "none",
        "--seed",
        "1",
        "--mean",
        "imagenet",
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    assert "input:        16x24 pixels, resize squash (bilinear), mean 0.485,0.456,0.406, std 0.229" in done.output
    assert "note:         the source does not define resizing, so squash to the input size is assumed" in done.output
    assert "target layer: 1 (4 maps of 16x24)" in done.output
    assert re.search(r"\nverified:     OK against PyTorch \(largest relative error \d+e-\d+; -v lists", done.output)
    assert "torch f32" not in done.output and " kB in " in done.output
    assert "rectifiers:   1 of 1 guided (1 relu)" in done.output
    assert "input_gradients" in done.output and "class_weights" in done.output
    explainer = seewhy.Explainer("out.onnx")
    assert explainer.labels == ("cat", "dog") and explainer.metadata.model.source == "my_factories:described"
    assert explainer.metadata.preprocessing == Preprocessing("squash", crop=False)
    verbose = CliRunner().invoke(main, [*arguments, "-v"])
    assert verbose.exit_code == 0 and "-v lists" not in verbose.output
    assert re.search(r"\nlogits +\d\.\de-\d\d +\(", verbose.output), verbose.output


def test_a_file_for_arrays_only(factories: Path) -> None:
    arguments = "export my_factories:small --size 12 --no-preprocessing --no-verify -o out.onnx"
    done = CliRunner().invoke(main, arguments.split())
    assert done.exit_code == 0, done.output
    assert "input:        12x12 pixels, arrays that are already preprocessed" in done.output
    assert "note:         no preprocessing is recorded, so the file explains only arrays" in done.output
    assert seewhy.Explainer("out.onnx").metadata.preprocessing is None


def test_imagenet_stands_for_its_values(factories: Path) -> None:
    for option, expected in {
        "--mean imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "--mean ImageNet --std 1": ((0.485, 0.456, 0.406), (1.0, 1.0, 1.0)),
        "--mean 0 --std imagenet": ((0.0, 0.0, 0.0), (0.229, 0.224, 0.225)),
    }.items():
        arguments = f"export my_factories:small --size 12 --outputs logits --no-verify -o out.onnx {option}"
        done = CliRunner().invoke(main, arguments.split())
        assert done.exit_code == 0, done.output
        preprocessing = seewhy.Explainer("out.onnx").metadata.preprocessing
        assert preprocessing is not None and (preprocessing.mean, preprocessing.std) == expected


def test_the_layers_are_listed_and_nothing_is_written(factories: Path) -> None:
    before = sorted(factories.iterdir())
    done = CliRunner().invoke(main, "export my_factories:small --size 12 --list-layers".split())
    assert done.exit_code == 0, done.output
    assert done.output.splitlines() == [
        "layer  type               output",
        "0      Conv2d             (N, 4, 12, 12)",
        "1      ReLU               (N, 4, 12, 12)  default",
        "2      AdaptiveAvgPool2d  (N, 4, 1, 1)",
    ]
    assert [file for file in sorted(factories.iterdir()) if file.name != "__pycache__"] == before


def test_a_checkpoint_with_all_options(factories: Path) -> None:
    module = load_source("my_factories:small").module
    torch.save({"state_dict": {f"module.{k}": v for k, v in module.state_dict().items()}, "epoch": 3}, "best.pth")
    Path("names.txt").write_text("cat\nBengal\u202ecat\n", encoding="utf-8")
    arguments = (
        "export my_factories:small --weights best.pth --labels names.txt --score Sigmoid --name cats --size 16x24 "
        "--mean 0.5,0.4,0.3 --std 0.25 --interpolation bicubic --resize shorter-side --resize-size 30 --no-crop "
        "--channel-order bgr"
    )
    done = CliRunner().invoke(main, arguments.split())
    assert done.exit_code == 0, done.output
    assert "note:         best.pth: weights loaded from state_dict, with the prefix 'module.'" in done.output
    explainer = seewhy.Explainer("cats.onnx")
    assert explainer.labels == ("cat", "Bengal\u202ecat") and explainer.metadata.score_kind == "sigmoid"
    assert explainer.metadata.model.name == "cats"
    assert explainer.metadata.preprocessing == Preprocessing(
        "shorter-side", 30, "bicubic", False, (0.5, 0.4, 0.3), (0.25,) * 3, "BGR"
    )
    images = torch.randn(2, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = module.eval()(images)
    found = explainer.explain(images.numpy(), method="gradcam").logits
    torch.testing.assert_close(torch.from_numpy(found), expected)


@pytest.mark.parametrize("seed", [-(2**63), 2**64 - 1])
def test_the_smallest_and_largest_seed(seed: int, factories: Path) -> None:
    done = CliRunner().invoke(
        main, f"export my_factories:small --size 12 --no-verify --no-preprocessing --seed {seed}".split()
    )
    assert done.exit_code == 0, done.output


def test_grey_images(factories: Path) -> None:
    done = CliRunner().invoke(main, "export my_factories:grey --size 12 --mean 0.5 --std 0.25 --no-verify".split())
    assert done.exit_code == 0, done.output
    metadata = seewhy.Explainer("grey.onnx").metadata
    assert metadata.channels == 1 and metadata.preprocessing is not None and metadata.preprocessing.mean == (0.5,)


def test_several_heads(factories: Path) -> None:
    done = CliRunner().invoke(
        main, "export my_factories:two_heads --size 12 --head b --no-verify --no-preprocessing".split()
    )
    assert done.exit_code == 0, done.output
    assert seewhy.Explainer("two_heads.onnx").metadata.class_count == 5
    done = CliRunner().invoke(
        main, "export my_factories:two_heads --size 12 --head 0 --no-verify --no-preprocessing".split()
    )
    assert done.exit_code == 0, done.output
    assert seewhy.Explainer("two_heads.onnx").metadata.class_count == 2


def test_the_help_puts_every_option_into_a_group() -> None:
    text = CliRunner().invoke(main, ["export", "--help"]).output
    titles = [line[:-1] for line in text.splitlines() if line.endswith(":") and not line.startswith(" ")]
    assert titles == [
        *("Source and weights", "Input and preprocessing", "Explanations", "Output", "Other options", "Examples"),
    ]
    assert text.partition("Other options:\n")[2].startswith("  -h, --help  Show this message and exit.\n\nExamples:")
    for option in export_command.params:
        if isinstance(option, click.Option):
            assert option.help and option.help.endswith("."), option.name


def test_the_commands_options(factories: Path) -> None:
    arguments = "export my_factories:small --weights none --size 20x30 --layer 0 --outputs input_gradients --no-verify "
    arguments += "--no-preprocessing"
    done = CliRunner().invoke(main, arguments.split())
    assert done.exit_code == 0, done.output
    assert "target layer: 0 (4 maps of 20x30)" in done.output and "verified:     no; the comparison" in done.output
    metadata = seewhy.Explainer("small.onnx").metadata
    assert metadata.image_size == (20, 30) and metadata.parity == {} and metadata.layer is None


def test_the_demo_does_not_write_into_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["demo", "-o", ""])
    assert done.exit_code == 2 and len(done.output.splitlines()) == 1
    assert "-o / --output is empty; is a variable not set?" in done.output
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "my_factories:small --size big",
            "'--size': must be a side such as 512, or height x width such as 480x640, not 'big'",
        ),
        ("my_factories:small --size 0x5", "'--size': height and width must be at least 1 pixel, not '0x5'"),
        ("my_factories:small --resize squash", "the source does not define how pixels are normalised"),
        ("my_factories:small", "my_factories:small: the source does not define how pixels are normalised; give --mean"),
        ("my_factories:small --no-preprocessing --std 1", "--no-preprocessing excludes the options that define a"),
        ("my_factories:small --layer one --no-preprocessing", "Unknown layer 'one'"),
        ("my_factories:small --outputs heat --no-preprocessing", "Unknown output 'heat'"),
        ("my_factories:small -o no/out.onnx --no-preprocessing", "no/out.onnx: cannot be written"),
        ("torchvision:resnet19 --weights none", "Unknown torchvision classifier"),
        (
            "my_factories:small --mean dark --std 1",
            "'--mean': must be one number, one number per channel separated by commas, or imagenet, not 'dark'",
        ),
        (
            "my_factories:small --mean 0.5, --std 1",
            "'--mean': must be one number, one number per channel separated by commas, or imagenet, not '0.5,'",
        ),
        ("my_factories:small --mean 124 --std 1", "--mean 124: must be between -1 and 1"),
        ("my_factories:small --mean 0.5,0.5 --std 1 --channels 3", "--mean 0.5,0.5: 2 values for 3 channels"),
        (
            "my_factories:small --mean 0 --std 1 --resize-size 9",
            "--resize-size 9 requires --resize shorter-side or --resize squash",
        ),
        ("my_factories:small --interpolation cubic", "'--interpolation': 'cubic' is not one of"),
        ("my_factories:small --resize crop", "'--resize': 'crop' is not one of"),
        ("my_factories:small --channel-order GRB", "'--channel-order': 'GRB' is not one of"),
        ("my_factories:small --score relu", "'--score': 'relu' is not one of"),
        ("torchvision:alexnet --weights none --channels 1", "torchvision:alexnet: takes images of 3 channels"),
        (f"my_factories:small --seed {10**22}", f"'--seed': must be from -2**63 to 2**64 - 1, not {10**22}"),
        (
            f"my_factories:small --seed {-(2**63) - 1}",
            "'--seed': must be from -2**63 to 2**64 - 1, not -9223372036854775809",
        ),
        ("my_factories:leaves", "my_factories:leaves: calling leaves() failed: SystemExit: 0"),
        ("my_factories:small --channels 0", "'--channels': 0 is not in the range"),
        ("my_factories:small --classes 5", "the function defines the number of classes; leave --classes out"),
        ("my_factories:small --labels none.txt", "none.txt: cannot be read: No such file"),
        ("my_factories:small --size 12 --labels three.txt --no-preprocessing", "three.txt: 3 labels for 2 classes"),
        ("my_factories:small --weights none.pth", "none.pth: cannot be read: No such file"),
        ("my_factories:small --weights-key model", "--weights-key model requires --weights FILE"),
        ("my_factories:two_heads --size 12 --head c --no-preprocessing", "no output 'c'"),
        (
            "my_factories:odd_name --size 12 --no-preprocessing",
            "'../escape' cannot be a file name; choose the file to write with -o",
        ),
        (
            "my_factories:small --size 12 --name a:b --no-preprocessing",
            "'a:b' cannot be a file name; choose the file to write with -o",
        ),
        ("--weights none", "Missing argument 'SOURCE'"),
        ("my_factories:small -o ''", "-o / --output is empty; is a variable not set?"),
        ("my_factories:small --labels ''", "--labels is empty; is a variable not set?"),
        ("my_factories:small --weights ''", "'--weights': must not be empty"),
        ("'' --weights none", "'SOURCE': must not be empty"),
        (f"my_factories:fails --name {'x' * 8193}", "--name: expected a string of at most 8192 bytes"),
        (f"my_factories:fails --layer {'x' * 8193}", "--layer: expected a string of at most 8192 bytes"),
        (f"my_factories:{'x' * 8193}", "SOURCE: expected a string of at most 8192 bytes"),
        ("my_factories:fails --labels long.txt", "long.txt: label 1: expected a string of at most 8192 bytes"),
        ("my_factories:long_labels --no-preprocessing", "label 1: expected a string of at most 8192 bytes"),
        ("my_factories:small --wieghts none", "No such option: --wieghts. Did you mean --weights?"),
    ],
)
def test_the_commands_errors(arguments: str, message: str, factories: Path) -> None:
    Path("three.txt").write_text("a\nb\nc\n")
    Path("long.txt").write_text("a\n" + "x" * 8193)
    before = sorted(factories.iterdir())
    done = CliRunner().invoke(main, ["export", *shlex.split(arguments)])
    assert [file for file in sorted(factories.iterdir()) if file.name != "__pycache__"] == before
    assert done.exit_code == 2
    assert message in done.output and "Traceback" not in done.output
    assert len(done.output.splitlines()) == 1 and done.output.startswith("seewhy: error: ")


def test_grey_timm_models_keep_their_own_mean(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", num_classes=3, in_chans=1)
    settings = {"pretrained_cfg": {"mean": [0.2], "std": [0.4]}}
    data = {"input_size": [1, 64, 64], "mean": [0.2], "std": [0.4]}
    timm.models.save_for_hf(network, tmp_path / "grey", model_config=settings | data, safe_serialization=True)
    config = json.loads((tmp_path / "grey" / "config.json").read_text())
    config["pretrained_cfg"] |= data
    (tmp_path / "grey" / "config.json").write_text(json.dumps(config))
    source = load_source(f"timm:{tmp_path / 'grey'}")
    assert source.channels == 1 and source.preprocessing is not None
    assert (source.preprocessing.mean, source.preprocessing.std) == ((0.2,), (0.4,))


def test_folders_of_this_machine_are_not_recorded(tmp_path: Path) -> None:
    assert recorded_source(f"transformers:{tmp_path}") == f"transformers:{tmp_path.name}"
    assert recorded_source(f"timm:{tmp_path}/.") == f"timm:{tmp_path.name}"
    assert recorded_source(str(tmp_path / "net.onnx")) == "net.onnx"
    assert recorded_source("transformers:google/vit") == "transformers:google/vit"


def test_a_timm_folder(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", num_classes=3)
    settings = {"label_names": ["a", "b", "c"], "label_descriptions": {"a": "apple"}}
    timm.models.save_for_hf(network, tmp_path / "mine", model_config=settings, safe_serialization=True)
    source = load_source(f"timm:{tmp_path / 'mine'}")
    assert (source.name, source.labels) == ("mine", ("apple", "b", "c"))
    assert source.preprocessing is not None and source.preprocessing.resize == "shorter-side"
    expected, found = network.state_dict(), source.module.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
    timm.models.save_for_hf(network, tmp_path / "pickled", model_config=settings, safe_serialization=False)
    with pytest.raises(ExportError, match="pickled: the folder holds no model.safetensors; save the model with"):
        load_source(f"timm:{tmp_path / 'pickled'}")


def test_a_timm_model_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub is replaced by a folder with its files."""
    timm = pytest.importorskip("timm")
    network = timm.create_model("test_resnet", num_classes=3)
    timm.models.save_for_hf(network, tmp_path, model_config={"label_names": ["a", "b", "c"]}, safe_serialization=True)

    def download(repo_id: str, filename: str, **_: object) -> str:
        assert repo_id == "me/pets"
        return str(tmp_path / filename)

    monkeypatch.setattr("timm.models._hub.hf_hub_download", download)
    source = load_source("timm:hf_hub:me/pets")
    assert source.labels == ("a", "b", "c") and source.image_size == (160, 160)
    expected, found = network.state_dict(), source.module.state_dict()
    assert all(torch.equal(expected[key], found[key]) for key in expected)
