"""Tests of `seewhy.storage`: files stay inside the output folder and are complete, in all formats and qualities."""

from __future__ import annotations

import io
import os
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path, PurePath

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from seewhy import ArgumentError, Explainer, ImageError, OutputError
from seewhy._shared.text import printable, safe_folder_name, safe_name, short
from seewhy.storage.format_names import FIGURE_FORMATS, PIXEL_FORMATS
from seewhy.storage.image_encoding import Encoding
from seewhy.storage.output_folder import Folder
from seewhy.storage.result_files import save_figure
from seewhy.storage.result_names import unique_names
from support.tiny_model import load

MakeImage = Callable[..., Image.Image]


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [
        (["a.jpg", "b.png"], ["a", "b"]),
        (["sub/a.jpg", "a.jpg"], ["sub/a", "a"]),
        (["a.jpg", "a.png"], ["a.jpg", "a.png"]),
        (["a.jpg", "A.PNG"], ["a.jpg", "A.PNG"]),
        (["a.jpg", "a.jpg", "a.jpg"], ["a.jpg", "a.jpg~2", "a.jpg~3"]),
        (["a.jpg", "a.png", "a.jpg.png"], ["a.jpg~2", "a.png", "a.jpg"]),
        (["a.b.jpg", ".hidden", "noext"], ["a.b", ".hidden", "noext"]),
        (["a\x1b[2J.jpg"], ["a%1B[2J"]),
        (["new\nline/x.jpg"], ["new%0Aline/x"]),
        (["\u202egpj.exe.jpg"], ["%E2%80%AEgpj.exe"]),
    ],
)
def test_planned_names_of_results(inputs: list[str], expected: list[str]) -> None:
    assert [path.as_posix() for path in unique_names([PurePath(name) for name in inputs])] == expected


names = st.lists(st.text(st.sampled_from("ab.A~2\n\\\x1b "), min_size=1, max_size=5), min_size=1, max_size=8).map(
    lambda texts: [text for text in texts if PurePath(text).name]
)


@given(names)
def test_plan_never_collides(inputs: list[str]) -> None:
    planned = unique_names([PurePath(name) for name in inputs])
    assert len({str(path).casefold() for path in planned}) == len(inputs)
    for path in planned:
        assert str(path).isprintable() and not path.is_absolute() and ".." not in path.parts


@given(st.text())
def test_text_is_made_safe(text: str) -> None:
    assert printable(text).isprintable()
    assert safe_name(text).isprintable()
    assert not set(safe_name(text)) & set('/\\<>:"|?*') and safe_name(text) not in (".", "..")
    assert not safe_folder_name(text).endswith((".", " "))
    assert safe_name(safe_name(text)) == safe_name(text)
    if text.isprintable():
        assert printable(text) == text


def test_printable_by_hand() -> None:
    assert printable("a\x1b[31m\n\t\u202eé犬") == "a\\x1b[31m\\n\\t\\u202eé犬"
    assert printable("bad\udcff") == "bad\\udcff"


def test_short_by_hand() -> None:
    assert short("a\nb") == "a\\nb" and short("x" * 100) == "x" * 100
    assert short("a" * 60 + "b" * 60) == "a" * 50 + "..." + "b" * 25
    assert short("") == "" and short("abcdefghi", 8) == "abcd...hi"


@given(st.text(), st.integers(4, 50))
def test_short_texts(text: str, most: int) -> None:
    assert short(text, most).isprintable() and len(short(text, most)) <= 10 * (most + 3)
    if len(text) <= most:
        assert short(text, most) == printable(text)


def write(folder: Folder, name: str, content: bytes = b"x") -> Path:
    return folder.write(PurePath(name), lambda file: file.write(content)).path


def test_files_are_written_below_the_folder(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "new" / "out")
    path = write(folder, "sub/deeper/a.png", b"hello")
    assert path == tmp_path / "new" / "out" / "sub" / "deeper" / "a.png"
    assert path.read_bytes() == b"hello"
    assert write(folder, "sub/deeper/a.png", b"again").read_bytes() == b"again"
    assert [p.name for p in path.parent.iterdir()] == ["a.png"]


def test_size_and_hash_of_a_written_file(tmp_path: Path) -> None:
    found = Folder(tmp_path).write(PurePath("a"), lambda file: file.write(b"hello"))
    expected = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824"  # by sha256sum
    assert (found.path, found.size, found.sha256) == (tmp_path / "a", 5, expected)


def test_an_empty_name_of_the_folder_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With an unset variable, files would be written to the current folder."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OutputError, match="the name of the output folder is empty"):
        Folder("")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="POSIX permissions")
def test_files_have_ordinary_permissions(tmp_path: Path) -> None:
    ordinary = tmp_path / "ordinary"
    ordinary.touch()
    assert write(Folder(tmp_path / "out"), "a").stat().st_mode == ordinary.stat().st_mode


@pytest.mark.parametrize("name", ["../a.png", "sub/../../a.png", "/tmp/seewhy-must-not-be-here.png"])
def test_files_outside_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputError, match="is outside the output folder"):
        write(Folder(tmp_path / "out"), name)
    assert not (tmp_path / "a.png").exists() and not Path("/tmp/seewhy-must-not-be-here.png").exists()


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out" / "sub").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is outside the output folder"):
        write(Folder(tmp_path / "out"), "sub/a.png")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_folder_that_becomes_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder, inside, elsewhere = Folder(tmp_path / "out"), tmp_path / "out" / "sub", tmp_path / "elsewhere"
    assert write(folder, "sub/a.png").exists() and write(folder, "sub/b.png").exists()
    inside.rename(elsewhere)
    inside.symlink_to(elsewhere)
    with pytest.raises(OutputError, match="is outside the output folder"):
        write(folder, "sub/c.png")
    inside.unlink()
    assert write(folder, "sub/c.png").exists()
    assert sorted(path.name for path in elsewhere.iterdir()) == ["a.png", "b.png"]


def test_a_link_inside_the_folder_is_checked_again(tmp_path: Path) -> None:
    folder, link = Folder(tmp_path / "out"), tmp_path / "out" / "link"
    (tmp_path / "out" / "real").mkdir()
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to("real")
    assert write(folder, "link/a.png").exists()
    link.unlink()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputError, match="is outside the output folder"):
        write(folder, "link/b.png")
    assert not list((tmp_path / "elsewhere").iterdir())


def test_link_in_place_of_a_result_is_replaced_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "out" / "a.png").symlink_to(victim)
    assert write(Folder(tmp_path / "out"), "a.png").read_bytes() == b"x"
    assert victim.read_bytes() == b"precious"


def test_failure_leaves_no_files(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    write(folder, "a.png", b"before")

    def fail(file: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"a\.png: cannot be written: No space left on device"):
        folder.write(PurePath("a.png"), fail)
    assert [(p.name, p.read_bytes()) for p in (tmp_path / "out").iterdir()] == [("a.png", b"before")]


@pytest.mark.skipif(os.name != "posix", reason="POSIX limits")
@pytest.mark.parametrize("missing", [1, 500, 1500])
@pytest.mark.parametrize("form", PIXEL_FORMATS)
def test_file_that_does_not_fit_on_the_disk(form: str, missing: int, tmp_path: Path) -> None:
    """The system writes the first part, and reports an error only for the next part."""
    import resource

    pixels = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    image, encoding, folder = Image.fromarray(pixels), Encoding(form), Folder(tmp_path)
    room = len(encoded(image, form)) - missing
    _, hard = before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        with pytest.raises(OutputError, match=rf"a\.{form}: cannot be written: File too large"):
            folder.write(PurePath(f"a.{form}"), lambda file: encoding.save(image, file))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not list(tmp_path.iterdir())


def test_many_inputs_need_little_memory(tmp_path: Path) -> None:
    count = 50_000
    tracemalloc.start()
    try:
        folder = Folder(tmp_path, (f"{tmp_path}/{number}.jpg" for number in range(count)))
        assert tracemalloc.get_traced_memory()[0] < 16 * count
    finally:
        tracemalloc.stop()
    for number in (0, 7, count - 1):
        with pytest.raises(OutputError, match="would replace an input image"):
            write(folder, f"{number}.jpg")
    write(folder, f"{count}.jpg")


def test_input_is_never_replaced(tmp_path: Path) -> None:
    image_file = tmp_path / "a.gradcam.png"
    image_file.write_bytes(b"image")
    link = tmp_path / "link.png"
    link.symlink_to(image_file)
    folder = Folder(tmp_path, [image_file, link])
    for name in ("a.gradcam.png", "link.png"):
        with pytest.raises(OutputError, match="would replace an input image; choose another output folder"):
            write(folder, name)
    assert image_file.read_bytes() == b"image" and link.is_symlink()


def test_folder_that_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file: is not a folder"):
        Folder(tmp_path / "file")
    with pytest.raises(OutputError, match="cannot be created: Not a directory"):
        Folder(tmp_path / "file" / "out")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="needs a user whom permissions bind")
def test_no_permission(tmp_path: Path) -> None:
    folder = Folder(tmp_path / "out")
    (tmp_path / "out").chmod(0o500)
    with pytest.raises(OutputError, match=r"a\.png: cannot be written: Permission denied"):
        write(folder, "a.png")


# Formats.


def encoded(image: Image.Image, *arguments: object) -> bytes:
    file = io.BytesIO()
    Encoding(*arguments).save(image, file)  # type: ignore[arg-type]
    return file.getvalue()


def test_formats_and_quality(make_image: MakeImage) -> None:
    image = make_image(64, 48)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encoded(image)))), np.asarray(image))
    for kind in ("jpg", "webp"):
        sizes = [len(encoded(image, kind, quality)) for quality in (1, 50, 90, 100)]
        assert sizes == sorted(sizes) and len(set(sizes)) == 4
        assert encoded(image, kind) == encoded(image, kind, 90)
        with Image.open(io.BytesIO(encoded(image, kind))) as found:
            difference = np.asarray(found, float) - np.asarray(image)
            # Independent noise of +-20 on each channel, of which both formats drop half.
            assert found.size == image.size and np.abs(difference).mean() < 16


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gif",), "Unknown image format 'gif'; choose one of png, jpg, webp, svg"),
        (("JPG",), "Unknown image format 'JPG'"),
        (("png", 90), "png is lossless and has no quality"),
        (("jpg", 0), "quality must be an integer from 1 to 100, not 0"),
        (("jpg", 101), "not 101"),
        (("webp", 9.5), "not 9.5"),
        (("webp", True), "not True"),
    ],
)
def test_wrong_formats(arguments: tuple, words: str) -> None:
    with pytest.raises(ArgumentError, match=re.escape(words)):
        Encoding(*arguments)


def test_format_that_pillow_does_not_support(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(Image.SAVE, "WEBP")
    with pytest.raises(OutputError, match="this installation of Pillow cannot write webp"):
        Encoding("webp")


@pytest.mark.parametrize(("kind", "side"), [("jpg", 65500), ("webp", 16383)])
def test_largest_images(tmp_path: Path, kind: str, side: int) -> None:
    """Each limit is that of the format: an image with one pixel less can be written."""
    folder, name = Folder(tmp_path), PurePath("a")
    for size in ((side + 1, 1), (1, side + 1)):
        with pytest.raises(
            ImageError, match=rf"a\.x\.{kind}: \d+x\d+ pixels, but {kind} allows at most {side} per side"
        ):
            save_figure(folder, name, "x", Image.new("RGB", size), Encoding(kind))
        assert list(tmp_path.iterdir()) == []
    path = save_figure(folder, name, "x", Image.new("RGB", (side, 1)), Encoding(kind)).path
    assert load(path).shape == (1, side, 3)


def test_formats_are_listed() -> None:
    assert FIGURE_FORMATS == (*PIXEL_FORMATS, "svg") == ("png", "jpg", "webp", "svg")


# Explanation.save.


def test_save_writes_figures_and_arrays(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    for name in ("a.jpg", "b.png"):
        make_image().save(tmp_path / name)
    result = explainer.explain([tmp_path / "a.jpg", tmp_path / "b.png", make_image()], method="gradcam")
    written = result.save(tmp_path / "out", raw=True)
    assert [path.name for path in written] == [
        *("a.gradcam.png", "a.gradcam.npz", "b.gradcam.png", "b.gradcam.npz"),
        *("image 2.gradcam.png", "image 2.gradcam.npz"),
    ]
    for path, image in zip(written[::2], result.figures(), strict=True):
        assert np.array_equal(load(path), np.asarray(image))
    with np.load(written[3], allow_pickle=False) as saved:
        assert set(saved) == {"logits", "target", "attributions", "heatmap", "maps"}
        assert np.array_equal(saved["logits"], result.logits[1])
        assert saved["target"].shape == () and saved["target"] == result.targets[1]
        assert result.maps is not None
        for key, array in [("attributions", result.attributions), ("heatmap", result.heatmaps), ("maps", result.maps)]:
            assert np.array_equal(saved[key], array[1])


def test_save_several_classes(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    result = explainer.explain(make_image(), method="backprop", target=[[4, 0]])
    written = result.save(tmp_path, raw=True)
    assert [p.name for p in written] == [
        *("image 0.backprop.1-crane.png", "image 0.backprop.2-tabby_tabby_cat.png", "image 0.backprop.npz")
    ]
    with np.load(written[2], allow_pickle=False) as saved:
        assert set(saved) == {"logits", "target", "attributions", "heatmap"}
        assert saved["target"].tolist() == [4, 0] and saved["attributions"].shape == (2, 3, 12, 16)


def test_save_does_not_replace_an_input_image(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    for name in ("a.png", "a.gradcam.png"):
        make_image().save(tmp_path / name)
    before = (tmp_path / "a.gradcam.png").read_bytes()
    with pytest.raises(OutputError, match="would replace an input image"):
        explainer.explain([tmp_path / "a.png", tmp_path / "a.gradcam.png"]).save(tmp_path)
    assert (tmp_path / "a.gradcam.png").read_bytes() == before


def test_save_does_not_replace_the_file_of_a_pil_image(
    explainer: Explainer, make_image: Callable[..., Image.Image], tmp_path: Path
) -> None:
    make_image(seed=1).save(tmp_path / "a.png")
    make_image(seed=2).save(tmp_path / "a.gradcam.png")
    before = (tmp_path / "a.gradcam.png").read_bytes()
    result = explainer.explain([Image.open(tmp_path / name) for name in ("a.png", "a.gradcam.png")])
    with pytest.raises(OutputError, match=r"a\.gradcam\.png: would replace an input image"):
        result.save(tmp_path)
    assert (tmp_path / "a.gradcam.png").read_bytes() == before
