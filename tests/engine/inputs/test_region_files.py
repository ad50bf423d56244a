"""Tests of files of regions: CSV, COCO, their paths and labels."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import ArgumentError, ImageError
from seewhy.contract.metadata import Preprocessing
from seewhy.images.preprocessing import load_image
from seewhy.inputs import region_files
from seewhy.inputs.coco_regions import Region
from seewhy.inputs.region_files import Regions, classes_of_labels, region_mask
from seewhy.inputs.region_shapes import Box, Polygons, RunLengths
from support.tiny_model import LABELS, Tiny

MakeImage = Callable[..., Image.Image]
CSV = "path,x0,y0,x1,y1,label\na.jpg,1,2,30,40.5,crane\nb.jpg,0,0,1,1,\na.jpg,5,6,7,8,2\n"


def write(folder: Path, content: str, name: str = "regions.csv") -> Path:
    path = folder / name
    path.write_text(content)
    return path


def test_csv(tmp_path: Path) -> None:
    regions = Regions(write(tmp_path, CSV))
    first, second = regions.of(tmp_path / "a.jpg")
    assert (first.shape, first.label) == (Box(1, 2, 30, 40.5), "crane")
    assert (second.shape, second.label) == (Box(5, 6, 7, 8), "2")
    (other,) = regions.of(tmp_path / "b.jpg")
    assert other.label is None and regions.of(tmp_path / "c.jpg") == []
    assert regions.labels == {"crane", "2"}


def test_csv_columns_in_any_order(tmp_path: Path) -> None:
    text = '\ufeffX1, y1,x0,y0,score,PATH\n\n3,4,1,2,0.9,"a,b.jpg"\n'
    (region,) = Regions(write(tmp_path, text)).of(tmp_path / "a,b.jpg")
    assert region.shape == Box(1, 2, 3, 4) and region.label is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "the first line must name the columns: path, x0, y0, x1, y1, and optionally label"),
        ("path,x0,y0,x1\n", "the first line must name the columns"),
        ("path,x0,y0,x1,y1,x0\n", "each once"),
        ("path,x0,y0,x1,y1\n", "the file holds no objects"),
        ("path,x0,y0,x1,y1\na.jpg,1,2,3\n", "line 2: y1 must be a number of pixels, not ''"),
        ("path,x0,y0,x1,y1\na.jpg,1,2,3,4,5\n", "line 2 has 6 values, but there are 5 columns; quote commas"),
        ("path,x0,y0,x1,y1\n,1,2,3,4\n", "line 2 has no path"),
        ("path,x0,y0,x1,y1\na.jpg,1,2,3,4\na.jpg,1,two,3,4\n", "line 3: y0 must be a number of pixels, not 'two'"),
        ("path,x0,y0,x1,y1\na.jpg,nan,2,3,4\n", "line 2: x0 must be a number of pixels, not 'nan'"),
        ("path,x0,y0,x1,y1\na.jpg,1,2,inf,4\n", "line 2: x1 must be a number of pixels"),
        ("path,x0,y0,x1,y1\na.jpg,1,2,1e12,4\n", "line 2: x1 must be a number of pixels"),
        ("path,x0,y0,x1,y1\na.jpg,3,2,1,4\n", "line 2: x0 must be less than x1, .* the box is 3,2,1,4"),
        ("path,x0,y0,x1,y1\na.jpg,1,2,3,2\n", "y0 less than y1"),
        ('path,x0,y0,x1,y1\n"a.jpg"x,1,2,3,4\n', "line 2 is not CSV"),
        ("path,x0,y0,x1,y1\n" + "a" * 9000 + ",1,2,3,4\n", "line 2: the path has 9000 bytes; the maximum is 8192"),
        ("path,x0,y0,x1,y1,label\na.jpg,1,2,3,4," + "a" * 9000, "line 2: the label has 9000 bytes"),
        ("path,x0,y0,x1,y1\n" + "a" * 70000, "line 2 is not text"),
        ("path,x0,y0,x1,y1\na\0.jpg,1,2,3,4\n", "line 2 is not text"),
    ],
)
def test_bad_csv(tmp_path: Path, text: str, words: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(ImageError, match=words) as raised:
        Regions(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


def test_labels_are_utf8(tmp_path: Path) -> None:
    path = tmp_path / "regions.csv"
    path.write_bytes(b"path,x0,y0,x1,y1,label\na\xff.jpg,1,2,3,4,ok\na.jpg,1,2,3,4,\xff\n")
    with pytest.raises(ImageError, match="line 3: the label is not UTF-8; save the file as UTF-8"):
        Regions(path)


@pytest.mark.parametrize("name", ["regions.txt", "regions", "regions.csv.gz"])
def test_unknown_extension(tmp_path: Path, name: str) -> None:
    with pytest.raises(ImageError, match=r"the name of a file of regions ends in .csv, or in .json for COCO"):
        Regions(write(tmp_path, CSV, name))


def test_unreadable_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ImageError, match="missing.csv: cannot be read: No such file"):
        Regions(tmp_path / "missing.csv")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ImageError, match="cannot be read: it is a folder"):
        Regions(tmp_path / "folder.csv")
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(ImageError, match="cannot be read: it is a pipe"):
        Regions(tmp_path / "pipe.csv")
    with pytest.raises(ArgumentError, match="must be a path"):
        Regions("a\0.csv")
    with pytest.raises(ImageError, match=r"x\\x1b.csv: cannot be read"):
        Regions(tmp_path / "x\x1b.csv")
    path = write(tmp_path, CSV)
    monkeypatch.setattr(region_files, "MAX_BYTES", 20)
    with pytest.raises(ImageError, match=f"the file has {len(CSV)} bytes; the maximum is 20; leave out"):
        Regions(path)


def test_too_many_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, CSV)
    monkeypatch.setattr(region_files, "MAX_REGIONS_PER_IMAGE", 1)
    with pytest.raises(ImageError, match="more than 1,000,000 objects, or 1 on one image; leave out objects"):
        Regions(path)
    monkeypatch.setattr(region_files, "MAX_REGIONS_PER_IMAGE", 10)
    monkeypatch.setattr(region_files, "MAX_REGIONS", 2)
    with pytest.raises(ImageError, match="more than 2 objects"):
        Regions(path)


# Paths.


def regions_of(file: Path, *paths: str) -> Regions:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("path,x0,y0,x1,y1\n" + "".join(f"{path},0,0,{i},1\n" for i, path in enumerate(paths, 1)))
    return Regions(file)


def found(regions: Regions, path: str | Path) -> list[float]:
    return [one.shape.x1 for one in regions.of(path)]  # type: ignore[union-attr]


def test_paths_start_at_the_folder_of_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    absolute = tmp_path / "elsewhere/d.jpg"
    regions = regions_of(tmp_path / "labels/r.csv", "a.jpg", "./b.jpg", "../photos/c.jpg", str(absolute), "x/../e.jpg")
    assert found(regions, tmp_path / "labels/a.jpg") == [1]
    assert found(regions, tmp_path / "photos/../labels/b.jpg") == [2]
    assert found(regions, tmp_path / "photos/c.jpg") == [3]
    assert found(regions, absolute) == [4] and found(regions, tmp_path / "labels/e.jpg") == [5]
    monkeypatch.chdir(tmp_path)
    assert found(regions, "photos/c.jpg") == [3] and found(regions, "./labels/a.jpg") == [1]
    (tmp_path / "linked").symlink_to("photos")
    assert found(regions, "linked/c.jpg") == [3]


def test_paths_may_be_the_end_of_other_paths(tmp_path: Path) -> None:
    regions = regions_of(tmp_path / "labels/r.csv", "1.jpg", "cats/1.jpg", "2.jpg")
    assert found(regions, "photos/dogs/1.jpg") == [1]
    assert found(regions, "photos/cats/1.jpg") == [2]  # the longest one
    assert found(regions, "/data/photos.tar#cats/1.jpg") == [2]
    assert found(regions, "photos.tar#2.jpg") == [3]
    assert found(regions, "photos/12.jpg") == [] and found(regions, "photos/2.jpg.png") == []


def test_an_image_beside_the_file_is_no_other_image(tmp_path: Path) -> None:
    regions = regions_of(tmp_path / "train/r.csv", "1.jpg")
    assert found(regions, tmp_path / "val/1.jpg") == [1]
    (tmp_path / "train/1.jpg").touch()
    assert found(regions, tmp_path / "train/1.jpg") == [1]
    assert found(regions, tmp_path / "val/1.jpg") == []


# COCO.


def coco(*annotations: Any, **more: Any) -> dict[str, Any]:
    return {
        "info": {"year": 2017},
        "images": [{"id": 7, "file_name": "a.jpg", "width": 40, "height": 30}, {"id": 8, "file_name": "b.jpg"}],
        "categories": [{"id": 3, "name": "crane"}, {"id": 9, "name": "moped"}],
        "annotations": list(annotations),
        **more,
    }


def read_coco(folder: Path, document: Any) -> Regions:
    return Regions(write(folder, document if isinstance(document, str) else json.dumps(document), "coco.json"))


def test_coco(tmp_path: Path) -> None:
    polygon = [1, 2, 11, 2, 11, 12.5, 1, 12.5]
    regions = read_coco(
        tmp_path,
        coco(
            {"image_id": 7, "category_id": 3, "bbox": [1, 2, 10, 20], "segmentation": [], "iscrowd": 0},
            {"image_id": 7, "category_id": 9, "bbox": [0, 0, 0, 0], "segmentation": [polygon]},
            {"image_id": 7, "category_id": 9, "segmentation": {"size": [30, 40], "counts": [30, 60, 1110]}},
            {"image_id": 8, "bbox": [1, 2, 10, 20]},
        ),
    )
    box, drawn, runs = regions.of("photos/a.jpg")
    assert box.shape == Box(1, 2, 11, 22) and box.label == "crane" and box.image_size == (40, 30)
    assert isinstance(drawn.shape, Polygons) and drawn.shape.corners[0].tolist() == [
        [1, 2],
        [11, 2],
        [11, 12.5],
        [1, 12.5],
    ]
    assert isinstance(runs.shape, RunLengths) and runs.shape.size == (30, 40) and runs.image_size == (40, 30)
    (other,) = regions.of("photos/b.jpg")
    assert other.label is None and other.image_size is None
    assert regions.labels == {"crane", "moped"}


BOX = {"image_id": 7, "bbox": [1, 2, 3, 4]}


def segmented(segmentation: Any, **more: Any) -> dict[str, Any]:
    return coco({"image_id": 7, "segmentation": segmentation, **more})


def counts(value: Any, size: Any = (30, 40)) -> dict[str, Any]:
    return segmented({"size": list(size), "counts": value})


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not a COCO file: Expecting"),
        ("[" * 100_000, "not a COCO file: "),
        ("9" * 5000, "not a COCO file: "),
        ('{"images": [], "images": []}', "'images' is given twice"),
        ("[1]", "not a COCO file: expected an object"),
        ({"images": []}, "expected an object with images, annotations"),
        (coco(), "the file holds no objects"),
        (coco(BOX, images=[{"id": 7}]), "expected an object with id, file_name"),
        (coco(BOX, images=[{"id": 7, "file_name": "a"}, {"id": 7, "file_name": "b"}]), "expected ids that differ"),
        (coco(BOX, images=[{"id": [7], "file_name": "a"}]), "expected an integer or a text"),
        (coco(BOX, images=[{"id": 7, "file_name": "a" * 9000}]), "at most 8192 bytes"),
        (coco(BOX, images=[{"id": 7, "file_name": "a", "width": -1}]), "expected a positive integer"),
        (coco(BOX, categories=[{"id": 1}]), "expected an object with id, name"),
        (coco(BOX, 5), "annotation 2: expected an object, not 5; correct or remove it"),
        (coco({"bbox": [1, 2, 3, 4]}), "annotation 1: expected an object with image_id"),
        (coco({**BOX, "image_id": 1}), "annotation 1: expected an image_id among the images, not 1"),
        (coco({**BOX, "image_id": {}}), "expected an integer or a text"),
        (coco({**BOX, "category_id": 1}), "expected a category_id among the categories, not 1"),
        (coco({"image_id": 7}), "expected a segmentation or a bbox"),
        (coco({**BOX, "bbox": [1, 2, 3]}), r"expected a bbox \[x, y, width, height\]"),
        (coco({**BOX, "bbox": [1, 2, -3, 4]}), "expected a bbox"),
        (coco({**BOX, "bbox": [1, 2, "3", 4]}), "expected a list of finite numbers"),
        (coco({**BOX, "bbox": [1, 2, float("nan"), 4]}), "expected coordinates in pixels"),
        (coco({**BOX, "bbox": [1e300, 2, 3, 4]}), "expected coordinates in pixels"),
        (coco({**BOX, "bbox": [10**400, 2, 3, 4]}), "annotation 1: "),
        (segmented("polygon"), "annotation 1: expected a list"),
        (segmented([[1, 2, 3, 4]]), r"expected polygons \[x, y, x, y, x, y, ...\]"),
        (segmented([[1, 2, 3, 4, 5, 6, 7]]), "expected polygons"),
        (segmented([[1, 2, 3, 4, 5, None]]), "expected a list of finite numbers"),
        (segmented([[[1, 2], [3, 4], [5, 6]]]), "expected a list of finite numbers"),
        (segmented([[[1, 2], [3, 4], 5]]), "annotation 1: "),
        (segmented([1, 2, 3, 4, 5, 6]), "expected a list, not 1"),
        (segmented([[0] * 200_002]), "expected polygons of at most 100000 corners, not 100001"),
        (counts([1230], (30, 41)), "expected run lengths of an image of"),
        (counts([1199]), "expected run lengths of 1200 pixels in total, not 1199"),
        (counts([1300, -100]), "expected run lengths of at least 0, not -100"),
        (counts([2**62, 2**62, 2**62, 2**62, 1200]), "expected run lengths of at most 1200, not 4611686018427387904"),
        (counts([10**30]), "expected a list of counts"),
        (counts([1200.0]), "expected a list of counts"),
        (counts(["1200"]), "expected a list of counts"),
        (counts([[1200]]), "expected a list of counts"),
        (counts([1200], (10**6, 10**6)), "pixels"),
        (counts([1200], (1,)), "expected two integers"),
        (counts(None), "expected a list"),
        (counts("\x1b"), "expected run lengths as COCO's compressed text"),
        (counts("é"), "expected run lengths as COCO's compressed text"),
        (counts("PPPPPPPPPPPPPPPPPPPPPPP"), "expected run lengths as COCO's compressed text"),
        (counts("P"), "expected run lengths as COCO's compressed text"),
        (counts("@"), "expected run lengths of at least 0, not -16"),
        (counts(""), "expected run lengths of 1200 pixels in total, not 0"),
        (counts("0" * 100), "expected run lengths of 1200 pixels in total, not 0"),
    ],
)
def test_bad_coco(tmp_path: Path, document: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words) as raised:
        read_coco(tmp_path, document)
    assert str(raised.value).startswith(f"{tmp_path / 'coco.json'}: ")
    assert "\n" not in str(raised.value) and str(raised.value).isprintable()


@pytest.mark.parametrize("shape", [(30, 40), (1, 7), (90, 1), (400, 500)])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 1.0])
def test_run_lengths_against_pycocotools(tmp_path: Path, shape: tuple[int, int], share: float) -> None:
    coco_masks = pytest.importorskip("pycocotools.mask")
    mask = np.random.default_rng(0).uniform(size=shape) < share
    if share == 0.5:
        mask[: shape[0] // 2] = False  # long runs
    compressed = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
    text = compressed["counts"].decode()
    size = {"id": 7, "file_name": "a.jpg", "width": shape[1], "height": shape[0]}
    listed, value = [0], False
    for pixel in mask.T.ravel():
        if pixel != value:
            listed.append(0)
            value = pixel
        listed[-1] += 1
    for one in (text, listed):
        (region,) = read_coco(tmp_path, {**counts(one, shape), "images": [size]}).of("a.jpg")
        assert isinstance(region.shape, RunLengths) and region.shape.lengths.tolist() == listed
        drawn = region_mask([region], image_of(mask), 0, None)
        assert drawn is not None and np.array_equal(drawn, mask)


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
@pytest.mark.parametrize("count", [3, 5, 9])
def test_polygons_against_pycocotools(count: int) -> None:
    """Compare masks. pycocotools rounds corners to a fifth of a pixel, so masks differ at the edge alone."""
    coco_masks = pytest.importorskip("pycocotools.mask")
    random = np.random.default_rng(count)
    angles = np.sort(random.uniform(0, 2 * np.pi, count))
    corners = 60 + 50 * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    theirs = coco_masks.decode(coco_masks.frPyObjects([corners.ravel().tolist()], 120, 120))[:, :, 0] > 0
    ours = region_mask([Region(Polygons([corners]))], image_of(theirs), 0, None)
    assert ours is not None
    y, x = np.nonzero(ours != theirs)
    edges = list(zip(corners, np.roll(corners, -1, axis=0), strict=True))
    for point in np.stack([x, y], axis=1) + 0.5:
        assert min(distance(point, *edge) for edge in edges) < 0.8
    assert (ours != theirs).sum() < 0.5 * sum(np.linalg.norm(end - start) for start, end in edges)


def distance(point: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Return the distance of a point from a line segment."""
    along = np.clip((point - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
    return float(np.linalg.norm(start + along * (end - start) - point))


def image_of(mask: np.ndarray, **more: Any) -> Any:
    """Return a loaded image whose view is the whole image, of the size of a mask."""
    how = Tiny(size=mask.shape).metadata()
    return load_image(np.zeros((*mask.shape, 3), np.uint8), how, **more)


# Labels and masks.


def test_labels_name_classes() -> None:
    found = classes_of_labels({"moped", "TIGER CAT", "tabby cat", "crane", "5", "6", "zebra"}, 6, LABELS)
    assert found == {
        "moped": [3],
        "TIGER CAT": [5],
        "tabby cat": [0],
        "crane": [2, 4],
        "5": [5],
        "6": [],
        "zebra": [],
    }


@pytest.mark.parametrize(
    ("labels", "names"), [(set(), LABELS), ({"zebra", "6", "-1"}, LABELS), ({"moped"}, None), ({"zebra"}, None)]
)
def test_labels_that_name_no_class(labels: set[str], names: tuple[str, ...] | None) -> None:
    assert classes_of_labels(labels, 6, names) is None


def test_indices_need_no_labels_of_the_model() -> None:
    assert classes_of_labels({"3", "moped"}, 6, None) == {"3": [3], "moped": []}


def test_objects_of_the_target_count() -> None:
    image = image_of(np.zeros((12, 16)))
    regions = [Region(Box(0, 0, 2, 2), "crane"), Region(Box(4, 4, 6, 6), "moped"), Region(Box(8, 8, 9, 9))]
    classes = classes_of_labels({"crane", "moped"}, 6, LABELS)

    def drawn(target: int, **more: Any) -> list[tuple[int, int]]:
        mask = region_mask(more.get("regions", regions), image, target, more.get("classes", classes))
        return [] if mask is None else [(int(y), int(x)) for y, x in np.argwhere(mask)]

    crane, moped = ([(y, x) for y in range(start, start + 2) for x in range(start, start + 2)] for start in (0, 4))
    assert drawn(2) == drawn(4) == [*crane, (8, 8)]
    assert drawn(3) == [*moped, (8, 8)]
    assert drawn(0) == [(8, 8)]  # without a label
    assert drawn(0, classes=None) == [*crane, *moped, (8, 8)]
    assert region_mask(regions[:2], image, 0, classes) is None and region_mask([], image, 0, None) is None


def test_objects_outside_of_the_view(make_image: MakeImage) -> None:
    """Crop the middle 16 of 40 columns."""
    how = Tiny(preprocessing=None).metadata()
    image = load_image(make_image(40, 30), replace(how, preprocessing=Preprocessing("none", None)))
    assert image.placement.left == 12
    cropped = region_mask([Region(Box(0, 0, 12, 30))], image, 0, None)
    assert cropped is not None and not cropped.any()
    seen = region_mask([Region(Box(0, 0, 13, 30))], image, 0, None)
    assert seen is not None and seen[:, 0].all() and not seen[:, 1:].any()


def test_regions_of_an_upright_image(tmp_path: Path) -> None:
    """Rotate an image of 8 x 4 pixels by its EXIF orientation, so that it is 4 x 8."""
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((4, 8, 3), np.uint8)
    pixels[0, 0] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = load_image(tmp_path / "a.png", Tiny(size=(8, 4)).metadata())
    assert image.size == (4, 8)
    ((y, x),) = np.argwhere(image.view[:, :, 0] > 128)
    mask = region_mask([Region(Box(x, y, x + 1, y + 1), None, (4, 8))], image, 0, None)
    assert mask is not None and np.argwhere(mask).tolist() == [[0, 3]]
    with pytest.raises(
        ImageError, match="a.png: the regions are those of an image of 8x4 pixels, but the upright image"
    ):
        region_mask([Region(Box(0, 0, 1, 1), None, (8, 4))], image, 0, None)
