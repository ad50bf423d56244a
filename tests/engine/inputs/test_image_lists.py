"""Tests of `seewhy.inputs.image_lists`: lists of images as text and CSV, from files and standard input."""

from __future__ import annotations

import io
import os
import random
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seewhy import ImageError
from seewhy.inputs.image_lists import ListEntry, read_list
from support.files.file_damage import DAMAGES


def listed(path: Path, content: str | bytes, name: str = "list.txt") -> list[ListEntry]:
    file = path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return list(read_list(file))


def paths(path: Path, content: str | bytes, name: str = "list.txt") -> list[str]:
    return [entry.path for entry in listed(path, content, name)]


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a.jpg\nb.jpg\n", ["a.jpg", "b.jpg"]),
        ("a.jpg\nb.jpg", ["a.jpg", "b.jpg"]),
        ("a.jpg\r\nb.jpg\r\n", ["a.jpg", "b.jpg"]),
        ("\n\na.jpg\n\r\n\nb.jpg\n\n", ["a.jpg", "b.jpg"]),
        ("\ufeffa.jpg\n\ufeffb.jpg\n", ["a.jpg", "\ufeffb.jpg"]),
        ("with space.jpg\n a.jpg \n", ["with space.jpg", " a.jpg "]),
        ('a,b.jpg\n"quoted".jpg\n# no comment\n', ["a,b.jpg", '"quoted".jpg', "# no comment"]),
        ("path,target\na.jpg,3\n", ["path,target", "a.jpg,3"]),  # the name decides whether it is CSV
        ("ü/犬.jpg\n\u2028.jpg\n", ["ü/犬.jpg", "\u2028.jpg"]),
        ("a\tb.jpg\n\x1b[2J.jpg\n", ["a\tb.jpg", "\x1b[2J.jpg"]),
        ("../a.jpg\n/b.jpg\n.\n", ["../a.jpg", "/b.jpg", "."]),
    ],
)
def test_text(tmp_path: Path, content: str, expected: list[str]) -> None:
    assert listed(tmp_path, content) == [ListEntry(path) for path in expected]


def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    [found] = paths(tmp_path, b"caf\xe9.jpg\n")
    assert os.fsencode(found) == b"caf\xe9.jpg"
    [found] = paths(tmp_path, b"path,id\ncaf\xe9.jpg,x\n", "list.csv")
    assert os.fsencode(found) == b"caf\xe9.jpg"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("path\na.jpg\n", [("a.jpg", None, None)]),
        ("path,target,id\na.jpg,3,one\nb.jpg,tabby,\n", [("a.jpg", "3", "one"), ("b.jpg", "tabby", None)]),
        ("ID, Target ,PATH\none,3,a.jpg\n", [("a.jpg", "3", "one")]),
        ("\ufeffpath,id\r\na.jpg,1\r\n\r\n", [("a.jpg", None, "1")]),
        ('path,target\n"a,b.jpg","tabby, tabby cat"\n', [("a,b.jpg", "tabby, tabby cat", None)]),
        ('path,id\n"say ""cheese"".jpg",1\n', [('say "cheese".jpg', None, "1")]),
        ('path,id\n"two\nlines.jpg",1\nb.jpg,2\n', [("two\nlines.jpg", None, "1"), ("b.jpg", None, "2")]),
        ("path,note,target\na.jpg,nice,-1\n", [("a.jpg", "-1", None)]),
        ("path,target\na.jpg\nb.jpg,\n", [("a.jpg", None, None), ("b.jpg", None, None)]),
        ("\npath\na.jpg\n", "the first line must name the columns"),
        ("file,target\na.jpg,3\n", "the first line must name the columns: path, and optionally"),
        ("path,path\na.jpg,b.jpg\n", "the first line must name the columns"),
        ("path,target,target\na.jpg,1,2\n", "the first line must name the columns"),
        ("path,target\na.jpg,3\nb,c.jpg,3\n", "line 3 has 3 values and the header has 2 columns; quote commas"),
        ("path,target\n,3\n", "line 2 has 2 values and no path"),
        ("path,id\n\n\na.jpg,1\n,2\n", "line 5 has 2 values and no path"),
        ('path,id\na.jpg,1\n"b.jpg,2\n', "line 3 is not CSV: unexpected end of data"),
        ('path,id\n"a"b.jpg,1\n', "line 2 is not CSV: "),
        ("path,target\n", "the list holds no images"),
        ("", "the list holds no images"),
    ],
)
def test_csv(tmp_path: Path, content: str, expected: list[tuple[str, str | None, str | None]] | str) -> None:
    if isinstance(expected, str):
        with pytest.raises(ImageError, match=rf"list\.CSV: {re.escape(expected)}") as raised:
            listed(tmp_path, content, "list.CSV")
        assert str(raised.value).isprintable()
    else:
        found = [(entry.path, entry.target, entry.id) for entry in listed(tmp_path, content, "list.CSV")]
        assert found == expected


@pytest.mark.parametrize("column", ["target", "id"])
def test_targets_and_ids_are_text(tmp_path: Path, column: str) -> None:
    with pytest.raises(ImageError, match=rf"list\.csv: the {column} in line 3 is not UTF-8"):
        listed(tmp_path, f"path,{column}\na.jpg,ok\nb.jpg,".encode() + b"caf\xe9\n", "list.csv")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a.jpg\nb\0.jpg\n", "line 2 is not text"),
        ("a.jpg\nb.jpg\n".encode("utf-16"), "line 1 is not text"),
        (b"x" * 70_000, "line 1 is not text"),
        (b"a.jpg\n" + b"x" * 65_536 + b"\n", "line 2 is not text"),
        (b"a.jpg\n" + b"x" * 8193, "image 2: the path has 8193 bytes; the maximum is 8192"),
        (b"", "the list holds no images"),
        (b"\n\r\n\n", "the list holds no images"),
    ],
)
@pytest.mark.parametrize("name", ["list.txt", "list"])
def test_not_a_list(tmp_path: Path, content: bytes, words: str, name: str) -> None:
    with pytest.raises(ImageError, match=rf"{name}: {words}"):
        listed(tmp_path, content, name)


def test_lines_before_a_bad_one_are_read_first(tmp_path: Path) -> None:
    """A list is read line by line, so that it may be of any length."""
    path = tmp_path / "list.txt"
    path.write_bytes(b"a.jpg\n" * 10 + b"\0\n")
    entries = read_list(path)
    assert [next(entries).path for _ in range(10)] == ["a.jpg"] * 10
    with pytest.raises(ImageError, match="line 11"):
        next(entries)


def test_lists_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"none\.txt: cannot be read: No such file"):
        list(read_list(tmp_path / "none.txt"))
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        list(read_list(tmp_path))
    with pytest.raises(ImageError, match=r"a\\x00b: cannot be read: embedded null byte"):
        list(read_list("a\0b"))


@pytest.mark.parametrize("device", ["zero", "urandom", "null"])
@pytest.mark.parametrize("name", ["", "link.csv"])
def test_devices_are_refused(tmp_path: Path, device: str, name: str) -> None:
    path = Path("/dev", device)
    if name:
        (tmp_path / name).symlink_to(path)
        path = tmp_path / name
    with pytest.raises(ImageError) as raised:
        next(read_list(path))
    assert str(raised.value) == f"{path}: is a device, not a list; give a file, a pipe, or - for standard input"


def test_an_empty_name_is_refused() -> None:
    with pytest.raises(ImageError, match="the name of a list is empty"):
        list(read_list(""))


@pytest.mark.parametrize("name", ["list", "list.csv"])
def test_a_list_may_be_a_pipe(tmp_path: Path, name: str) -> None:
    """The shell's process substitution makes such pipes."""
    os.mkfifo(tmp_path / name)
    program = "import sys; print('path', 'a.jpg', sep='\\n', file=open(sys.argv[1], 'w'))"
    with subprocess.Popen([sys.executable, "-c", program, tmp_path / name]):
        found = list(read_list(tmp_path / name))
    assert found == ([ListEntry("a.jpg")] if name == "list.csv" else [ListEntry("path"), ListEntry("a.jpg")])


@given(st.lists(st.text(st.characters(exclude_characters="\0\r\n", codec="utf-8"), min_size=1), min_size=1))
def test_any_names_in_text(tmp_path_factory: pytest.TempPathFactory, names: list[str]) -> None:
    path = tmp_path_factory.mktemp("lists") / "list"
    path.write_bytes("\n".join(names).encode())
    expected = [names[0].removeprefix("\ufeff"), *names[1:]]
    found = [entry.path for entry in read_list(path)] if any(expected) else expected
    assert found == [name for name in expected if name]


@pytest.mark.parametrize("name", ["list.txt", "list.csv"])
def test_damaged_lists(tmp_path: Path, name: str) -> None:
    """Any content is either read as a list, or gives an ImageError of one line."""
    whole = b"".join(
        b'path,target,id\n"photos/%d.jpg",%d,"image, %d"\n'[0 if i == 0 else 15 :] % ((i,) * 3) for i in range(40)
    )
    chance = random.Random(0)
    refused = 0
    for _ in range(500):
        content = DAMAGES[chance.choice(sorted(DAMAGES))](whole, chance)
        try:
            for entry in listed(tmp_path, content, name):
                assert entry.path and "\0" not in entry.path
                for text in (entry.target, entry.id):
                    assert text is None or text.encode()
        except ImageError as error:
            refused += 1
            assert str(error).isprintable() and str(tmp_path / name) in str(error)
    assert refused > 20


# Standard input.


class Terminal(io.StringIO):
    """A replacement of standard input, as tests and notebooks use it."""


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("a.jpg\nb.jpg\n", [ListEntry("a.jpg"), ListEntry("b.jpg")]),
        ("path,target\na.jpg,3\n", [ListEntry("a.jpg", "3")]),
        ("Id,Path\n1,a.jpg\n", [ListEntry("a.jpg", None, "1")]),
        ("path\nb.jpg\n", [ListEntry("path"), ListEntry("b.jpg")]),  # a single column may as well be a file name
        ("a,b.jpg\n", [ListEntry("a,b.jpg")]),
    ],
)
def test_standard_input(monkeypatch: pytest.MonkeyPatch, content: str, expected: list[ListEntry]) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal(content))
    assert list(read_list("-")) == expected
    assert piped(content.encode()).splitlines() == [repr(entry) for entry in expected]


def piped(content: bytes | None) -> str:
    """Read standard input in another process, and return its output. None closes standard input."""
    program = (
        "from seewhy import SeewhyError; from seewhy.inputs.image_lists import read_list\n"
        "try: print(*map(repr, read_list('-')), sep='\\n')\nexcept SeewhyError as error: print('error:', error)\n"
    )
    command = [sys.executable, "-c", program]
    if content is None:
        command = ["sh", "-c", 'exec "$0" "$@" <&-', *command]
    return subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout.decode()


def test_standard_input_of_bytes() -> None:
    assert piped(b"\xef\xbb\xbfcaf\xe9.jpg\r\n\r\nb.jpg").splitlines() == [
        repr(ListEntry("caf\udce9.jpg")),
        repr(ListEntry("b.jpg")),
    ]
    assert piped(b"") == "error: standard input: the list holds no images\n"
    assert piped(b"\x89PNG\r\n\x1a\n\0\0") == (
        "error: standard input: line 3 is not text; a list has one path per line\n"
    )
    assert piped(None) == "error: standard input is closed; give a list as a file, or pipe one in\n"


def test_standard_input_that_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(ImageError, match="standard input is closed"):
        list(read_list("-"))
