"""Tests of `seewhy.inputs.tar_archives`: images are read in order without unpacking, and damage is always reported."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import random
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from seewhy.inputs import tar_archives
from seewhy.inputs.tar_archives import Member, is_tar, members, stem
from support import forked_cases
from support.files.file_damage import DAMAGES

BLOCK = 512
PACK: dict[str, Callable[[bytes], bytes]] = {
    ".tar": bytes,
    ".tar.gz": gzip.compress,
    ".tar.bz2": bz2.compress,
    ".tar.xz": lzma.compress,
}


def archive(*files: tuple[str, bytes] | tarfile.TarInfo, form: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a tar archive of regular files, given as (name, content), and of other members."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as tar:
        for file in files:
            if isinstance(file, tarfile.TarInfo):
                tar.addfile(file)
            else:
                entry = tarfile.TarInfo(file[0])
                entry.size = len(file[1])
                tar.addfile(entry, io.BytesIO(file[1]))
    return buffer.getvalue()


def other(name: str, kind: bytes, link: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    return entry


def read(folder: Path, content: bytes, name: str = "x.tar") -> list[Member]:
    (folder / name).write_bytes(content)
    return list(members(str(folder / name)))


def held(found: list[Member]) -> list[tuple[str | None, bytes | None]]:
    assert all(member.error is None for member in found), found
    return [(member.name, member.content) for member in found]


def damaged(found: list[Member], folder: Path) -> str:
    """Return the error of an archive, which is the last and only one."""
    assert found[-1].name is None and found[-1].content is None
    assert all(member.name is not None for member in found[:-1])
    text = str(found[-1].error)
    assert text.startswith(str(folder)) and text.isprintable() and len(text) < 600
    return text


IMAGES = [("b.jpg", b"B" * 700), ("a/c.PNG", b"C"), ("a/b.webp", b""), ("ü/犬 \n.gif", b"g" * 2000)]


@pytest.mark.parametrize("ending", PACK)
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_images_in_the_archives_order(tmp_path: Path, ending: str, form: int) -> None:
    content = archive(("a.json", b"{}"), *IMAGES, ("notes.txt", b"hello"), form=form)
    assert held(read(tmp_path, PACK[ending](content), f"x{ending}")) == IMAGES
    # The content decides about the compression, not the name.
    assert held(read(tmp_path, PACK[ending](content), "y.tar")) == IMAGES


def test_names_of_archives() -> None:
    assert all(is_tar(f"dir/x{ending}") for ending in (*PACK, ".TAR", ".tgz", ".Tar.Gz", ".tbz2", ".txz"))
    assert not any(is_tar(name) for name in ("x.jpg", "x.gz", "tar", "x.tar.jpg", "x.tar/a.jpg", ""))
    assert [stem(f"dir/shard-00{ending}") for ending in (".tar", ".tar.gz", ".TGZ", "")] == ["shard-00"] * 4
    assert (
        stem("a.b.tar.xz") == "a.b" and stem(".tar") == ".tar" and stem("d/..tar") == "..tar" and stem("...tar") == ".."
    )


def test_a_name_twice(tmp_path: Path) -> None:
    files = [("a.jpg", b"1"), ("a.jpg", b"22"), ("./a.jpg", b"3")]
    assert held(read(tmp_path, archive(*files))) == files


def test_names_are_not_changed(tmp_path: Path) -> None:
    files = [
        (name, b"x")
        for name in ("../../up.jpg", "/etc/passwd.jpg", "a/./b/../c.jpg", "\x1b[2J.jpg", "x" * 3000 + ".jpg")
    ]
    assert held(read(tmp_path, archive(*files))) == files
    assert held(read(tmp_path, archive(("caf\udce9.jpg", b"x"), form=tarfile.GNU_FORMAT))) == [("caf\udce9.jpg", b"x")]
    assert list(tmp_path.iterdir()) == [tmp_path / "x.tar"]


def test_members_that_are_not_files_are_failures(tmp_path: Path) -> None:
    """Links and devices are reported rather than skipped, so that no image is missed. Folders are skipped."""
    kinds = {
        tarfile.SYMTYPE: "/etc/passwd",
        tarfile.LNKTYPE: "b.jpg",
        tarfile.CHRTYPE: "",
        tarfile.BLKTYPE: "",
        tarfile.FIFOTYPE: "",
        tarfile.DIRTYPE: "",
        b"Q": "",
    }
    others = [other(f"{i}.jpg", kind, link) for i, (kind, link) in enumerate(kinds.items()) if kind != b"Q"]
    found = read(tmp_path, archive(IMAGES[0], *others, IMAGES[1]))
    assert held([found[0], found[-1]]) == IMAGES[:2]
    assert [member.name for member in found[1:-1]] == [f"{number}.jpg" for number in range(5)]
    for member in found[1:-1]:
        assert member.content is None and "is a link or a device, not a file; add the image itself" in str(member.error)
    contiguous = archive(("a.jpg", b"x"))
    assert held(read(tmp_path, contiguous[:156] + b"0" + contiguous[157:])) == [("a.jpg", b"x")]


def test_members_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tar_archives, "MAX_MEMBER_BYTES", 1000)
    found = read(
        tmp_path, archive(("a.jpg", bytes(1000)), ("b.jpg", bytes(1001)), ("b.txt", bytes(5000)), ("c.jpg", b"c"))
    )
    assert [(member.name, member.content) for member in found] == [
        ("a.jpg", bytes(1000)),
        ("b.jpg", None),
        ("c.jpg", b"c"),
    ]
    assert str(found[1].error) == f"{tmp_path}/x.tar#b.jpg: has 1001 bytes; the maximum is 1000"


def test_names_that_are_too_long(tmp_path: Path) -> None:
    names = [f"{letter * 9000}.jpg" for letter in "ab"]
    found = read(tmp_path, archive(*((name, b"x") for name in names), ("c.jpg", b"c")))
    assert held(found[2:]) == [("c.jpg", b"c")]
    assert len({member.name for member in found}) == 3
    for member in found[:2]:
        assert member.content is None and len(member.name or "") < 200
        assert "the name has 9004 bytes; the maximum is 8192" in str(member.error)


@pytest.mark.parametrize("ending", PACK)
def test_empty_archives(tmp_path: Path, ending: str) -> None:
    [found] = read(tmp_path, PACK[ending](archive()), f"x{ending}")
    assert found.name is None and str(found.error).endswith(f"x{ending}: the archive holds no images")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty file"),
        (b"not a tar archive", "truncated header"),
        (b"\x89PNG\r\n\x1a\n" * 200, "invalid header|bad checksum"),
        (bytes(100), "truncated header"),
        (b"\x1f\x8b" + bytes(100), "the archive is damaged"),
        (b"BZh9" + bytes(100), "the archive is damaged"),
        (b"\xfd7zXZ\0" + bytes(100), "the archive is damaged"),
    ],
)
def test_not_an_archive(tmp_path: Path, content: bytes, words: str) -> None:
    found = read(tmp_path, content)
    text = damaged(found, tmp_path)
    assert len(found) == 1 and "the archive is damaged after its start: " in text
    assert any(word in text for word in words.split("|"))


def test_archives_that_cannot_be_read(tmp_path: Path) -> None:
    [found] = members(str(tmp_path / "none.tar"))
    assert str(found.error) == f"{tmp_path}/none.tar: cannot be read: No such file or directory"
    [found] = members(str(tmp_path))
    assert str(found.error) == f"{tmp_path}: cannot be read: it is a folder, not a file"
    os.mkfifo(tmp_path / "pipe.tar")
    [found] = members(str(tmp_path / "pipe.tar"))
    assert str(found.error) == f"{tmp_path}/pipe.tar: cannot be read: it is a pipe, not a regular file"
    [found] = members("/dev/zero")
    assert str(found.error) == "/dev/zero: cannot be read: it is a device, not a regular file"


def test_an_archive_that_becomes_a_pipe_does_not_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe may replace the archive between its check and its opening."""
    path = tmp_path / "x.tar"
    path.write_bytes(archive(*IMAGES))
    real = os.stat

    def replace(*arguments: Any, **options: Any) -> os.stat_result:
        found = real(*arguments, **options)
        if arguments[0] == str(path):
            monkeypatch.undo()
            path.unlink()
            os.mkfifo(path)
        return found

    monkeypatch.setattr(os, "stat", replace)
    [found] = members(str(path))
    assert str(found.error) == f"{path}: cannot be read: it is a pipe, not a regular file"


@pytest.mark.parametrize("ending", PACK)
def test_no_descriptor_is_left_open(tmp_path: Path, ending: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    whole = PACK[ending](archive(*IMAGES))
    for content in (whole, whole[: len(whole) // 2], b"", b"\x1f\x8b"):
        read(tmp_path, content, f"x{ending}")
        assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("ending", PACK)
def test_truncated_anywhere(tmp_path: Path, ending: str) -> None:
    """A tar that ends between two members could pass for a complete one."""
    whole = PACK[ending](archive(*IMAGES))
    cuts = {*range(0, len(whole), 97), *range(0, len(whole), BLOCK), len(whole) - 1}
    for cut in sorted(cuts):
        found = read(tmp_path, whole[:cut], f"x{ending}")
        if ending == ".tar" and cut >= end_of(whole) + BLOCK:  # one of the two empty blocks at the end is enough
            assert held(found) == IMAGES
            continue
        assert "the members after it are lost" in damaged(found, tmp_path), cut
        assert held(found[:-1]) == IMAGES[: len(found) - 1]


def end_of(content: bytes) -> int:
    """Return where the last member ends. Its content does not end in zeros."""
    return -(-len(content.rstrip(b"\0")) // BLOCK) * BLOCK


def test_too_many_open_files_are_not_the_archives_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.tar").write_bytes(archive(("a.png", b"x")))

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", full)
    with pytest.raises(OSError, match="Too many open files"):
        list(members(str(tmp_path / "a.tar")))


def test_a_damaged_header(tmp_path: Path) -> None:
    content = bytearray(archive(*(IMAGES[:2] * 2)))
    second = 2 * BLOCK + BLOCK  # after a header and two blocks
    assert content[second : second + 5] == b"a/c.P"
    content[second + 124] ^= 1
    found = read(tmp_path, bytes(content))
    assert held(found[:-1]) == IMAGES[:1]
    assert "damaged after b.jpg: the end mark is missing (bad checksum); the members" in damaged(found, tmp_path)


def test_two_archives_in_one_file(tmp_path: Path) -> None:
    found = read(tmp_path, archive(*IMAGES[:2]) + archive(*IMAGES[2:]))
    assert held(found[:-1]) == IMAGES[:2]
    assert "it has data after its end mark" in damaged(found, tmp_path)


def test_a_wrong_checksum_of_gzip(tmp_path: Path) -> None:
    """Only gzip's checksum, at the end of the file, reveals that a pixel has changed."""
    pixels = random.Random(0).randbytes(5000)
    content = bytearray(gzip.compress(archive(("a.jpg", pixels)), compresslevel=0))
    content[bytes(content).index(pixels[2000:2050])] ^= 1
    found = read(tmp_path, bytes(content), "x.tgz")
    assert found[0].name == "a.jpg" and found[0].content != pixels
    assert "CRC check failed" in damaged(found, tmp_path)


def long_headers(count: int, size: int = 100) -> bytes:
    """Return consecutive headers of long names."""
    header = other("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = size
    return (header.tobuf(tarfile.GNU_FORMAT) + b"x" * size + bytes(-size % BLOCK)) * count


def test_too_many_headers(tmp_path: Path) -> None:
    assert "recursion" in damaged(read(tmp_path, long_headers(5000) + archive(IMAGES[0])), tmp_path)


def bomb(case: dict[str, str]) -> str:
    [found] = members(case["path"])
    return str(found.error)


def test_headers_of_gigabytes(tmp_path: Path) -> None:
    header = other("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    header.size = 1 << 30
    with gzip.open(tmp_path / "x.tgz", "wb", compresslevel=1) as file:
        file.write(header.tobuf(tarfile.GNU_FORMAT))
        for _ in range(300):
            file.write(bytes(1 << 20))
    case = {"path": str(tmp_path / "x.tgz")}
    [ended] = forked_cases.run("engine.inputs.test_tar_archives:bomb", [case], memory=200 << 20)
    assert ended.succeeded and "a header of 1073741824 bytes" in ended.result, ended
    assert ended.peak < 50 << 20


@pytest.mark.parametrize("ending", PACK)
def test_damaged_archives(tmp_path: Path, ending: str) -> None:
    """Damage is reported, unless it lies inside a member of an uncompressed tar."""
    whole = PACK[ending](archive(*IMAGES, form=tarfile.GNU_FORMAT))
    chance = random.Random(0)
    reported = 0
    for _ in range(250):
        content = DAMAGES[chance.choice(sorted(DAMAGES))](whole, chance)
        found = read(tmp_path, content, f"x{ending}")
        if found and found[-1].error is not None:
            damaged(found, tmp_path)
            reported += 1
        elif ending != ".tar":
            assert held(found) == IMAGES
    assert reported > (60 if ending == ".tar" else 150)
