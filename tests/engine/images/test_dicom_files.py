"""Tests of `seewhy.images.dicom_files`: pixels as in the formulas of the DICOM standard, and refused files."""

from __future__ import annotations

import io
import sys
import tracemalloc
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer, ImageError, MissingExtraError, explain_folder
from seewhy.images import pixel_depth
from seewhy.images.decoding import decode_bytes, decode_file
from support.jobs.broken_jobs import lines

pydicom = pytest.importorskip("pydicom")

SAMPLES = np.array([[0, 1, 500, 1000], [2047, 3000, 4094, 4095]])


def data_set(pixels: np.ndarray, photometric: str = "MONOCHROME2", bits: int = 12, **more: Any) -> Any:
    """Return a data set whose pixels are stored in whole bytes."""
    data = pydicom.Dataset()
    data.file_meta = pydicom.dataset.FileMetaDataset()
    data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID = pydicom.uid.SecondaryCaptureImageStorage
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID = "1.2.3"
    data.Rows, data.Columns = pixels.shape[:2]
    data.SamplesPerPixel = 3 if pixels.ndim == 3 else 1
    data.PhotometricInterpretation = photometric
    data.BitsAllocated = 8 if bits <= 8 else 16
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, int(pixels.min() < 0)
    if pixels.ndim == 3:
        data.PlanarConfiguration = 0
    kind = f"<{'i' if pixels.min() < 0 else 'u'}{data.BitsAllocated // 8}"
    data.PixelData = pixels.astype(kind).tobytes()
    for name, value in more.items():
        setattr(data, name, value)
    return data


def content(data: Any) -> bytes:
    file = io.BytesIO()
    pydicom.dcmwrite(file, data, enforce_file_format=True)
    return file.getvalue()


def grey(data: Any) -> np.ndarray:
    return np.asarray(decode_bytes(content(data), "L", "x").image).astype(int)


def rounded(shares: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(shares, 0, 1) * 255)


# Grey.


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
def test_the_stored_bits_are_scaled(bits: int) -> None:
    top = (1 << bits) - 1
    samples = np.array([[0, top], [top // 2, top // 3]])
    assert np.array_equal(grey(data_set(samples, bits=bits)), rounded(samples / top))
    assert np.array_equal(grey(data_set(samples, "MONOCHROME1", bits)), 255 - rounded(samples / top))


def test_bits_above_the_stored_ones_are_ignored() -> None:
    """Old files keep overlays there."""
    samples = np.array([[0x0005, 0xF005]])
    assert np.array_equal(grey(data_set(samples, BitsStored=12, HighBit=11, BitsAllocated=16)), [[0, 0]])


def test_signed_values() -> None:
    samples = np.array([[-2048, -1, 0, 2047]])
    assert np.array_equal(grey(data_set(samples)), rounded((samples + 2048) / 4095))


@pytest.mark.parametrize("slope", [1, 2.5, -1])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_windows_after_the_rescaling(slope: float, photometric: str) -> None:
    """The formulas of PS3.3, C.11.2.1.2 and C.11.2.1.3, pixel by pixel."""
    centre, width, intercept = 700.0, 1500.0, -1024.0
    more = {"RescaleSlope": slope, "RescaleIntercept": intercept, "WindowCenter": centre, "WindowWidth": width}

    def shown(function: str) -> list[list[float]]:
        rows = []
        for row in SAMPLES:
            rows.append([])
            for sample in row:
                x = float(sample) * slope + intercept
                if function == "LINEAR":
                    if x <= centre - 0.5 - (width - 1) / 2:
                        y = 0.0
                    elif x > centre - 0.5 + (width - 1) / 2:
                        y = 1.0
                    else:
                        y = (x - (centre - 0.5)) / (width - 1) + 0.5
                elif function == "LINEAR_EXACT":
                    y = (
                        0.0
                        if x <= centre - width / 2
                        else 1.0
                        if x > centre + width / 2
                        else (x - centre) / width + 0.5
                    )
                else:
                    y = 1 / (1 + np.exp(-4 * (x - centre) / width))
                rows[-1].append(round((1 - y if photometric == "MONOCHROME1" else y) * 255))
        return rows

    for function in ("LINEAR", "LINEAR_EXACT", "SIGMOID"):
        found = grey(data_set(SAMPLES, photometric, **more, VOILUTFunction=function))
        assert np.abs(found - shown(function)).max() <= (photometric == "MONOCHROME1")  # halves round either way
    assert np.abs(grey(data_set(SAMPLES, photometric, **more)) - shown("LINEAR")).max() <= 1


def test_the_first_of_several_windows_counts() -> None:
    several = data_set(SAMPLES, WindowCenter=[2048, 10], WindowWidth=[4096, 20])
    assert np.array_equal(grey(several), grey(data_set(SAMPLES, WindowCenter=2048, WindowWidth=4096)))


def test_a_window_of_width_one_is_a_threshold() -> None:
    found = grey(data_set(SAMPLES, WindowCenter=1000.5, WindowWidth=1))
    assert found.tolist() == [[0, 0, 0, 0], [255] * 4]


def test_lookup_tables() -> None:
    table = pydicom.Dataset()
    table.LUTDescriptor = [4, 0, 8]
    table.add_new("LUTData", "US", [255, 10, 20, 30])
    data = data_set(np.array([[0, 1, 2, 3, 200]]), bits=8, VOILUTSequence=[table], WindowCenter=1, WindowWidth=1)
    assert grey(data).tolist() == [[255, 10, 20, 30, 30]]


# Colour.


@pytest.mark.parametrize("planar", [0, 1])
def test_rgb(planar: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 6, 3))
    data = data_set(pixels, "RGB", 8, PlanarConfiguration=planar)
    if planar:
        data.PixelData = pixels.astype(np.uint8).transpose(2, 0, 1).tobytes()
    assert np.array_equal(np.asarray(decode_bytes(content(data), "RGB", "x").image), pixels)


def test_ybr() -> None:
    """The matrix of PS3.3, C.7.6.3.1.2."""
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3))
    matrix = np.array([[0.299, 0.587, 0.114], [-0.1687, -0.3313, 0.5], [0.5, -0.4187, -0.0813]])
    stored = np.clip(np.rint(pixels @ matrix.T + [0, 128, 128]), 0, 255)
    found = np.asarray(decode_bytes(content(data_set(stored, "YBR_FULL", 8)), "RGB", "x").image).astype(int)
    assert np.abs(found - pixels).max() <= 2


def test_palette() -> None:
    data = data_set(np.array([[0, 1, 2]]), "PALETTE COLOR", 8)
    for name, entries in (("Red", [0, 257, 65535]), ("Green", [65535, 0, 514]), ("Blue", [771, 65535, 0])):
        setattr(data, f"{name}PaletteColorLookupTableDescriptor", [3, 0, 16])
        setattr(data, f"{name}PaletteColorLookupTableData", np.array(entries, "<u2").tobytes())
    found = np.asarray(decode_bytes(content(data), "RGB", "x").image)
    assert found.tolist() == [[[0, 255, 3], [1, 0, 255], [255, 2, 0]]]


# Memory.


def peak(data: Any, mode: str = "L") -> int:
    """Return the memory in bytes that decoding needs beside the file, after a first time for imports."""
    file = content(data)
    for _ in range(2):
        tracemalloc.start()
        with suppress(ImageError):
            decode_bytes(file, mode, "x")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return found


def test_large_images_are_converted_in_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_depth, "STRIP", 7_000)  # 14 rows, which do not divide 600
    samples = np.random.default_rng(0).integers(0, 4096, (600, 500))
    plain, inverted = data_set(samples), data_set(samples, "MONOCHROME1")
    window = data_set(samples, WindowCenter=2048, WindowWidth=4096, RescaleSlope=1, RescaleIntercept=0)
    assert np.array_equal(grey(plain), rounded(samples / 4095))
    assert np.array_equal(grey(inverted), 255 - rounded(samples / 4095))
    assert np.array_equal(grey(window), rounded(samples / 4095))
    assert max(map(peak, (plain, inverted, window))) < 12 * samples.size


def test_pixels_are_not_read_before_size_and_frames_are_checked() -> None:
    samples = np.zeros((600, 500), int)
    for changes in ({"NumberOfFrames": 2}, {"Rows": 60000, "Columns": 60000}, {"Rows": 0}):
        assert peak(data_set(samples, **changes)) < samples.size < 2 * samples.size == len(data_set(samples).PixelData)


# Compressed pixels.


def test_run_length_encoding() -> None:
    data = data_set(SAMPLES)
    wanted = grey(data)
    data.compress(pydicom.uid.RLELossless)
    assert np.array_equal(grey(data), wanted)


def test_jpeg() -> None:
    pixels = np.asarray(Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)))
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=98)
    data = data_set(pixels, bits=8)
    data.file_meta.TransferSyntaxUID = pydicom.uid.JPEGBaseline8Bit
    data.PixelData = pydicom.encaps.encapsulate([file.getvalue()])
    data["PixelData"].is_undefined_length = True
    assert np.abs(grey(data) - pixels).max() <= 3


def test_a_compression_without_decoder_is_refused_in_one_line() -> None:
    data = data_set(SAMPLES)
    data.file_meta.TransferSyntaxUID = pydicom.uid.HTJ2KLossless
    data.PixelData = pydicom.encaps.encapsulate([b"xx"])
    data["PixelData"].is_undefined_length = True
    with pytest.raises(ImageError, match="compressed with High-Throughput JPEG 2000.*store it uncompressed") as caught:
        grey(data)
    assert "\n" not in str(caught.value)


def test_deflated_files_are_refused_before_they_are_inflated() -> None:
    plain = content(data_set(SAMPLES))
    start = 132 + 12 + int.from_bytes(plain[140:144], "little")
    meta = plain[:start].replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99")
    meta = meta.replace(b"UI\x14\x001.2.840.10008.1.2.1.99", b"UI\x16\x001.2.840.10008.1.2.1.99")
    bomb = zlib.compressobj(wbits=-15)
    with pytest.raises(ImageError, match="deflated DICOM files are not supported"):
        decode_bytes(meta + bomb.compress(bytes(10**6)) + bomb.flush(), "L", "x")


# Refused files.


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"NumberOfFrames": 3}, "holds 3 frames; write each frame to a file of its own"),
        ({"PhotometricInterpretation": "HSV"}, "pixels of the kind HSV are not supported"),
        ({"Rows": 60000, "Columns": 60000}, "60000x60000 pixels are more than"),
        ({"Rows": 0}, "the image has no pixels"),
        ({"Rows": 3}, "damaged image"),
        ({"WindowCenter": 1, "WindowWidth": 0}, "its window has the centre 1 and the width 0"),
        ({"WindowCenter": 1, "WindowWidth": 2, "VOILUTFunction": "CUBIC"}, "the unknown function CUBIC"),
        ({"SamplesPerPixel": 3, "PlanarConfiguration": 0}, "damaged image"),
    ],
)
def test_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(ImageError, match=words) as caught:
        grey(data_set(SAMPLES, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lacks", ["PixelData", "Rows", "Columns"])
def test_files_without_an_image(lacks: str) -> None:
    data = data_set(SAMPLES)
    delattr(data, lacks)
    with pytest.raises(ImageError, match="holds no image"):
        grey(data)


def test_truncated_files_never_give_pixels() -> None:
    whole = content(data_set(SAMPLES, WindowCenter=1000, WindowWidth=2000))
    for size in range(1, len(whole)):
        with pytest.raises(ImageError) as caught:
            decode_bytes(whole[:size], "L", "x")
        assert "\n" not in str(caught.value)


def test_damaged_files_end_in_an_error_or_an_image() -> None:
    whole = content(data_set(SAMPLES, RescaleSlope=2, RescaleIntercept=-5, WindowCenter=1000, WindowWidth=2000))
    random = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(whole)
        for place in random.integers(128, len(whole), 3):
            damaged[place] ^= int(random.integers(1, 256))
        try:
            image = decode_bytes(bytes(damaged), "L", "x").image
        except ImageError as error:
            assert "\n" not in str(error)
        else:
            assert image.mode == "L"


# Names and the extra.


def test_the_content_counts_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "IM000001"
    path.write_bytes(content(data_set(SAMPLES)))
    assert decode_file(path, "L").size == (4, 2)


def test_without_the_extra(explainer: Explainer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "in" / "scan.dcm"
    path.parent.mkdir()
    path.write_bytes(content(data_set(SAMPLES)))
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(
        MissingExtraError, match=r'scan.dcm: DICOM images need an extra; run: pip install "\.\[dicom\]"'
    ):
        explainer.explain(path)
    assert explain_folder(explainer, path.parent, tmp_path / "out").failed == 1
    assert "DICOM images need an extra" in lines(tmp_path / "out")[0]["error"]
