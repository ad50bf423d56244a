"""Tests of docs/concepts/file-format.md: it documents every key and type, and its code runs as printed."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from PIL import Image

from seewhy import Explainer, ModelFileError
from seewhy.contract import constants as contract
from seewhy.contract.metadata import Metadata, Preprocessing
from seewhy.contract.quantization import ACTIVATION_TYPES, WEIGHT_TYPES
from support.command_line import run
from support.markdown import Block, blocks, table
from support.repository import ROOT
from support.tiny_model import Tiny

DOCUMENT = "docs/concepts/file-format.md"


@dataclass(frozen=True)
class Row:
    """Row of the table of keys: a key or a field of a key, such as `("seewhy.model", "name")`."""

    path: tuple[str, ...]
    type: str
    example: str


DRIFT = ("seewhy.quantization", "drift")


def described() -> Iterator[Row]:
    """Yield the rows of the table of keys, then those of the table of drift."""
    key = ""
    for name, kind, _, example in table(DOCUMENT, "key"):
        name, example = name.strip("`"), example.strip("`")
        if name.startswith("."):
            yield Row((key, name[1:]), kind, example)
        else:
            key = name
            yield Row((key,), kind, example)
    for name, kind, _, example in table(DOCUMENT, "field"):
        yield Row((*DRIFT, name.strip("`.")), kind, example.strip("`"))


ROWS = [row for row in described() if row.path != (contract.DIGEST_KEY,)]


def values(rows: list[Row]) -> dict[str, Any]:
    """Return the examples of the tables as the metadata of one file."""
    found: dict[str, Any] = {}
    for row in rows:
        holder(found, row)[row.path[-1]] = json.loads(row.example) if row.example else {}
    return found


def holder(found: dict[str, Any], row: Row) -> dict[str, Any]:
    """Return the object in `found` that a row describes a value of."""
    return functools.reduce(dict.__getitem__, row.path[:-1], found)


def properties(found: dict[str, Any]) -> dict[str, str]:
    """Return metadata as JSON texts by key."""
    return {key: json.dumps(value) for key, value in found.items()}


def test_the_table_lists_every_key_and_field() -> None:
    read = Metadata.from_properties(properties(values(ROWS)), "m.onnx")
    written = {key: json.loads(value) for key, value in read.to_properties().items()}
    # Free-form objects keep all their keys; of the others, only the fields of the contract are read.
    assert written == values(ROWS)


NO_MAPS = {"constant_maps": 96, "correlation_median": None, "correlation_p5": None, "correlation_worst": None}
# Values that may be null only together with these other values.
WITH_NULL: dict[tuple[str, ...], dict[str, Any]] = {
    ("seewhy.preprocessing", "size"): {"resize": "squash"},
    (*DRIFT, "correlation_median"): NO_MAPS,
    (*DRIFT, "correlation_p5"): NO_MAPS,
    (*DRIFT, "correlation_worst"): NO_MAPS,
    (*DRIFT, "top1_agreement_confident"): {"confident_images": 0},
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ".".join(row.path))
def test_null_is_allowed_where_the_table_says_so(row: Row) -> None:
    found = values(ROWS)
    changed = holder(found, row)
    changed[row.path[-1]] = None
    changed.update(WITH_NULL.get(row.path, {}))
    if row.type.endswith(", or null"):
        Metadata.from_properties(properties(found), "m.onnx")
    else:
        with pytest.raises(ModelFileError, match=row.path[0]):
            Metadata.from_properties(properties(found), "m.onnx")


TYPES: dict[str, type] = {
    "integer": int,
    "number": float,
    "string": str,
    "boolean": bool,
    "object": dict,
    "list": list,
    "two": list,
}


@pytest.mark.parametrize("row", ROWS, ids=lambda row: ".".join(row.path))
def test_examples_have_the_documented_type(row: Row) -> None:
    example = json.loads(row.example) if row.example else {}
    word = row.type.partition(":")[0].split(",")[0].split(" ")[0]
    assert isinstance(example, TYPES[word])


@pytest.mark.parametrize(
    ("field", "choices"),
    [
        (("seewhy.preprocessing", "resize"), contract.RESIZE_MODES),
        (("seewhy.preprocessing", "interpolation"), contract.INTERPOLATIONS),
        (("seewhy.preprocessing", "channel_order"), contract.CHANNEL_ORDERS),
        (("seewhy.score",), contract.SCORES),
        (("seewhy.quantization", "weight_type"), WEIGHT_TYPES),
        (("seewhy.quantization", "activation_type"), ACTIVATION_TYPES),
    ],
)
def test_the_table_lists_every_choice(field: tuple[str, ...], choices: tuple[str, ...]) -> None:
    names = [row.path for row in described()]
    meaning = table(DOCUMENT, "key")[names.index(field)][2]
    assert all(f"`{choice}`" in meaning for choice in choices)


def test_the_digest_is_documented() -> None:
    (row,) = (row for row in described() if row.path == (contract.DIGEST_KEY,))
    assert len(row.example) == len(contract.DIGEST_PLACEHOLDER)
    assert row.type == f"{len(contract.DIGEST_PLACEHOLDER)} digits"


def test_the_graph_tables_list_every_value() -> None:
    assert tuple(row[0].strip("`") for row in table(DOCUMENT, "input")) == contract.INPUTS
    outputs = table(DOCUMENT, "output")
    assert tuple(row[0].strip("`") for row in outputs) == contract.OUTPUTS
    optional = [row[0].strip("`") for row in outputs if row[2].startswith("optional")]
    assert tuple(optional) == contract.OPTIONAL_OUTPUTS


def test_numbers_in_the_text() -> None:
    text = " ".join((ROOT / DOCUMENT).read_text(encoding="utf-8").split())
    assert f"Opset {contract.OPSET} " in text and f"IR version {contract.IR_VERSION}." in text
    assert f"({contract.EXTERNAL_DATA_THRESHOLD:,} bytes)" in text
    assert f"{contract.PREDICTED} is the class that the model predicts" in text


EXPORT = """
import numpy as np
import torch
from PIL import Image
from torch import nn
from seewhy.contract.metadata import Preprocessing
from seewhy_export import export
torch.manual_seed(0)  # with other weights, all of the map may be zero
network = nn.Sequential(
    nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)
)
image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (30, 23, 3), dtype=np.uint8))
image.save("photo.png")
export(network, "model.onnx", image_size=(9, 11), preprocessing=Preprocessing("shorter-side", 12))
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("format")
    subprocess.run([sys.executable, "-c", EXPORT], cwd=folder, check=True, timeout=300)
    return folder


@pytest.mark.parametrize("block", blocks(DOCUMENT, "python"), ids=lambda block: block.name)
def test_code_runs_as_printed(exported: Path, block: Block) -> None:
    done = subprocess.run([sys.executable, "-c", block.code], cwd=exported, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("block", [b for b in blocks(DOCUMENT, "python") if "sha256" in b.code], ids=lambda b: b.name)
def test_code_that_checks_a_hash_detects_a_change(exported: Path, tmp_path: Path, block: Block) -> None:
    data = bytearray((exported / "model.onnx").read_bytes())
    weights = onnx.ModelProto.FromString(bytes(data)).graph.initializer[0].raw_data
    assert data.count(weights) == 1
    data[data.index(weights)] ^= 1
    (tmp_path / "model.onnx").write_bytes(data)
    done = subprocess.run([sys.executable, "-c", block.code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert "AssertionError" in done.stderr


def test_gradcam_by_hand_is_gradcam(exported: Path, tmp_path: Path) -> None:
    block = next(b for b in blocks(DOCUMENT, "python") if "gradcam = " in b.code)
    shutil.copy(exported / "model.onnx", tmp_path)
    random = "np.random.default_rng(0).standard_normal((1, *session.get_inputs()[0].shape[1:])).astype(np.float32)"
    code = block.code.replace("np.zeros((1, *session.get_inputs()[0].shape[1:]), np.float32)", random)
    assert code != block.code
    subprocess.run([sys.executable, "-c", f"{code}\nnp.save('map.npy', gradcam)"], cwd=tmp_path, check=True, timeout=60)
    pixels = np.random.default_rng(0).standard_normal((1, 3, 9, 11)).astype(np.float32)
    maps = Explainer(tmp_path / "model.onnx").explain(pixels, "gradcam").maps
    assert maps is not None and maps.max() > 0
    # The float32 sums over 4 channels are in another order.
    np.testing.assert_allclose(np.load(tmp_path / "map.npy"), np.maximum(maps, 0), rtol=1e-5, atol=1e-7)


# From an image to the logits.


def oriented(folder: Path, size: tuple[int, int]) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    photo(size).save(folder / "photo.png", exif=exif)


def transparent(folder: Path, size: tuple[int, int]) -> None:
    image = photo(size)
    image.putalpha(photo(size).convert("L"))
    image.save(folder / "photo.png")


def deep_grey(folder: Path, size: tuple[int, int]) -> None:
    pixels = np.asarray(photo(size).convert("L"), np.uint16) * 251 + 77
    Image.fromarray(pixels).save(folder / "photo.png")


def palette(folder: Path, size: tuple[int, int]) -> None:
    photo(size).quantize(9).save(folder / "photo.png", transparency=3)


def photo(size: tuple[int, int]) -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(0, 256, (*size, 3), dtype=np.uint8))


@pytest.mark.parametrize("save", [oriented, transparent, deep_grey, palette], ids=lambda save: save.__name__)
@pytest.mark.parametrize("size", [(31, 23), (23, 42), (13, 14), (8, 9)])
@pytest.mark.parametrize(
    "how",
    [
        Preprocessing("shorter-side", 14),
        Preprocessing("shorter-side", 15, "bicubic", channel_order="BGR", std=(0.1, 0.2, 0.3)),
        Preprocessing("shorter-side", 15, crop_rounding="down"),
        Preprocessing("squash", None, "lanczos", crop=False),
        Preprocessing("squash", 15),
        Preprocessing("none"),
    ],
    ids=lambda how: f"{how.resize} {how.size} {how.crop_rounding}",
)
def test_the_page_is_enough_to_reproduce_the_numbers(
    how: Preprocessing,
    size: tuple[int, int],
    save: Callable[[Path, tuple[int, int]], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Tiny(preprocessing=how).save(tmp_path / "model.onnx")
    save(tmp_path, size)
    monkeypatch.chdir(tmp_path)
    block = next(b for b in blocks(DOCUMENT, "python") if "crop_start" in b.code)
    found: dict[str, Any] = {}
    exec(block.code, found)
    explainer = Explainer("model.onnx")
    np.testing.assert_array_equal(found["images"], explainer.preprocess("photo.png"))
    np.testing.assert_array_equal(found["logits"], explainer.predict("photo.png").logits)


# The JSON of `seewhy inspect`.


def sidecar(model: Path) -> dict[str, Any]:
    """Return what `seewhy inspect --json` prints about a model file."""
    found: dict[str, Any] = json.loads(run("inspect", model, "--json").stdout)
    return found


def test_the_table_lists_every_key_of_the_sidecar(model_path: Path) -> None:
    rows = {name.strip("`"): kind for name, kind, _ in table(DOCUMENT, "JSON key")}
    found = sidecar(model_path)
    bare = sidecar(Tiny(labels=None, preprocessing=None).save(model_path.with_name("bare.onnx")))
    assert list(rows) == list(found)
    for values in (found, bare):
        for key, kind in rows.items():
            word = kind.partition(",")[0].split(" ")[0]
            assert isinstance(values[key], TYPES[word]) or (values[key] is None and kind.endswith(", or null")), key
    assert all((key in bare and bare[key] is None) for key in ("labels", "preprocessing", "cut_from", "damage"))


def test_objects_of_the_sidecar_have_the_fields_of_the_metadata(model_path: Path) -> None:
    fields: dict[str, set[str]] = {}
    for row in ROWS:
        if len(row.path) == 2:
            fields.setdefault(row.path[0], set()).add(row.path[1])
    found = sidecar(model_path)
    for name, _, content in table(DOCUMENT, "JSON key"):
        key = content.partition("as `")[2].rstrip("`")
        value = found[name.strip("`")]
        if key and value is not None and key in fields:
            assert set(value) == fields[key], key


STUBS = """
const fetch = async () => ({ json: async () => JSON.parse(require("fs").readFileSync("web.json", "utf8")) });
class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } }
let feeds;
const run = async (given) => {
  feeds = given;
  const logits = new Tensor("float32", Float32Array.of(0, 1, 3, 2, 0, 0), [1, 6]);
  return { logits, gradcam_map: new Tensor("float32", Float32Array.of(0, 1, 2, 4), [1, 2, 2]) };
};
const ort = { Tensor, InferenceSession: { create: async () => ({ run }) } };
const image = { data: new Uint8ClampedArray(require("fs").readFileSync("photo.bin")) };
(async () => {
CODE
console.log(JSON.stringify({ result, images: Array.from(feeds.images.data), dims: feeds.images.dims }));
})();
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
@pytest.mark.parametrize("order", contract.CHANNEL_ORDERS)
def test_the_javascript_feeds_what_the_engine_feeds(order: str, tmp_path: Path) -> None:
    model = Tiny(preprocessing=Preprocessing(channel_order=order)).save(tmp_path / "web.onnx")
    (tmp_path / "web.json").write_text(run("inspect", model, "--json").stdout)
    image = photo((12, 16))
    (tmp_path / "photo.bin").write_bytes(image.convert("RGBA").tobytes())
    (block,) = blocks(DOCUMENT, "javascript")
    program = STUBS.replace("CODE", block.code)
    done = subprocess.run(["node", "-e", program], cwd=tmp_path, check=True, capture_output=True, text=True, timeout=60)
    found = json.loads(done.stdout)
    assert found["dims"] == [1, 3, 12, 16]
    expected = Explainer(model).preprocess(image).ravel()
    np.testing.assert_allclose(found["images"], expected, rtol=1e-6, atol=1e-6)
    assert found["result"] == {"label": "crane", "rows": 2, "heatmap": [0, 0.25, 0.5, 1]}
