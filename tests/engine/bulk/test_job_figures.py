"""Tests of the figures of jobs: common scales, contact sheets, names of several classes, SVG, and constant maps."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from seewhy import ArgumentError, Explainer, OutputError, explain_folder
from seewhy.bulk.folder_job import FolderJob
from seewhy.bulk.job_request import resolve_job
from seewhy.bulk.settings import Settings
from seewhy.contract import checksum
from seewhy.inputs.image_inputs import Inputs
from seewhy.visualization import fonts
from support.command_line import failed, results, run
from support.tiny_model import Tiny, load

MakeImage = Callable[..., Image.Image]
SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def photos(tmp_path: Path, make_image: MakeImage) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for seed in range(5):
        make_image(seed=seed).save(folder / f"{seed}.png")
    return folder


def svg_texts(path: Path) -> list[str]:
    return [element.text or "" for element in ElementTree.parse(path).iter(f"{SVG}text")]


def facts(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


# Common scales.


@pytest.mark.parametrize("count", [1, 3, 99])
def test_scale_of_the_first_images(explainer: Explainer, photos: Path, tmp_path: Path, count: int) -> None:
    """It is the maximum of the raw maps for CAM methods, and of the 98 % quantiles of |value| for gradients."""
    out = tmp_path / "out"
    methods = ["gradcam", "guided-backprop"]
    explain_folder(explainer, photos, out, Settings(methods, scale=f"first:{count}", batch_size=2, plain=True))
    found = explainer.explain(sorted(photos.iterdir()), methods, batch_size=1)
    maxima = found["gradcam"].attributions.reshape(5, -1).max(axis=1)
    strength = np.abs(found["guided-backprop"].attributions).reshape(5, -1)
    limits = np.quantile(strength, 0.98, axis=1, method="inverted_cdf")
    scales = facts(out)["scales"]
    assert scales["gradcam"] == pytest.approx(maxima[:count].max(), rel=1e-5)
    assert scales["guided-backprop"] == pytest.approx(limits[:count].max(), rel=1e-5)
    assert facts(out)["scale"] == f"first:{count}"
    for i in range(5):
        expected = found["gradcam"][i].overlays(scale=scales["gradcam"])[0]
        assert np.abs(load(out / f"{i}.gradcam.png").astype(int) - np.asarray(expected)).max() <= 4


@pytest.mark.parametrize("scaling", ["robust", "minmax"])
def test_the_scale_does_not_depend_on_the_colormap(
    explainer: Explainer, photos: Path, tmp_path: Path, scaling: str
) -> None:
    """The signed figures of gradients have a grey scale, and grey is a colormap of maps too."""
    settings = Settings(["cam", "guided-backprop"], [1], scale="first:9", gradient_scaling=scaling)
    found = []
    for colormap in ("grey", "inferno"):
        explain_folder(explainer, photos, tmp_path / colormap, replace(settings, colormap=colormap))
        found.append(facts(tmp_path / colormap)["scales"])
    maps = explainer.explain(sorted(photos.iterdir()), "cam", target=1, batch_size=1).attributions
    assert -maps.min() > maps.max() > 0  # so the sign matters
    assert found[0] == found[1] and found[0]["cam"] == pytest.approx(maps.max(), rel=1e-5)


def test_a_resumed_job_keeps_its_scale(
    explainer: Explainer, photos: Path, tmp_path: Path, make_image: MakeImage
) -> None:
    """The numbers come from run.json, even if the first images have changed since."""
    out, whole = tmp_path / "out", tmp_path / "whole"
    settings = Settings(scale="first:2", batch_size=1)
    explain_folder(explainer, photos, whole, settings)
    stop = threading.Event()
    job = FolderJob(resolve_job(explainer, settings), Inputs([photos], out), out, stop=stop)
    for _ in job:
        stop.set()
    assert 0 < job.done < 5
    scales = facts(out)["scales"]
    assert scales == facts(whole)["scales"]
    make_image(seed=77).save(photos / "1.png")
    summary = explain_folder(explainer, photos, out, settings)
    assert summary.done == 5 and facts(out)["scales"] == scales
    assert (out / "4.gradcam.png").read_bytes() == (whole / "4.gradcam.png").read_bytes()
    with pytest.raises(OutputError, match="scale was 'first:2' and is 'first:3' now"):
        explain_folder(explainer, photos, out, Settings(scale="first:3", batch_size=1))


@pytest.mark.parametrize("scales", [[], {}, {"gradcam": 0.0}, {"gradcam": "1"}, {"gradcam": True}, {"cam": 1.0}])
def test_damaged_scales_are_refused(explainer: Explainer, photos: Path, tmp_path: Path, scales: object) -> None:
    out = tmp_path / "out"
    explain_folder(explainer, photos, out, Settings(scale="first:2"))
    (out / "run.json").write_text(json.dumps({**facts(out), "scales": scales}))
    with pytest.raises(OutputError, match=r"run\.json: damaged: its scales are"):
        explain_folder(explainer, photos, out, Settings(scale="first:2"))


def test_a_scale_as_text_and_as_number_is_the_same(explainer: Explainer, photos: Path, tmp_path: Path) -> None:
    explain_folder(explainer, photos, tmp_path / "out", Settings(scale="0.25"))
    assert explain_folder(explainer, photos, tmp_path / "out", Settings(scale=0.25)).already_recorded == 5


def test_scales_without_a_use_are_refused(model_path: Path, photos: Path, tmp_path: Path) -> None:
    arguments = ["explain", model_path, photos, "-o", tmp_path / "out"]
    failed(run(*arguments, "--scale", "first:0"), "scale must be a number from 1e-30 to 1e\\+30, or first:N")
    failed(run(*arguments, "--scale", "2", "--format", "npz"), "scale is for figures; npz shards hold the maps")
    failed(run(*arguments, "--blend", "heet"), "Did you mean 'heat'")
    assert not (tmp_path / "out").exists()


@pytest.fixture
def dead_model(tmp_path: Path) -> Path:
    """Return a model file whose target layer is 0 for every image, so that all its maps are."""
    tiny = Tiny()
    weights = tiny.weights()
    weights["conv2.bias"][...] = -1e6
    path = tmp_path / "dead.onnx"
    path.write_bytes(checksum.seal(tiny.proto(weights).SerializeToString()))
    return path


def test_constant_maps_are_mentioned(dead_model: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    options = ["--method", "gradcam", "--method", "backprop", "--format", "svg"]
    result = run("explain", dead_model, photos / "0.png", "-o", out, *options)
    assert result.exit_code == 0, result.stderr
    assert " %, gradcam is 0 everywhere, backprop is 0 everywhere) -> " in result.stdout
    assert "0 everywhere" in svg_texts(out / "0.gradcam.svg")
    assert svg_texts(out / "0.sheet.svg").count("0 everywhere") == 2
    failed(
        run("explain", dead_model, photos, "-o", tmp_path / "other", "--scale", "first:2"),
        r"the first 2 images give no scale, because gradcam is 0 in all that can be explained \(2\); give more images",
    )


def test_a_scale_of_images_that_cannot_be_read(model_path: Path, photos: Path, tmp_path: Path) -> None:
    """The message names the first error. Unreadable images among readable ones are left out."""
    for name in ("0.png", "1.png"):
        (photos / name).write_bytes(b"")
    arguments = ["explain", model_path, photos, "-o", tmp_path / "out", "--scale"]
    failed(
        run(*arguments, "first:2"),
        r"because none can be explained \([^ ]+photos/0\.png: the file is empty\); give more images with first:N",
    )
    assert run(*arguments, "first:3").exit_code == 1
    assert facts(tmp_path / "out")["scales"]["gradcam"] > 0


# Contact sheets.


@pytest.mark.parametrize(
    ("chosen", "sheets"),
    [
        ({}, 0),
        ({"sheet": "always"}, 1),
        ({"methods": ["cam", "gradcam"]}, 1),
        ({"methods": ["cam", "gradcam"], "sheet": "never"}, 0),
        ({"top": 2}, 1),
        ({"top": 1}, 0),
    ],
)
def test_when_sheets_are_written(explainer: Explainer, photos: Path, tmp_path: Path, chosen: dict, sheets: int) -> None:
    out = tmp_path / "out"
    explain_folder(explainer, photos / "0.png", out, Settings(**chosen))
    assert len(list(out.glob("*.sheet.png"))) == sheets


def test_sheets_keep_the_order_of_the_methods(explainer: Explainer, photos: Path, tmp_path: Path) -> None:
    methods = ["layercam", "backprop", "gradcam", "cam"]
    explain_folder(explainer, photos / "0.png", tmp_path / "out", Settings(methods, format="svg"))
    found = [text for text in svg_texts(tmp_path / "out" / "0.sheet.svg") if "CAM" in text or text == "Backprop"]
    assert found == ["LayerCAM", "Backprop", "Grad-CAM", "CAM"]


def test_sheets_of_several_classes(explainer: Explainer, photos: Path, tmp_path: Path) -> None:
    """With one method, the tiles are classes. With several, each class has a section. There is one sheet."""
    result = explainer.explain(photos / "0.png", top=3)
    [labels] = result.labels
    explain_folder(explainer, photos / "0.png", tmp_path / "one", Settings(top=3, format="svg"))
    [sheet] = (tmp_path / "one").glob("*.sheet.svg")
    assert svg_texts(sheet)[:3] == ["Grad-CAM", "tiny · 0.png", "Input"]
    assert [text for text in svg_texts(sheet) if text[:3] in ("1. ", "2. ", "3. ")] == [
        f"{rank}. {label}" for rank, label in enumerate(labels, 1)
    ]
    settings = Settings(["cam", "gradcam"], targets=["moped", 1], format="svg")
    explain_folder(explainer, photos / "0.png", tmp_path / "two", settings)
    texts = svg_texts(tmp_path / "two" / "0.sheet.svg")
    assert [text for text in texts if text in ("1. moped", "2. espresso", "Input", "CAM", "Grad-CAM")] == [
        *("1. moped", "Input", "CAM", "Grad-CAM"),
        *("2. espresso", "Input", "CAM", "Grad-CAM"),
    ]


def test_side_by_side_is_the_figure_of_the_report(model_path: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run("explain", model_path, photos / "0.png", "-o", out, "--sheet", "side-by-side").exit_code == 0
    assert results(out) == ["0.backprop.png", "0.guided-backprop.png", "0.sheet.png"]
    sheet = load(out / "0.sheet.png")
    assert sheet.shape[1] == 40 + 3 * 224 + 2 * 12
    # The input is the first tile, below the heading, the note and its caption.
    with Image.open(photos / "0.png") as image:
        view = Explainer(model_path).explain(image).images[0].view
    rows = [y for y in range(sheet.shape[0]) if (sheet[y, 20] == view[0, 0]).all()]
    assert rows and np.array_equal(sheet[rows[0] : rows[0] + 168, 20:244], view.repeat(14, axis=0).repeat(14, axis=1))


def test_sheets_honour_the_canvas(explainer: Explainer, photos: Path, tmp_path: Path) -> None:
    """All tiles have the shape of the whole image, those of gradients too."""
    settings = Settings(["gradcam", "backprop"], canvas="original", format="svg")
    explain_folder(explainer, photos / "0.png", tmp_path / "out", settings)
    images = [
        (element.attrib["width"], element.attrib["height"])
        for element in ElementTree.parse(tmp_path / "out" / "0.sheet.svg").iter(f"{SVG}image")
    ]
    assert images.count(("240", "180")) == 3  # six times the 40x30 pixels of the image


# Names and formats.


def test_names_of_several_classes(photos: Path, tmp_path: Path) -> None:
    labels = ("a/b: c\x1b", "кот", "../..", "x" * 90, "猫" * 40, "A_b")
    explainer = Explainer(Tiny(labels=labels).save(tmp_path / "m.onnx"))
    out = tmp_path / "out"
    explain_folder(explainer, photos / "0.png", out, Settings(targets=list(range(6)), sheet="never"))
    assert results(out) == [
        *("0.gradcam.1-a_b_c.png", "0.gradcam.2-кот.png", "0.gradcam.3-2.png"),
        *(f"0.gradcam.4-{'x' * 40}.png", f"0.gradcam.5-{'猫' * 13}.png", "0.gradcam.6-A_b.png"),
    ]
    assert run("verify", out).exit_code == 0
    again = explain_folder(explainer, photos / "0.png", out, Settings(targets=list(range(6)), sheet="never"))
    assert again.already_recorded == 1


def test_svg_figures(explainer: Explainer, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    explain_folder(explainer, photos, out, Settings(["gradcam", "backprop"], format="svg"))
    assert len(list(out.glob("*.svg"))) == 15
    result = explainer.explain(photos / "0.png")
    caption = result.caption(0, int(result.targets[0]))
    assert svg_texts(out / "0.gradcam.svg")[:3] == [caption.label, caption.score, "Grad-CAM · tiny"]
    assert run("verify", out).exit_code == 0
    (out / "left.gradcam.1-cat.svg").touch()
    assert "left.gradcam.1-cat.svg: is not named" in run("verify", out).stdout
    with pytest.raises(ArgumentError, match="svg is lossless and has no quality"):
        resolve_job(explainer, Settings(format="svg", quality=80))


def test_folders_of_earlier_versions_are_refused(explainer: Explainer, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    explain_folder(explainer, photos, out)
    new = ("figures", "blend", "gradients", "gradient_scaling", "gradient_quantile", "scale", "sheet")
    (out / "run.json").write_text(json.dumps({k: v for k, v in facts(out).items() if k not in new}))
    with pytest.raises(OutputError, match="figures was not given and is 'captioned' now; choose another output folder"):
        explain_folder(explainer, photos, out)
    assert explain_folder(explainer, photos, out, restart=True).done == 5


@pytest.fixture
def no_fonts(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Leave only Pillow's own font."""
    monkeypatch.setattr(fonts, "candidates", lambda characters: iter(()))
    monkeypatch.setattr(fonts, "_length", fonts._length.__wrapped__)
    monkeypatch.setattr(fonts, "_cached", fonts._rendered)
    for cached in (fonts._face, fonts._library):
        cached.cache_clear()
    yield
    for cached in (fonts._face, fonts._library):
        cached.cache_clear()


@pytest.fixture
def cyrillic(tmp_path: Path) -> Path:
    return Tiny(labels=("кот", "a", "b", "c", "d", "e")).save(tmp_path / "m.onnx")


@pytest.mark.usefixtures("no_fonts")
def test_labels_without_a_font_are_mentioned_once(cyrillic: Path, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run("explain", cyrillic, photos, "-o", out, "--target", "кот", "--format", "svg")
    assert result.exit_code == 0
    [line] = result.stderr.splitlines()
    assert "no font of this machine has the characters of 1 label, such as \\u043a\\u043e\\u0442; figures show" in line
    assert "install a font that has them, such as Noto" in line
    assert svg_texts(out / "0.gradcam.svg")[0] == "class 0: \\u043a\\u043e\\u0442"


@pytest.mark.usefixtures("no_fonts")
@pytest.mark.parametrize(
    ("options", "has_labels"),
    [
        ([], True),
        (["--plain"], False),
        (["--format", "npz"], False),
        (["--plain", "--top", "2"], True),
        (["--plain", "--method", "cam", "--method", "gradcam"], True),
        (["--plain", "--top", "2", "--sheet", "never"], False),
        (["--plain", "--sheet", "always"], True),
    ],
)
def test_fonts_matter_only_where_labels_are_drawn(
    cyrillic: Path, photos: Path, tmp_path: Path, options: list[str], has_labels: bool
) -> None:
    result = run("explain", cyrillic, photos / "0.png", "-o", tmp_path / "out", *options)
    assert result.exit_code == 0 and ("no font" in result.stderr) == has_labels
