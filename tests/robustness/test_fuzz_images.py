"""Tests of damaged image files: decoding returns the right shape or raises a one-line `ImageError`.

Time and memory are limited.
"""

from __future__ import annotations

import json
import random
import struct
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer, ImageError, Settings, explain_folder
from seewhy.contract.constants import MAX_PIXELS
from seewhy.images.decoding import Decoded, decode_bytes, decode_file
from support import forked_cases
from support.files.file_damage import DAMAGES
from support.files.image_files import HEIGHT, WIDTH, image_files, png, resized

CASES = 2000
GROUP = 100
GIB = 1 << 30
SUFFIX_OF = {"png": ".png", "webp": ".webp", "gif": ".gif", "tiff": ".tif", "bmp": ".bmp"}
SUFFIXES = (".jpg", ".png", ".webp", ".gif", ".tif", ".bmp", ".jp2", ".txt", "")
SIDES = (0, 1, 2, WIDTH - 1, WIDTH + 1, 1000, 12_000, 0x3FFF, 0xFFFF, 0x10000, 2**31 - 1, 2**31, 2**32 - 1)


def damaged(seed: int) -> tuple[str, str, bytes]:
    """Return (kind of file, kind of damage, content) for a seed."""
    generator = random.Random(seed)
    kind = generator.choice(sorted(image_files()))
    content = image_files()[kind]
    damage = generator.choice((*sorted(DAMAGES), "size", "size", "suffix"))
    if damage == "size":
        width, height = generator.choice(
            (
                (generator.choice(SIDES), HEIGHT),
                (WIDTH, generator.choice(SIDES)),
                (generator.choice(SIDES), generator.choice(SIDES)),
            )
        )
        return kind, damage, resized(content, width, height)
    if damage == "suffix":
        return kind, damage, content
    if generator.random() < 0.5:  # damage to the header affects the rest of the file
        return kind, damage, DAMAGES[damage](content[:400], generator) + content[400:]
    return kind, damage, DAMAGES[damage](content, generator)


def decode(case: dict[str, int]) -> dict[str, Any]:
    """Decode one damaged file from bytes and from a file, at full and at reduced size."""
    generator = random.Random(-1 - case["seed"])
    kind, damage, content = damaged(case["seed"])
    mode = generator.choice(("RGB", "L"))
    target = generator.randrange(1, 40), generator.randrange(1, 40)
    found: dict[str, Any] = {"kind": kind, "damage": damage, "intact": content == image_files()[kind], "mode": mode}
    found["results"] = []
    for smaller in (None, lambda size: target):
        for from_file in (False, True):
            try:
                if from_file:
                    with tempfile.TemporaryDirectory() as folder:
                        path = Path(folder, "x" + generator.choice(SUFFIXES))
                        path.write_bytes(content)
                        decoded = decode_file(path, mode, smaller)
                else:
                    decoded = decode_bytes(content, mode, "x", smaller)
                found["results"].append(_checked(decoded, mode, smaller is not None))
            except ImageError as error:
                found["results"].append({"error": str(error)})
    return found


def _checked(decoded: Decoded, mode: str, fast: bool) -> dict[str, Any]:
    pixels = np.asarray(decoded.image)
    width, height = decoded.image.size
    assert pixels.dtype == np.uint8 and pixels.shape == ((height, width, 3) if mode == "RGB" else (height, width))
    assert width * height <= MAX_PIXELS and decoded.image.mode == mode
    assert decoded.size == (width, height) or fast
    return {"size": list(decoded.size), "sum": int(pixels[:99].sum())}


def quiet(printed: str, kind: str) -> bool:
    """Return True if nothing was printed, except by libtiff, which prints the errors that Pillow raises."""
    return "Warning" not in printed and "Traceback" not in printed and (not printed or kind.endswith("tiff"))


def one_line(text: str) -> bool:
    return text.isprintable() and 0 < len(text) < 500 and not text.endswith(": ")


@pytest.mark.parametrize("seeds", [range(150), pytest.param(range(150, CASES), marks=pytest.mark.slow)])
def test_damaged_images(seeds: range) -> None:
    cases = [{"seed": seed} for seed in seeds]
    outcomes = forked_cases.run("robustness.test_fuzz_images:decode", cases, memory=4 * GIB, group=GROUP)
    intact = {mode: decode_intact(mode) for mode in ("RGB", "L")}
    for outcome in outcomes:
        assert outcome.killed is None and outcome.raised is None, outcome
        kind = outcome.result["kind"]
        assert quiet(outcome.printed, kind), outcome
        exact, from_file, *fast = ({"error": "x"} if "error" in each else each for each in outcome.result["results"])
        assert exact == from_file and fast[0] == fast[1], outcome  # from bytes and from a file
        assert all(one_line(each.get("error", "none")) for each in outcome.result["results"]), outcome
        if outcome.result["intact"]:
            assert exact == intact[outcome.result["mode"]][kind], outcome
    # Some headers declare a hundred million pixels, and memory is allocated for them. Unused pages cost nothing.
    assert max(outcome.peak for outcome in outcomes) < GIB
    refused = Counter(outcome.result["damage"] for outcome in outcomes if "error" in outcome.result["results"][0])
    assert set(refused) == {*DAMAGES, "size"}, refused


def decode_intact(mode: str) -> dict[str, dict[str, Any]]:
    return {kind: _checked(decode_bytes(data, mode, kind), mode, False) for kind, data in image_files().items()}


# Files that declare more pixels than the limit.


@cache
def huge() -> dict[str, bytes]:
    """Return small files that declare 40000x30000 pixels, or the maximum of the format, by kind."""
    width, height = 40_000, 30_000
    made = {kind: resized(data, width, height) for kind, data in image_files().items()}
    made = {kind: data for kind, data in made.items() if data != image_files()[kind]}
    made["lossless webp"] = resized(made["lossless webp"], 0x3FFF, 0x3FFF)
    jp2 = image_files().get("jpeg 2000", b"")
    start = jp2.find(b"ihdr") + 4
    icon = png(width, height, b"")
    made |= {
        "ppm": b"P6 40000 30000 255\n" + bytes(100),
        "tga": struct.pack("<BBBHHBHHHHBB", 0, 0, 2, 0, 0, 0, 0, 0, width, height, 24, 0) + bytes(100),
        "pcx": struct.pack("<BBBBHHHH", 10, 5, 1, 8, 0, 0, width - 1, height - 1) + bytes(53) + b"\3" + bytes(100),
        "sgi": struct.pack(">HBBHHHH", 474, 0, 1, 3, width, height, 3) + bytes(600),
        "qoi": b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + bytes(100),
        "ico": struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, 32, len(icon), 22) + icon,
        **({"jpeg 2000": jp2[:start] + struct.pack(">II", height, width) + jp2[start + 8 :]} if jp2 else {}),
    }
    return made


def decode_huge(case: dict[str, Any]) -> str:
    if case["unlimited"]:
        Image.MAX_IMAGE_PIXELS = None
    try:
        decode_bytes(huge()[case["kind"]], "RGB", "x")
    except ImageError as error:
        return str(error)
    return "decoded"


def test_decompression_bombs() -> None:
    """SeeWhy's limit applies even if a program disables Pillow's limit.

    Icons are the exception, because Pillow decodes them when it opens them.
    """
    cases = [{"kind": kind, "unlimited": unlimited} for unlimited in (False, True) for kind in sorted(huge())]
    cases.remove({"kind": "ico", "unlimited": True})
    outcomes = forked_cases.run("robustness.test_fuzz_images:decode_huge", cases, seconds=2, memory=4 * GIB, group=20)
    for outcome in outcomes:
        assert outcome.succeeded and one_line(outcome.result), outcome
        # The WebP decoder itself refuses images of this size.
        assert "refused as a decompression bomb" in outcome.result or outcome.case["kind"].endswith("webp"), outcome
        assert outcome.peak < 80 << 20, outcome
    assert len({outcome.case["kind"] for outcome in outcomes}) > 25


SIDE = 13_377
"""Side length in pixels of a square image just below MAX_PIXELS."""


def decode_largest(case: dict[str, int]) -> list[int]:
    depth, colours, width = case["depth"], case["colours"], case["width"]
    return list(decode_bytes(png(SIDE, SIDE, bytes((width + 1) * SIDE), depth, colours), "RGB", "x").size)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("depth", "colours", "width"),
    [(1, 0, SIDE // 8 + 1), (8, 0, SIDE), (16, 0, 2 * SIDE), (8, 2, 3 * SIDE), (8, 6, 4 * SIDE)],
)
def test_memory_for_the_largest_images(depth: int, colours: int, width: int) -> None:
    """Decoding needs at most 10 bytes per pixel: 4 in Pillow, 4 for a converted image, 2 for 16-bit gray."""
    case = {"depth": depth, "colours": colours, "width": width}
    function = "robustness.test_fuzz_images:decode_largest"
    [outcome] = forked_cases.run(function, [case], seconds=120, wait=500, memory=8 * GIB)
    assert outcome.succeeded and outcome.result == [SIDE, SIDE]
    assert outcome.peak < 10.5 * MAX_PIXELS


def test_folder_of_damaged_images(explainer: Explainer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    kinds = {}
    for seed in range(200):
        kind, _, content = damaged(10_000 + seed)
        name = f"{seed:03} {kind}.{kind.rpartition(' ')[2].translate(str.maketrans('', '', '-'))}"
        name = Path(name).with_suffix(SUFFIX_OF.get(kind.rpartition(" ")[2], ".jpg")).name
        (folder / name).write_bytes(content)
        kinds[name] = kind
    summary = explain_folder(explainer, folder, tmp_path / "out", Settings())
    records = [json.loads(line) for line in summary.manifest.read_text().splitlines()]
    assert [record["path"] for record in records] == [str(folder / name) for name in sorted(kinds)]
    assert (summary.done, summary.failed) == tuple(
        sum(record["status"] == status for record in records) for status in ("done", "failed")
    )
    assert summary.done > 40 and summary.failed > 40
    for record in records:
        path = Path(record["path"])
        overlay = tmp_path / "out" / f"{path.stem}.gradcam.png"
        assert overlay.is_file() == (record["status"] == "done")
        assert ("error" in record) == (record["status"] == "failed")
        assert one_line(record.get("error", "none")) and str(path) in record.get("error", str(path))
    printed = capfd.readouterr()
    assert not printed.out and quiet(printed.err, "tiff"), printed
