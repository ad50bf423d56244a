"""Tests of `seewhy.storage.result_names`: names stay in the folder, and are printable, short and unique everywhere."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seewhy.methods.registry import METHODS
from seewhy.storage.format_names import FIGURE_FORMATS
from seewhy.storage.manifest import NAME as MANIFEST
from seewhy.storage.provenance import NAME as RUN
from seewhy.storage.result_names import CLASS, ResultNames, class_suffix, unique_names

# Names of methods have at most 40 characters, and labels at most 40 bytes.
LONGEST_SUFFIX = len(f".{'m' * 40}.{class_suffix(99999, 'x' * 99, 0)}.webp")

pieces = st.one_of(
    st.text(st.sampled_from("ab.A~2\n\\\x1b é\udcff%:e\u0301"), min_size=1, max_size=6),
    st.sampled_from(
        ["a.", "a ", "a. .", "...", "COM\u00b9", "conin$ .x", "a?b", "a%3Fb", "\u1e9b\u0323", "\u017f\u0323\u0307"]
    ),
    st.tuples(st.sampled_from(["", "a", "con", "%3A"]), st.sampled_from([" ", ".", ":"]), st.integers(100, 200)).map(
        lambda piece: piece[0] + piece[1] * piece[2] + "x.png"
    ),
    st.sampled_from(["..", ".", "CON", "nul.txt", ".seewhy-unfinished", "manifest.jsonl", "a.gradcam.png", "ß", "ss"]),
    st.text(min_size=1, max_size=4),
    st.integers(100, 300).map(lambda count: "é" * count),
)
paths = st.lists(pieces, min_size=1, max_size=6).flatmap(
    lambda parts: st.sampled_from(["/".join(parts), "/" + "/".join(parts)])
)


DEVICES = {"CON", "PRN", "AUX", "NUL", "CONIN$", "CONOUT$"} | {
    f"{p}{n}" for p in ("COM", "LPT") for n in "123456789¹²³"
}


def on_linux(path: str) -> str:
    """Return the file that Linux opens for this path."""
    return path


def on_macos(path: str) -> str:
    """Return the file that macOS opens, which ignores case and Unicode form."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", path).casefold())


def on_windows(path: str) -> str:
    """Return the file that Windows opens, which ignores case, and dots and spaces at the end of a component."""
    parts = [part.rstrip(". ") for part in path.split("/")]
    for part in parts:
        assert part and not set(part) & set('<>:"|?*\\') and min(part) >= " ", path
        assert part.partition(".")[0].rstrip(" ").upper() not in DEVICES, path
    assert path.split("/")[:-1] == parts[:-1], "a folder that cannot be removed with Windows' own tools"
    # Like Windows' table of capital letters: one character each, and none for the dotless i.
    return "/".join("".join(c.upper() if len(c.upper()) == 1 and c != "ı" else c for c in part) for part in parts)


def check(names: list[PurePath]) -> None:
    for system in (on_linux, on_macos, on_windows):
        files = [f"{name}.{suffix}" for name in names for suffix in ("gradcam.png", "gradcam.npz", "sheet.png")]
        folders = {f"{parent}/x" for name in names for parent in name.parents if parent.name}
        opened = {system(file) for file in files}
        assert len(opened) == len(files), system.__name__
        assert not opened & {system(folder).rpartition("/")[0] for folder in folders}, system.__name__
    folders = {str(parent).casefold() for name in names for parent in name.parents}
    for name in names:
        assert all(len(part.encode()) <= 160 for part in name.parent.parts)
        assert str(name).isprintable() and not name.is_absolute() and ".." not in name.parts and name.name
        assert not any("\\" in part or part in (".", "") for part in name.parts)
        assert all(len(part.encode()) <= 255 for part in name.parent.parts)
        assert len(name.name.encode()) + LONGEST_SUFFIX <= 255
        assert len(str(name).encode()) < 2000
        # No file that is written for a name is at the path of a folder.
        for method in METHODS:
            for ending in (*FIGURE_FORMATS, "npz"):
                assert str(name.with_name(f"{name.name}.{method}.{ending}")).casefold() not in folders
    assert not folders & {MANIFEST, RUN} and not any(folder.startswith(".seewhy") for folder in folders)


@given(st.lists(paths, min_size=1, max_size=8))
def test_expected_names(inputs: list[str]) -> None:
    check(unique_names([PurePath(name) for name in inputs]))


@given(st.lists(paths, max_size=5), st.lists(paths, max_size=8), st.booleans())
def test_names_of_unannounced_inputs(expected: list[str], others: list[str], first: bool) -> None:
    """Members of archives come between other files, or after them."""
    names = ResultNames()
    names.expect(PurePath(name) for name in expected)
    orders = [expected, others] if first else [others, expected]
    check([names.take(PurePath(name)) for order in orders for name in order])


@given(st.lists(paths, min_size=1, max_size=8))
@settings(max_examples=40)
def test_names_can_be_created_and_stay_below(tmp_path_factory: pytest.TempPathFactory, inputs: list[str]) -> None:
    root = tmp_path_factory.mktemp("names")
    for name in unique_names([PurePath(name) for name in inputs]):
        path = root / name.with_name(f"{name.name}.gradcam.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb"):
            pass
        assert Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def named(*inputs: str) -> list[str]:
    return [name.as_posix() for name in unique_names([PurePath(name) for name in inputs])]


def test_names_do_not_depend_on_later_inputs() -> None:
    """They depend only on the announced stems."""
    assert named("x/a.jpg", "x/b.jpg", "y/a.jpg") == ["x/a", "x/b", "y/a"]
    assert named("a.jpg", "b.jpg", "a.png") == ["a.jpg", "b", "a.png"]


def test_folders_with_names_of_result_files() -> None:
    assert named("a.jpg", "a.gradcam.png/b.jpg") == ["a", "a%2Egradcam.png/b"]
    assert named("manifest.jsonl/x.jpg", "run.JSON/x.jpg") == ["%6Danifest.jsonl/x", "%72un.JSON/x"]
    assert named(".seewhy-unfinished/x.jpg", ".seewhy.lock/x.jpg") == ["%2Eseewhy-unfinished/x", "%2Eseewhy.lock/x"]
    assert named("a.x.jpg/b.jpg", "a%2Ex.jpg/b.jpg") == ["a%2Ex.jpg/b.jpg", "a%2Ex.jpg/b.jpg~2"]


def test_absolute_paths_and_paths_with_parents() -> None:
    assert named("/etc/x.jpg", "../../etc/x.jpg", "a/../x.jpg") == ["etc/x", "%2E%2E/%2E%2E/etc/x", "a/%2E%2E/x"]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["\u00e9.jpg", "e\u0301.jpg"], ["\u00e9.jpg", "e\u0301.jpg~2"]),
        (["\u00c9/x.jpg", "e\u0301/x.jpg"], ["\u00c9/x.jpg", "e\u0301/x.jpg~2"]),
        # These are equal in NFD, but not if case is folded first, because folding turns U+0345 into a letter.
        (["\u03b1\u0345\u0301.jpg", "\u03b1\u0301\u0345.png"], ["\u03b1\u0345\u0301.jpg", "\u03b1\u0301\u0345.png"]),
        (["\u1e9b\u0323.jpg", "\u1e69.jpg"], ["\u1e9b\u0323.jpg", "\u1e69.jpg~2"]),
        (["\u03b1\u0345.jpg", "\u0391\u0399.jpg"], ["\u03b1\u0345.jpg", "\u0391\u0399.jpg~2"]),
        (["STRASSE.jpg", "straße.png"], ["STRASSE.jpg", "straße.png"]),
        (["a?.jpg", "a%3F.jpg"], ["a%3F.jpg", "a%3F.jpg~2"]),
        (["a:b/x.jpg", "a%3Ab/x.png", "a%3ab/x.gif"], ["a%3Ab/x.jpg", "a%3Ab/x.png", "a%3ab/x.gif"]),
        (["a/x.jpg", "a./x.jpg", "a /x.jpg", "a. ./x.jpg"], ["a/x", "a%2E/x", "a%20/x", "a. %2E/x"]),
        (["a.gradcam.png /x.jpg", "a.jpg"], ["a.gradcam.png%20/x", "a"]),
        (["a..jpg", "a .jpg", "a.jpg"], ["a.", "a ", "a"]),
        (['<>:"|?*\\\x7f.jpg'], ["%3C%3E%3A%22%7C%3F%2A%5C%7F"]),
        (["COM\u00b9.x/lpt\u00b3.jpg", "conin$/CONOUT$ .jpg"], ["%43OM\u00b9.x/%6Cpt\u00b3", "%63onin$/%43ONOUT$ "]),
        (["COM10/console.jpg", "a.con/nul1.jpg", "$HOME/~.jpg"], ["COM10/console", "a.con/nul1", "$HOME/~"]),
        (["~$a+b=c,d;e'f`g@h#i%j^k&l(m)[n]{o}!.jpg"], ["~$a+b=c,d;e'f`g@h#i%j^k&l(m)[n]{o}!"]),
    ],
)
def test_names_on_other_systems(inputs: list[str], expected: list[str]) -> None:
    assert named(*inputs) == expected
    check(unique_names([PurePath(name) for name in inputs]))


def test_cut_names_are_made_safe_again() -> None:
    [device] = unique_names([PurePath(f"con{' ' * 300}x.jpg")])
    assert device.name == "%63on" + " " * 155
    folders = [
        "." * 300,
        f"a{'.' * 300}b",
        f"a{' ' * 300}b",
        f"{'a' * 148}.gradcam.pngx",
        f"{'?' * 80}",
        "x" * 159 + "/",
    ]
    names = unique_names([PurePath(folder, f"{number}.jpg") for number, folder in enumerate(folders)])
    assert all(len(part) <= 160 for name in names for part in name.parts)
    check(names)


def test_names_of_existing_results_are_not_used_again() -> None:
    """Existing results may have names that are no longer planned."""
    names = ResultNames()
    names.reserve(PurePath(name) for name in ["a:b", "\u00e9", "folder./x", "a. ", "..", "."])
    inputs = [PurePath(name) for name in ["a:b.jpg", "E\u0301.jpg", "FOLDER/x.jpg", "a.jpg"]]
    names.expect(inputs)
    assert [str(names.take(path)) for path in inputs] == ["a%3Ab", "E\u0301.jpg", "FOLDER/x.jpg", "a"]


def test_inputs_without_a_name() -> None:
    assert named("", ".", "/") == ["unnamed", "unnamed~2", "unnamed~3"]


def test_long_names() -> None:
    long = "x" * 300
    one, two = unique_names([PurePath(f"{long}1.jpg"), PurePath(f"{long}2.jpg")])
    assert one.name == "x" * 160 and two.name == "x" * 160 + "~2"
    [deep] = unique_names([PurePath("/".join(["folder"] * 1000), "a.jpg")])
    [other] = unique_names([PurePath("/".join(["folder"] * 1001), "a.jpg")])
    assert deep.name == other.name == "a" and deep != other and len(str(deep)) < 100


def test_a_name_many_times() -> None:
    """The time per name is constant; otherwise this test would take minutes."""
    names = ResultNames()
    taken = [names.take(PurePath("a.jpg")).name for _ in range(5_000)]
    assert taken[:4] == ["a", "a.jpg", "a.jpg~2", "a.jpg~3"] and taken[-1] == "a.jpg~4999"
    assert len(set(taken)) == 5_000


@pytest.mark.parametrize(
    ("label", "expected"),
    [
        ("tabby, tabby cat", "2-tabby_tabby_cat"),
        ("  a/../b\\c:*?\n", "2-a_b_c"),
        ("Ä" + "e\u0301", "2-Äé"),
        ("...", "2-7"),
        ("", "2-7"),
        (None, "2-7"),
        ("x" * 41, "2-" + "x" * 40),
        ("é" * 30, "2-" + "é" * 20),
        ("a" * 39 + "é", "2-" + "a" * 39),
        ("CON", "2-CON"),
    ],
)
def test_names_of_classes(label: str | None, expected: str) -> None:
    assert class_suffix(2, label, 7) == expected


@given(st.integers(1, 99999), st.text())
def test_any_label_gives_a_safe_name(rank: int, label: str) -> None:
    name = class_suffix(rank, label, 3)
    assert name.startswith(f"{rank}-") and len(name.encode()) <= len(f"{rank}-") + 40
    assert all(c.isalnum() or c == "_" for c in name.partition("-")[2]) and name.partition("-")[2]
    assert re.fullmatch(CLASS, f".{name}")
