"""Names of results: below the output folder, printable, short enough, and each given out once."""

from __future__ import annotations

import os
from pathlib import Path, PurePath

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seewhy.manifest import NAME as MANIFEST
from seewhy.methods import METHODS
from seewhy.names import Names, plan
from seewhy.output import FORMATS
from seewhy.provenance import NAME as RUN

LONGEST_SUFFIX = max(len(f".{method}.99999.webp") for method in [*METHODS, "sheet"])

pieces = st.one_of(
    st.text(st.sampled_from("ab.A~2\n\\\x1b é\udcff%:"), min_size=1, max_size=6),
    st.sampled_from(["..", ".", "CON", "nul.txt", ".seewhy-unfinished", "manifest.jsonl", "a.gradcam.png", "ß", "ss"]),
    st.text(min_size=1, max_size=4),
    st.integers(100, 300).map(lambda count: "é" * count),
)
paths = st.lists(pieces, min_size=1, max_size=6).flatmap(
    lambda parts: st.sampled_from(["/".join(parts), "/" + "/".join(parts)])
)


def check(names: list[PurePath]) -> None:
    assert len({str(name).casefold() for name in names}) == len(names)
    folders = {str(parent).casefold() for name in names for parent in name.parents}
    for name in names:
        assert str(name).isprintable() and not name.is_absolute() and ".." not in name.parts and name.name
        assert not any("\\" in part or part in (".", "") for part in name.parts)
        assert all(len(part.encode()) <= 255 for part in name.parent.parts)
        assert len(name.name.encode()) + LONGEST_SUFFIX <= 255
        assert len(str(name).encode()) < 2000
        # No file that is written for a name is where a folder has to be.
        for method in METHODS:
            for ending in (*FORMATS, "npz"):
                assert str(name.with_name(f"{name.name}.{method}.{ending}")).casefold() not in folders
    assert not folders & {MANIFEST, RUN} and not any(folder.startswith(".seewhy") for folder in folders)


@given(st.lists(paths, min_size=1, max_size=8))
def test_expected_names(inputs: list[str]) -> None:
    check(plan([PurePath(name) for name in inputs]))


@given(st.lists(paths, max_size=5), st.lists(paths, max_size=8), st.booleans())
def test_names_that_nobody_expected(expected: list[str], others: list[str], first: bool) -> None:
    """Members of archives come between files, or after them."""
    names = Names()
    names.expect(PurePath(name) for name in expected)
    orders = [expected, others] if first else [others, expected]
    check([names.take(PurePath(name)) for order in orders for name in order])


@given(st.lists(paths, min_size=1, max_size=8))
@settings(max_examples=40)
def test_names_can_be_created_and_stay_below(tmp_path_factory: pytest.TempPathFactory, inputs: list[str]) -> None:
    root = tmp_path_factory.mktemp("names")
    for name in plan([PurePath(name) for name in inputs]):
        path = root / name.with_name(f"{name.name}.gradcam.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("xb"):
            pass
        assert Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def named(*inputs: str) -> list[str]:
    return [name.as_posix() for name in plan([PurePath(name) for name in inputs])]


def test_names_do_not_depend_on_what_comes_later() -> None:
    """But on which stems there are: that is what `expect` is for."""
    assert named("x/a.jpg", "x/b.jpg", "y/a.jpg") == ["x/a", "x/b", "y/a"]
    assert named("a.jpg", "b.jpg", "a.png") == ["a.jpg", "b", "a.png"]


def test_folders_that_are_called_like_files() -> None:
    assert named("a.jpg", "a.gradcam.png/b.jpg") == ["a", "a%2Egradcam.png/b"]
    assert named("manifest.jsonl/x.jpg", "run.JSON/x.jpg") == ["%6Danifest.jsonl/x", "%72un.JSON/x"]
    assert named(".seewhy-unfinished/x.jpg", ".seewhy.lock/x.jpg") == ["%2Eseewhy-unfinished/x", "%2Eseewhy.lock/x"]
    assert named("a.x.jpg/b.jpg", "a%2Ex.jpg/b.jpg") == ["a%2Ex.jpg/b.jpg", "a%2Ex.jpg/b.jpg~2"]


def test_absolute_and_climbing_paths() -> None:
    assert named("/etc/x.jpg", "../../etc/x.jpg", "a/../x.jpg") == ["etc/x", "%2E./%2E./etc/x", "a/%2E./x"]


def test_inputs_without_a_name() -> None:
    assert named("", ".", "/") == ["unnamed", "unnamed~2", "unnamed~3"]


def test_long_names() -> None:
    long = "x" * 300
    one, two = plan([PurePath(f"{long}1.jpg"), PurePath(f"{long}2.jpg")])
    assert one.name == "x" * 160 and two.name == "x" * 160 + "~2"
    [deep] = plan([PurePath("/".join(["folder"] * 1000), "a.jpg")])
    [other] = plan([PurePath("/".join(["folder"] * 1001), "a.jpg")])
    assert deep.name == other.name == "a" and deep != other and len(str(deep)) < 100


def test_a_name_many_times() -> None:
    """Each takes as long as the first, or this would take minutes."""
    names = Names()
    taken = [names.take(PurePath("a.jpg")).name for _ in range(5_000)]
    assert taken[:4] == ["a", "a.jpg", "a.jpg~2", "a.jpg~3"] and taken[-1] == "a.jpg~4999"
    assert len(set(taken)) == 5_000
