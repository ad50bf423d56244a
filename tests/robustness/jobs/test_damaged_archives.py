"""Tests of tar archives that are cut off, damaged, or no archives at all."""

from __future__ import annotations

import io
import os
import tarfile
import zlib
from pathlib import Path, PurePath

import numpy as np
import pytest

from seewhy import Explainer
from seewhy.inputs.tar_archives import members
from support.jobs.broken_jobs import archive, explain_and_check


def whole_archive(path: Path, png: bytes) -> list[str]:
    names = [f"{number:02}.png" for number in range(12)]
    archive(path, names, png)
    return names


def found_in(path: Path) -> tuple[list[str], list[str]]:
    """Names of members that were read whole, and what went wrong."""
    found = list(members(str(path)))
    assert all(each.error is None or each.content is None for each in found)
    return [str(each.name) for each in found if each.error is None], [str(each.error) for each in found if each.error]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_archives_cut_off(ending: str, tmp_path: Path, png: bytes) -> None:
    """Anywhere, between members too: what is whole is read, and one failure says that the rest is lost."""
    names = whole_archive(tmp_path / "a.tar", png)
    content = (tmp_path / "a.tar").read_bytes()
    if ending != ".tar":
        import bz2
        import gzip
        import lzma

        content = {".tar.gz": gzip, ".tar.bz2": bz2, ".tar.xz": lzma}[ending].compress(content)
    path = tmp_path / f"cut{ending}"
    path.write_bytes(content)
    assert found_in(path) == (names, [])
    record = 512 + (len(png) + 511) // 512 * 512
    random = np.random.default_rng(1)
    cuts = [*random.integers(0, len(content), 60).tolist(), 0, 1, 511, 512, 513]
    if ending == ".tar":
        # Behind the last member there is nothing but the end mark, whose first block is enough.
        cuts = [cut for cut in cuts if cut < 12 * record + 512] + [number * record for number in range(13)]
    for cut in cuts:
        path.write_bytes(content[:cut])
        good, wrong = found_in(path)
        assert good == names[: len(good)]
        if ending == ".tar":
            assert len(good) in (cut // record, (cut + 511) // record)
        # What is cut off of a compressed archive may be no more than its end mark's second half, and its checksum.
        if ending == ".tar" or good != names:
            assert len(wrong) == 1 and wrong[0].startswith(f"{path}: "), (cut, good, wrong)


def test_archives_with_damaged_headers(tmp_path: Path, png: bytes) -> None:
    """Zeroed, or with a byte changed: every member is there, or a failure is."""
    names = whole_archive(tmp_path / "a.tar", png)
    content = (tmp_path / "a.tar").read_bytes()
    record = 512 + (len(png) + 511) // 512 * 512
    random = np.random.default_rng(2)
    for number in range(12):
        path = tmp_path / "b.tar"
        path.write_bytes(content[: number * record] + bytes(512) + content[number * record + 512 :])
        good, wrong = found_in(path)
        assert good == names[:number] and len(wrong) == 1, (number, good, wrong)
        for _ in range(20):
            damaged = bytearray(content)
            damaged[number * record + int(random.integers(512))] ^= 1 << int(random.integers(8))
            path.write_bytes(damaged)
            good, wrong = found_in(path)
            assert good == names or wrong, number


def test_damaged_archives_never_end_in_another_error(tmp_path: Path, png: bytes) -> None:
    long = ["n" * 200 + f"{number}.png" for number in range(3)]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "a.tar", "w", format=form) as tar:
            for name in ["a.png", *long, "ü.png"]:
                entry = tarfile.TarInfo(name)
                entry.size = len(png)
                entry.mtime = 1.5
                tar.addfile(entry, io.BytesIO(png))
        content = (tmp_path / "a.tar").read_bytes()
        random = np.random.default_rng(3)
        for _ in range(300):
            damaged = bytearray(content)
            for place in random.integers(0, len(content), int(random.integers(1, 6))).tolist():
                block = place // 512 * 512
                damaged[place] = int(random.choice([0, 255, 48, 55, 57, 61, 10, int(random.integers(256))]))
                # The checksum is made right again, so that what is behind it is tried.
                header = damaged[block : block + 512]
                header[148:156] = b" " * 8
                if damaged[block + 257 : block + 262] == b"ustar":
                    damaged[block + 148 : block + 156] = b"%06o\0 " % sum(header)
            (tmp_path / "b.tar").write_bytes(damaged)
            found_in(tmp_path / "b.tar")


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    import gzip

    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 2**31
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(entry.tobuf(tarfile.GNU_FORMAT))
        for _ in range(8):
            file.write(bytes(2**20))
    good, wrong = found_in(path)
    assert not good and "a header of 2147483648 bytes" in wrong[0]


def test_archives_that_are_none(explainer: Explainer, place: Path, png: bytes) -> None:
    (place / "in" / "text.tar").write_text("hello")
    (place / "in" / "zero.tar").touch()
    archive(place / "in" / "empty.tar", [], png)
    archive(place / "in" / "texts.tar", ["a.txt"], png)
    os.mkfifo(place / "in" / "pipe.tar")
    (place / "in" / "squeezed.tar.gz").write_bytes(zlib.compress(b"hello"))
    paths = sorted((place / "in").iterdir())
    found = explain_and_check(explainer, [*paths, place / "in" / "none.tar"], place)
    assert [PurePath(line["path"]).name for line in found] == [*(path.name for path in paths), "none.tar"]
    assert all(line["status"] == "failed" for line in found)
