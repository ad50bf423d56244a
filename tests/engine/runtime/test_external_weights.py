"""Tests of `seewhy.runtime.external_weights`: the file is read once, verified, and must be beside its model file."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from PIL import Image

from seewhy import Explainer, ModelFileError, explain_folder
from seewhy.runtime import external_weights
from seewhy.runtime.model_file import ModelFile
from support.tiny_model import Tiny
from support.tiny_model_files import external, refused, write


def test_external_weights(tmp_path: Path, tiny: Tiny, explainer: Explainer, monkeypatch: pytest.MonkeyPatch) -> None:
    images = np.random.default_rng(0).standard_normal((2, 3, 12, 16)).astype(np.float32)
    path = external(tmp_path, tiny)
    expected = explainer.explain(images)
    assert np.array_equal(Explainer(path, threads=1).explain(images).attributions, expected.attributions)
    relative = Explainer(os.path.relpath(path), threads=1)
    monkeypatch.chdir(tmp_path)
    assert np.array_equal(Explainer("big.onnx", threads=1).explain(images).attributions, expected.attributions)
    del relative


def test_external_weights_missing_or_damaged(tmp_path: Path, tiny: Tiny) -> None:
    path = external(tmp_path, tiny)
    weights = tmp_path / "big.onnx.data"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    refused(path, r"big\.onnx\.data: damaged or changed")
    assert ModelFile.read(path, verify=False)
    weights.unlink()
    refused(path, r"big\.onnx: its weights big\.onnx\.data are missing", verify=False)


@pytest.mark.parametrize("location", ["../big.onnx.data", "/etc/passwd", "sub/big", "..", "", "C:\\x", "a\\b", "c:x"])
def test_external_weights_elsewhere(tmp_path: Path, tiny: Tiny, location: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "big.onnx.data").write_bytes(bytes(100_000))
    refused(external(folder, tiny, location=location), "refers to weights outside its folder", verify=False)
    refused(external(folder, tiny, declared=location), "refers to weights outside its folder", verify=False)


def test_external_weights_that_the_metadata_does_not_name(tmp_path: Path, tiny: Tiny) -> None:
    refused(external(tmp_path, tiny, declared=None), "weights that its metadata does not name", verify=False)
    (tmp_path / "other").write_bytes(bytes(10_000))
    refused(external(tmp_path, tiny, location="other"), "weights that its metadata does not name", verify=False)


def test_external_weights_in_an_attribute(tmp_path: Path, tiny: Tiny) -> None:
    model = tiny.proto()
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))
    refused(write(tmp_path / "c.onnx", model), "refers to weights outside its folder: '/etc/passwd'")


@pytest.mark.parametrize("name", ["x" * 300, "y" * 8_000, "two\nlines", "\x1b[2J", "none"])
def test_external_weights_with_invalid_names(tmp_path: Path, tiny: Tiny, name: str) -> None:
    path = external(tmp_path, tiny, location=name, declared=name)
    with pytest.raises(ModelFileError, match="its weights .* are missing") as raised:
        ModelFile.read(path)
    assert str(raised.value).isprintable() and len(str(raised.value)) < 400


IMAGES = np.random.default_rng(0).standard_normal((2, 3, 12, 16)).astype(np.float32)


def overwrite(path: Path) -> None:
    """Replace the content in place, and keep the size and the modification time."""
    times = path.stat()
    with path.open("r+b") as file:
        file.write(np.random.default_rng(9).bytes(times.st_size))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_overwritten_weights_change_no_numbers(tmp_path: Path, tiny: Tiny, explainer: Explainer) -> None:
    """Existing sessions do not map the file into memory, and later sessions do not read it again."""
    loaded = Explainer(external(tmp_path, tiny), threads=1)
    loaded.explain(IMAGES, "gradcam")
    overwrite(tmp_path / "big.onnx.data")
    for method in ("gradcam", "backprop", "guided-backprop", "eigencam", "cam", "deconvnet", "scorecam", "ablationcam"):
        for again in (loaded, loaded.with_threads(2), loaded.with_threads(None)):
            found, expected = (one.explain(IMAGES, method) for one in (again, explainer))
            np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-6)
            np.testing.assert_allclose(found.attributions, expected.attributions, rtol=1e-4, atol=1e-5)


def test_a_job_records_the_hash_of_both_files(
    tmp_path: Path, tiny: Tiny, make_image: Callable[..., Image.Image]
) -> None:
    path = external(tmp_path, tiny)
    expected = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (path, tmp_path / "big.onnx.data")]
    explainer = Explainer(path, threads=1)
    assert [explainer.sha256, explainer.external_data_sha256] == expected
    overwrite(tmp_path / "big.onnx.data")
    make_image().save(tmp_path / "photo.png")
    explain_folder(explainer, tmp_path / "photo.png", tmp_path / "out")
    recorded = json.loads((tmp_path / "out" / "run.json").read_text())["model"]
    assert [recorded["sha256"], recorded["external_data"]["sha256"]] == expected


def test_a_model_without_external_weights_has_no_second_hash(explainer: Explainer) -> None:
    assert explainer.external_data_sha256 is None


@pytest.mark.parametrize(
    ("entries", "size", "words"),
    [
        ({"length": "716"}, None, "must have 720 bytes in big.onnx.data, but its entry says .* length '716'"),
        ({"length": "-720"}, None, "length '-720'"),
        ({"length": "9" * 5000}, None, "length '9999"),
        ({"offset": "-4"}, None, "offset '-4'"),
        ({"offset": "0x10"}, None, "offset '0x10'"),
        ({"offset": "4097"}, None, "it has 4816 bytes, but the weights in it end at byte 4817"),
        ({}, 40 * 2**30, "it has 42949672960 bytes, but the weights in it end at byte 4816"),
        ({"length": None}, 40 * 2**30, "it has 42949672960 bytes"),
        ({}, 4000, "it has 4000 bytes, but"),
    ],
)
def test_positions_outside_the_file(
    tmp_path: Path, tiny: Tiny, entries: Mapping[str, str | None], size: int | None, words: str
) -> None:
    """Nothing is read: a sparse file of 40 GiB would fill the memory."""
    path = external(tmp_path, tiny, entries=entries)
    if size is not None:
        os.truncate(tmp_path / "big.onnx.data", size)
    refused(path, words, verify=False)


def test_a_missing_length_is_that_of_the_shape(tmp_path: Path, tiny: Tiny, explainer: Explainer) -> None:
    found = Explainer(external(tmp_path, tiny, entries={"length": None}), threads=1).explain(IMAGES)
    assert np.array_equal(found.logits, explainer.explain(IMAGES).logits)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, tiny: Tiny) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = external(folder, tiny)
    (folder / "big.onnx.data").rename(tmp_path / "elsewhere")
    (folder / "big.onnx.data").symlink_to("../elsewhere")
    refused(path, r"its weights big\.onnx\.data are a link that leads out of its folder", verify=False)
    (folder / "big.onnx.data").unlink()
    (folder / "big.onnx.data").symlink_to("/dev/zero")
    refused(path, "a link that leads out of its folder", verify=False)


def test_links_of_both_files_to_one_other_folder_are_followed(tmp_path: Path, tiny: Tiny, explainer: Explainer) -> None:
    """Download caches store files by their hashes and link the names to them."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    snapshot.mkdir()
    external(blobs, tiny).rename(blobs / "0123")
    (blobs / "big.onnx.data").rename(blobs / "4567")
    (snapshot / "big.onnx").symlink_to("../blobs/0123")
    (snapshot / "big.onnx.data").symlink_to("../blobs/4567")
    found = Explainer(snapshot / "big.onnx", threads=1).explain(IMAGES)
    assert np.array_equal(found.logits, explainer.explain(IMAGES).logits)


def test_a_pipe_in_place_of_the_weights_is_refused_at_once(tmp_path: Path, tiny: Tiny) -> None:
    path = external(tmp_path, tiny)
    (tmp_path / "big.onnx.data").unlink()
    os.mkfifo(tmp_path / "big.onnx.data")
    refused(path, "it is a pipe, not a regular file", verify=False)


def test_a_disk_that_cannot_read_the_weights(tmp_path: Path, tiny: Tiny, monkeypatch: pytest.MonkeyPatch) -> None:
    path = external(tmp_path, tiny)
    opened = external_weights.open_regular

    class Broken(io.BytesIO):
        def fileno(self) -> int:
            return self.file.fileno()

        def close(self) -> None:
            self.file.close()

        def read(self, size: int | None = -1) -> bytes:
            raise OSError(errno.EIO, "Input/output error")

        def readinto(self, buffer: object) -> int:
            raise OSError(errno.EIO, "Input/output error")

    def fail(name: Path) -> Broken:
        broken = Broken()
        broken.file = opened(name)  # type: ignore[attr-defined]
        return broken

    monkeypatch.setattr(external_weights, "open_regular", fail)
    refused(path, r"big\.onnx\.data: cannot be read: Input/output error")
    with pytest.raises(ModelFileError, match=r"big\.onnx\.data: cannot be read: Input/output error"):
        ModelFile.inspect(path)


def test_an_external_tensor_that_is_not_a_weight_is_refused(tmp_path: Path, tiny: Tiny) -> None:
    """It is refused even if it is in the file that the metadata names."""
    path = external(tmp_path, tiny)
    model = onnx.load(path, load_external_data=False)
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[6], data_location=TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="big.onnx.data")
    model.graph.node.append(onnx.helper.make_node("Constant", [], ["c"], value=tensor))
    path.write_bytes(model.SerializeToString())
    refused(path, "a tensor that is not a weight is stored in", verify=False)


def test_invalid_positions_and_shapes(tmp_path: Path, tiny: Tiny) -> None:
    path = external(tmp_path, tiny)
    for change, words in (
        (lambda tensor: tensor.external_data.add(key="location", value="x"), "gives its location twice"),
        (lambda tensor: tensor.dims.__setitem__(0, 2**62), "has an invalid dimension"),
        (lambda tensor: tensor.dims.__setitem__(0, -1), "has an invalid dimension"),
    ):
        model = onnx.load(path, load_external_data=False)
        change(next(t for t in model.graph.initializer if t.name == "conv2.weight"))
        (tmp_path / "odd.onnx").write_bytes(model.SerializeToString())
        refused(tmp_path / "odd.onnx", words, verify=False)
