"""Tests of `seewhy_export.sources.transformers_models` with folders that `save_pretrained` wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from seewhy.contract.metadata import Metadata, ModelInfo, Preprocessing, Rectifiers
from seewhy.errors import ExportError, MissingExtraError
from seewhy.images.preprocessing import load_image, normalise
from seewhy_export.sources import transformers_models
from seewhy_export.sources.preprocessing_overrides import PreprocessingOverrides
from seewhy_export.sources.registry import load_source
from support.exporting.networks import live_weights
from support.exporting.transformers_networks import CLASS_COUNT, CONFIGS, transformers_network

transformers = pytest.importorskip("transformers")

LABELS = {0: "кот", 1: "犬", **{index: f"class {index}" for index in range(2, CLASS_COUNT)}}


def saved(folder: Path, name: str = "vit", processor: Any = None, **config: Any) -> Any:
    """Save a small classifier with live weights and an image processor, and return it."""
    network, size = transformers_network(name)
    live_weights(network)
    for key, value in config.items():
        setattr(network.config, key, value)
    network.save_pretrained(folder)
    if processor is None:
        processor = transformers.ViTImageProcessorPil(size={"height": size[0], "width": size[1]})
    processor.save_pretrained(folder)
    return network


@pytest.mark.parametrize("name", CONFIGS)
def test_a_folder_gives_back_the_network(name: str, tmp_path: Path) -> None:
    network = saved(tmp_path / "mine", name, id2label=LABELS)
    source = load_source(f"transformers:{tmp_path / 'mine'}")
    assert source.name == "mine" and source.score == "softmax" and source.channels in (3, None)
    assert source.labels == tuple(LABELS.values())
    expected, found = network.state_dict(), source.module.state_dict()
    assert expected.keys() == found.keys()
    assert all(torch.equal(expected[key], found[key]) for key in expected)


PROCESSORS: dict[str, dict[str, Any]] = {
    "BeitImageProcessor": {"do_center_crop": True, "crop_size": {"height": 28, "width": 24}},
    "BitImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": {"height": 33, "width": 32}},
    "CLIPImageProcessor": {"size": {"shortest_edge": 33}, "crop_size": 32},
    "ConvNextImageProcessor": {"size": {"shortest_edge": 64}, "crop_pct": 0.875},
    "DeiTImageProcessor": {"size": {"height": 40, "width": 40}, "crop_size": {"height": 31, "width": 32}},
    "EfficientNetImageProcessor": {"size": {"height": 48, "width": 32}},
    "LevitImageProcessor": {"size": {"shortest_edge": 48}, "crop_size": {"height": 42, "width": 42}},
    "MobileNetV2ImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": {"height": 33, "width": 33}},
    "MobileViTImageProcessor": {"size": {"shortest_edge": 40}, "crop_size": {"height": 48, "width": 48}},
    "PoolFormerImageProcessor": {"size": {"shortest_edge": 48}, "crop_size": {"height": 40, "width": 40}},
    "SegformerImageProcessor": {"size": {"height": 64, "width": 80}},
    "SiglipImageProcessor": {"size": {"height": 32, "width": 32}, "resample": 2},
    "ViTImageProcessor": {"size": {"height": 32, "width": 40}, "resample": 0, "rescale_factor": 1 / 127.5},
}


@pytest.fixture(scope="module")
def vit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("vit") / "vit"
    saved(folder)
    return folder


def preprocessed(image: Image.Image, how: Preprocessing, size: tuple[int, int]) -> np.ndarray:
    """Return the engine's pixels and input (C, H, W)."""
    data = Metadata(ModelInfo("", "", ""), size, 3, 2, None, how, None, "softmax", Rectifiers(), {}, {})
    return normalise([load_image(image, data)], data)[0]


@pytest.mark.parametrize("name", PROCESSORS)
def test_pixels_equal_the_image_processor(
    name: str, vit_folder: Path, make_image: Callable[..., Image.Image], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PROCESSORS[name]
    processor = getattr(transformers, name + "Pil")(**settings)
    processor.save_pretrained(vit_folder)
    source = load_source(f"transformers:{vit_folder}")
    assert source.preprocessing is not None
    std = np.array(source.preprocessing.std).reshape(3, 1, 1)
    for size in ((100, 75), (75, 101), (64, 64), (40, 300), (47, 53)):
        image = make_image(*size, seed=sum(size))
        expected = processor(image, return_tensors="np")["pixel_values"][0]
        ours = preprocessed(image, source.preprocessing, source.image_size)
        # Float32 rounding of values up to 3. A grey level is 1 / 255 / std, at least some 0.004.
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)
    # The torchvision backend resizes tensors and rounds differently: within one grey level on a smooth image.
    y, x = np.mgrid[0:90, 0:120]
    smooth = Image.fromarray(np.stack([x, y, x + y], 2).astype(np.uint8))
    theirs = getattr(transformers, name)(**settings)(smooth, return_tensors="np")["pixel_values"][0]
    levels = np.abs(preprocessed(smooth, source.preprocessing, source.image_size) - theirs) * std * 255
    assert levels.max() <= 1.01


@pytest.mark.parametrize(
    ("problem", "count", "score"),
    [
        (None, 7, "softmax"),
        ("single_label_classification", 7, "softmax"),
        ("multi_label_classification", 7, "sigmoid"),
        ("regression", 7, "none"),
        (None, 1, "none"),
    ],
)
def test_the_problem_type_sets_the_score(problem: str | None, count: int, score: str, tmp_path: Path) -> None:
    saved(tmp_path)
    config = transformers.AutoConfig.from_pretrained(tmp_path, num_labels=count, problem_type=problem)
    config.save_pretrained(tmp_path)
    source = load_source(f"transformers:{tmp_path}", "none")
    assert source.score == score
    assert source.labels is None  # transformers' own LABEL_0, LABEL_1 ... say nothing


def test_weights_from_elsewhere(tmp_path: Path) -> None:
    network = saved(tmp_path / "a")
    spec = f"transformers:{tmp_path / 'a'}"
    key = "classifier.weight"
    random = load_source(spec, "none", seed=3)
    assert not torch.equal(random.module.state_dict()[key], network.state_dict()[key])
    torch.save(network.state_dict(), tmp_path / "tuned.pth")
    tuned = load_source(spec, str(tmp_path / "tuned.pth"))
    assert torch.equal(tuned.module.state_dict()[key], network.state_dict()[key])
    other = load_source(spec, "none", class_count=4, channels=1)
    assert other.module(torch.zeros(1, 1, 32, 32)).logits.shape == (1, 4) and other.channels == 1
    assert other.labels is None
    # save_pretrained writes other names than the network's own.
    with pytest.raises(ExportError, match=r"does not fit .* export its whole folder: seewhy export transformers:.*a$"):
        load_source(spec, str(tmp_path / "a" / "model.safetensors"))


def test_without_an_image_processor(tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "preprocessor_config.json").unlink()
    source = load_source(f"transformers:{tmp_path}")
    assert source.preprocessing is None and source.image_size == (32, 32)
    assert "has no image processor" in source.notes[0] and "set --mean and --std" in source.notes[0]


def test_grey_images(tmp_path: Path) -> None:
    network = transformers.ResNetForImageClassification(
        transformers.ResNetConfig(num_channels=1, **CONFIGS["resnet"], num_labels=3)
    )
    network.save_pretrained(tmp_path)
    transformers.ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    source = load_source(f"transformers:{tmp_path}")
    assert source.channels == 1 and source.preprocessing is None
    assert "its image processor is not for 1 channels; set --mean and --std" in source.notes[0]
    given = load_source(f"transformers:{tmp_path}", overrides=PreprocessingOverrides(mean=(0.5,), std=(0.25,)))
    assert given.preprocessing is not None and given.preprocessing.mean == (0.5,)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ("[1]", "its image processor cannot be loaded: "),
        ('{"image_processor_type": 5}', "its image processor cannot be loaded: "),
        ('{"image_processor_type": "ViTImageProcessor", "size": {"height": 1000000, "width": 9}}', "1,000,000 pixels"),
    ],
)
def test_damaged_image_processors(settings: str, message: str, tmp_path: Path) -> None:
    saved(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(settings)
    with pytest.raises(ExportError, match=message) as caught:
        load_source(f"transformers:{tmp_path}")
    assert "\n" not in str(caught.value)


def test_names_in_the_weights_are_not_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    network = saved(tmp_path)
    weights = {**network.state_dict(), "\x1b]0;title\x07": torch.zeros(1)}
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    capfd.readouterr()
    load_source(f"transformers:{tmp_path}")
    assert capfd.readouterr() == ("", "")


def test_a_preprocessing_that_cannot_be_recorded(tmp_path: Path) -> None:
    saved(tmp_path, processor=transformers.PerceiverImageProcessorPil(size={"height": 32, "width": 32}))
    with pytest.raises(ExportError, match="its preprocessing cannot be recorded in a model file: .*--resize squash"):
        load_source(f"transformers:{tmp_path}")
    chosen = load_source(f"transformers:{tmp_path}", overrides=PreprocessingOverrides(resize="squash"))
    assert chosen.preprocessing is not None and chosen.preprocessing.resize == "squash"
    assert chosen.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406), abs=1e-6)


def test_pickled_weights_are_not_read(tmp_path: Path) -> None:
    network = saved(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(network.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ExportError, match="model.safetensors"):
        load_source(f"transformers:{tmp_path}")


def test_code_of_the_folder_is_not_run(tmp_path: Path) -> None:
    saved(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    names = {"AutoConfig": "mine.Config", "AutoModelForImageClassification": "mine.Net"}
    config |= {"model_type": "my_own", "auto_map": names}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(ExportError, match="needs Python code of its own, which is not run"):
        load_source(f"transformers:{tmp_path}")
    assert not (tmp_path / "ran").exists()


def test_a_backbone_without_a_classifier(tmp_path: Path) -> None:
    network = saved(tmp_path)
    network.vit.save_pretrained(tmp_path)
    with pytest.raises(ExportError, match=r"hold no weights for 'classifier.bias' and 1 more, .* fine-tune it"):
        load_source(f"transformers:{tmp_path}")


def test_refused_in_one_line(tmp_path: Path) -> None:
    saved(tmp_path / "a")
    spec = f"transformers:{tmp_path / 'a'}"
    with pytest.raises(ExportError, match="own weights are for num_labels 7; --classes 4 requires --weights FILE or"):
        load_source(spec, class_count=4)
    with pytest.raises(ExportError, match="own weights are for num_channels 3; --channels 1 requires"):
        load_source(spec, channels=1)
    with pytest.raises(ExportError, match="there is no folder .*nowhere$"):
        load_source(f"transformers:{tmp_path / 'nowhere'}")
    with pytest.raises(ExportError, match=r"a: is a folder; write transformers:.*a for one that save_pretrained wrote"):
        load_source(str(tmp_path / "a"))
    (tmp_path / "a" / "config.json").write_text("{")
    with pytest.raises(ExportError, match="cannot be loaded: ") as caught:
        load_source(spec)
    assert "\n" not in str(caught.value)


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="transformers is not installed"):
        transformers_models.load_transformers(f"transformers:{tmp_path}", None)  # type: ignore[arg-type]
