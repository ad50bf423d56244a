"""Tests of `seewhy.visualization.fonts` with a font that the test builds, so that no font has to be installed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer
from seewhy.visualization import fonts, system_fonts
from support.tiny_model import Tiny

MakeImage = Callable[..., Image.Image]


def write_font(path: Path, characters: str) -> None:
    """Write a TrueType font with a square for each character, and a smaller one for missing characters."""
    builder = pytest.importorskip("fontTools.fontBuilder").FontBuilder(1000)
    pen_type = pytest.importorskip("fontTools.pens.ttGlyphPen").TTGlyphPen

    def square(side: int) -> object:
        pen = pen_type(None)
        pen.moveTo((0, 0))
        for point in ((0, side), (side, side), (side, 0)):
            pen.lineTo(point)
        pen.closePath()
        return pen.glyph()

    names = {ord(character): f"u{ord(character):04x}" for character in characters}
    glyphs = {".notdef": square(100), **{name: square(700) for name in names.values()}}
    builder.setupGlyphOrder(list(glyphs))
    builder.setupCharacterMap(names)
    builder.setupGlyf(glyphs)
    builder.setupHorizontalMetrics(dict.fromkeys(glyphs, (800, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": "Squares", "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(path)


@pytest.fixture
def only_squares(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Let the system have one font, for the characters к о т."""
    path = tmp_path / "fonts" / "squares.ttf"
    path.parent.mkdir()
    write_font(path, "кот")
    (path.parent / "broken.ttf").write_bytes(b"not a font")
    monkeypatch.setattr(system_fonts.shutil, "which", lambda name: None)
    monkeypatch.setattr(system_fonts, "_OTHER_FOLDERS", (str(path.parent),))
    monkeypatch.setattr(system_fonts, "_FOLDERS", {})
    clear()
    yield path
    monkeypatch.undo()
    clear()


def clear() -> None:
    texts = (fonts.readable, fonts.width, fonts.measured)
    for cached in (fonts._face, fonts._library, fonts._length, fonts._cached, *texts):
        cached.cache_clear()


def test_pillows_own_font_is_used_for_latin(only_squares: Path) -> None:
    face = fonts._library().own
    assert face.covers("tabby, tabby cat 63.1 %") and not face.covers("кот")
    assert fonts._face("tabby") is face


def test_a_font_of_the_system_is_used_for_other_characters(only_squares: Path) -> None:
    assert fonts.readable("кот") == "кот" and fonts.readable_label("кот", 7) == "кот"
    canvas = np.full((40, 60, 3), 255, np.uint8)
    fonts.draw(canvas, 5, 30, "кот", 20, (0, 0, 0))
    rows, columns = np.nonzero((canvas < 128).all(axis=2))
    # Three squares of 0.7 em side, 0.8 em apart, on the baseline.
    assert (rows.min(), rows.max()) == (30 - 14, 29) and (columns.min(), columns.max()) == (5, 5 + 2 * 16 + 13)
    assert len(rows) == 3 * 14 * 14 and fonts.width("кот", 20) == 48


def test_what_no_font_covers_is_escaped(only_squares: Path) -> None:
    """A label needs one font for all its characters; the squares have no Latin letters."""
    for label, escaped in (("犬", r"\u72ac"), ("кот cat", r"\u043a\u043e\u0442 cat"), ("e\u0301", r"e\u0301")):
        assert fonts.readable(label) == escaped
        assert fonts.readable_label(label, 7) == f"class 7: {escaped}"
    note = fonts.missing_note(["cat", "犬", "кот", "犬", "猫"])
    assert note is not None and "the characters of 2 labels, such as \\u72ac;" in note and "such as Noto" in note
    assert fonts.missing_note(["cat", "кот"]) is None
    long = fonts.missing_note(["犬" * 4000])
    assert long is not None and "such as " + r"\u72ac" * 10 + "..." + r"\u72ac" * 5 + "; figures" in long


def test_fonts_are_searched_until_all_are_open(only_squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model may have thousands of labels that no font covers."""
    searches = []

    def counted(characters: str) -> Iterator[tuple[str, int]]:
        searches.append(characters)
        return system_fonts.candidates(characters)

    monkeypatch.setattr(fonts, "candidates", counted)
    assert fonts.missing_note(["cat", "dog"]) is None and searches == []
    assert fonts.missing_note([*(chr(0x4E00 + i) for i in range(500)), "кот"]) is not None
    assert len(searches) == 1 and fonts.covered("кот")


def test_figures_warn_about_missing_fonts(only_squares: Path, make_image: MakeImage, tmp_path: Path) -> None:
    explainer = Explainer(Tiny(labels=("犬", "cat", "c", "d", "e", "f")).save(tmp_path / "m.onnx"))
    result = explainer.explain(make_image(), target=0)
    with pytest.warns(UserWarning, match=r"no font of this machine has the characters of 1 label, such as \\u72ac"):
        result.figures()
    with pytest.warns(UserWarning, match="install a font"):
        result.save(tmp_path / "out")
    result.figures(plain=True)  # warnings are errors here
    explainer.explain(make_image(), target=1).figures()


def test_control_characters_are_escaped() -> None:
    assert fonts.readable("a\x1b[31m\u202eb\ud800") == r"a\x1b[31m\u202eb\ud800"


@pytest.mark.parametrize("most", [0, 5, 20, 60, 1000])
def test_texts_are_cut_to_their_room(most: int) -> None:
    cut = fonts.shorten("a label that is rather long", 12, most)
    assert cut == "a label that is rather long" if most == 1000 else cut.endswith("...")
    assert most < 20 or fonts.measured(cut, 12) <= most
    assert fonts.measured(cut, 12) == pytest.approx(fonts.width(cut, 12), abs=2)


@pytest.mark.parametrize(("x", "baseline"), [(-500, 10), (-7, 12), (50, 3), (50, 70), (500, 500), (5, -90)])
def test_text_beyond_the_canvas_is_cut_off(x: int, baseline: int) -> None:
    """The part inside is the same as on a larger canvas."""
    small, large = np.full((60, 80, 3), 255, np.uint8), np.full((1260, 1280, 3), 255, np.uint8)
    fonts.draw(small, x, baseline, "cat 0.5", 30, (9, 9, 9))
    fonts.draw(large, x + 600, baseline + 600, "cat 0.5", 30, (9, 9, 9))
    assert np.array_equal(small, large[600:660, 600:680])


def test_fontconfig_is_asked_for_characters(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Its answers come first, and fonts in other formats are passed over."""
    program = tmp_path / "fc-match"
    program.write_text('#!/bin/sh\necho "$2" > "$0.asked"\nprintf "/x/cjk.ttc\\n65539\\n/x/old.pfb\\n0\\n"\n')
    program.chmod(0o755)
    monkeypatch.setattr(system_fonts.shutil, "which", lambda name: str(program) if name == "fc-match" else None)
    monkeypatch.setattr(system_fonts, "_OTHER_FOLDERS", ())
    assert list(system_fonts.candidates("犬a")) == [("/x/cjk.ttc", 3)]
    assert (tmp_path / "fc-match.asked").read_text() == "sans-serif:charset=72ac 61\n"
