"""Tests of tar archives that are truncated, damaged or not archives at all."""

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


def write_archive(path: Path, png: bytes) -> list[str]:
    names = [f"{number:02}.png" for number in range(12)]
    archive(path, names, png)
    return names


def read_members(path: Path) -> tuple[list[str], list[str]]:
    """Return the names of the members that were read, and the error messages."""
    found = list(members(str(path)))
    assert all(each.error is None or each.content is None for each in found)
    return [str(each.name) for each in found if each.error is None], [str(each.error) for each in found if each.error]


@pytest.mark.parametrize("ending", [".tar", ".tar.gz", ".tar.bz2", ".tar.xz"])
def test_truncated_archives(ending: str, tmp_path: Path, png: bytes) -> None:
    """Complete members are read, and one failure reports the missing rest, wherever the archive ends."""
    names = write_archive(tmp_path / "a.tar", png)
    content = (tmp_path / "a.tar").read_bytes()
    if ending != ".tar":
        import bz2
        import gzip
        import lzma

        content = {".tar.gz": gzip, ".tar.bz2": bz2, ".tar.xz": lzma}[ending].compress(content)
    path = tmp_path / f"cut{ending}"
    path.write_bytes(content)
    assert read_members(path) == (names, [])
    record = 512 + (len(png) + 511) // 512 * 512
    random = np.random.default_rng(1)
    lengths = [*random.integers(0, len(content), 60).tolist(), 0, 1, 511, 512, 513]
    if ending == ".tar":
        # After the last member comes only the end-of-archive marker, whose first block is enough.
        lengths = [length for length in lengths if length < 12 * record + 512] + [
            number * record for number in range(13)
        ]
    for length in lengths:
        path.write_bytes(content[:length])
        good, errors = read_members(path)
        assert good == names[: len(good)]
        if ending == ".tar":
            assert len(good) in (length // record, (length + 511) // record)
        # A compressed archive may lose only the second half of its end marker and its checksum.
        if ending == ".tar" or good != names:
            assert len(errors) == 1 and errors[0].startswith(f"{path}: "), (length, good, errors)


def test_archives_with_damaged_headers(tmp_path: Path, png: bytes) -> None:
    """With a zeroed or changed header, either all members are read or a failure is reported."""
    names = write_archive(tmp_path / "a.tar", png)
    content = (tmp_path / "a.tar").read_bytes()
    record = 512 + (len(png) + 511) // 512 * 512
    random = np.random.default_rng(2)
    for number in range(12):
        path = tmp_path / "b.tar"
        path.write_bytes(content[: number * record] + bytes(512) + content[number * record + 512 :])
        good, errors = read_members(path)
        assert good == names[:number] and len(errors) == 1, (number, good, errors)
        for _ in range(20):
            damaged = bytearray(content)
            damaged[number * record + int(random.integers(512))] ^= 1 << int(random.integers(8))
            path.write_bytes(damaged)
            good, errors = read_members(path)
            assert good == names or errors, number


def test_damaged_archives_raise_no_other_exception(tmp_path: Path, png: bytes) -> None:
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
            for position in random.integers(0, len(content), int(random.integers(1, 6))).tolist():
                block = position // 512 * 512
                damaged[position] = int(random.choice([0, 255, 48, 55, 57, 61, 10, int(random.integers(256))]))
                # Correct the checksum, so that the code after the checksum test runs.
                header = damaged[block : block + 512]
                header[148:156] = b" " * 8
                if damaged[block + 257 : block + 262] == b"ustar":
                    damaged[block + 148 : block + 156] = b"%06o\0 " % sum(header)
            (tmp_path / "b.tar").write_bytes(damaged)
            read_members(tmp_path / "b.tar")


def test_a_header_of_gigabytes_is_not_read(tmp_path: Path) -> None:
    import gzip

    entry = tarfile.TarInfo("././@LongLink")
    entry.type, entry.size = tarfile.GNUTYPE_LONGNAME, 2**31
    path = tmp_path / "bomb.tar.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(entry.tobuf(tarfile.GNU_FORMAT))
        for _ in range(8):
            file.write(bytes(2**20))
    good, errors = read_members(path)
    assert not good and "a header of 2147483648 bytes" in errors[0]


def test_files_that_are_not_archives(explainer: Explainer, sandbox: Path, png: bytes) -> None:
    (sandbox / "in" / "text.tar").write_text("hello")
    (sandbox / "in" / "zero.tar").touch()
    archive(sandbox / "in" / "empty.tar", [], png)
    archive(sandbox / "in" / "texts.tar", ["a.txt"], png)
    os.mkfifo(sandbox / "in" / "pipe.tar")
    (sandbox / "in" / "squeezed.tar.gz").write_bytes(zlib.compress(b"hello"))
    paths = sorted((sandbox / "in").iterdir())
    found = explain_and_check(explainer, [*paths, sandbox / "in" / "none.tar"], sandbox)
    assert [PurePath(line["path"]).name for line in found] == [*(path.name for path in paths), "none.tar"]
    assert all(line["status"] == "failed" for line in found)
