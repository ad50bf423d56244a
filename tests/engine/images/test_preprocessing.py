"""Tests of `seewhy.images.preprocessing`: the model's view equals torchvision's transforms, pixel by pixel."""

from __future__ import annotations

import importlib
import importlib.util
import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from PIL import Image

from seewhy import Explainer, ImageError
from seewhy.contract import constants as contract
from seewhy.contract.metadata import Metadata, Preprocessing
from seewhy.images.decoding import decode_bytes
from seewhy.images.preprocessing import EncodedImage, LoadedImage, image_batch, load_image, normalise
from seewhy.images.resizing import resize_and_crop
from support.tiny_model import Tiny

MakeImage = Callable[..., Image.Image]
SIZES = [(40, 30), (30, 40), (33, 33), (17, 61), (61, 17), (8, 5), (1, 1), (300, 200), (24, 24), (25, 24)]


@pytest.fixture(scope="module")
def transforms() -> ModuleType:
    """torchvision.transforms, as the exporter imports it: a CPU-only torch needs a remedy first."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed")
    from seewhy_export.sources.torchvision_import import import_torchvision

    import_torchvision()
    return importlib.import_module("torchvision.transforms")


def view(image: Image.Image, input_size: tuple[int, int], **preprocessing: Any) -> np.ndarray:
    """Return the view of an image that the model sees, of (height, width) `input_size`."""
    return np.asarray(resize_and_crop(image, Preprocessing(**preprocessing), input_size, "x")[0])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", contract.INTERPOLATIONS)
def test_shorter_side_and_crop_equal_torchvision(
    transforms: ModuleType, make_image: MakeImage, size: tuple[int, int], interpolation: str
) -> None:
    image = make_image(*size, seed=sum(size))
    mode = transforms.InterpolationMode(interpolation)
    for shorter, wanted in [(32, (28, 28)), (24, (24, 24)), (27, (20, 27)), (16, (24, 21))]:
        expected = transforms.Compose([transforms.Resize(shorter, mode), transforms.CenterCrop(wanted)])(image)
        found = view(image, wanted, resize="shorter-side", size=shorter, interpolation=interpolation)
        assert np.array_equal(found, np.asarray(expected)), (shorter, wanted)


@pytest.mark.parametrize("size", SIZES)
def test_squash_and_crop_alone_equal_torchvision(
    transforms: ModuleType, make_image: MakeImage, size: tuple[int, int]
) -> None:
    image = make_image(*size, seed=sum(size))
    squashed = transforms.Resize((20, 31), transforms.InterpolationMode.BICUBIC)(image)
    assert np.array_equal(view(image, (20, 31), resize="squash", interpolation="bicubic"), np.asarray(squashed))
    cropped = transforms.CenterCrop((20, 31))(image)
    assert np.array_equal(view(image, (20, 31), resize="none"), np.asarray(cropped))


@pytest.mark.parametrize("size", SIZES)
def test_squash_to_a_square_then_crop_equals_torchvision(
    transforms: ModuleType, make_image: MakeImage, size: tuple[int, int]
) -> None:
    image = make_image(*size, seed=sum(size))
    expected = transforms.Compose([transforms.Resize((40, 40)), transforms.CenterCrop((28, 31))])(image)
    assert np.array_equal(view(image, (28, 31), resize="squash", size=40), np.asarray(expected))


@pytest.mark.parametrize(
    ("width", "rounding", "first"),
    [
        (8, "half-even", 2),
        (8, "down", 2),
        (9, "half-even", 2),  # (9 - 4) / 2 = 2.5
        (9, "down", 2),
        (7, "half-even", 2),  # (7 - 4) / 2 = 1.5
        (7, "down", 1),
        (3, "half-even", 0),  # padded: (3 - 4) / 2 = -0.5
        (3, "down", -1),
    ],
)
def test_the_first_pixel_of_a_crop(width: int, rounding: str, first: int) -> None:
    row = np.arange(1, width + 1, dtype=np.uint8)
    image = Image.fromarray(np.broadcast_to(row[None, :, None], (4, width, 3)).copy())
    found = view(image, (4, 4), resize="none", crop_rounding=rounding)[0, :, 0]
    assert found.tolist() == [x + 1 if 0 <= x < width else 0 for x in range(first, first + 4)]


def test_random_sizes_equal_torchvision(transforms: ModuleType, make_image: MakeImage) -> None:
    random = np.random.default_rng(1)
    for seed in range(60):
        width, height, shorter, crop_h, crop_w = (int(n) for n in random.integers(1, 90, 5))
        image = make_image(width, height, seed)
        expected = transforms.Compose([transforms.Resize(shorter), transforms.CenterCrop((crop_h, crop_w))])(image)
        assert np.array_equal(view(image, (crop_h, crop_w), resize="shorter-side", size=shorter), np.asarray(expected))


@pytest.mark.parametrize("interpolation", contract.INTERPOLATIONS)
def test_random_sizes_equal_pillow(interpolation: str) -> None:
    """The pixels are those of the installed version of Pillow, with which axis it may start."""
    random = np.random.default_rng(2)
    resample = Image.Resampling[interpolation.upper()]
    for seed in range(300):
        width, height, squashed, crop_h, crop_w = (int(n) for n in random.integers(1, 90, 5))
        image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8))
        left, top = ((squashed - n) // 2 for n in (crop_w, crop_h))
        expected = image.resize((squashed, squashed), resample).crop((left, top, left + crop_w, top + crop_h))
        how = {"resize": "squash", "size": squashed, "interpolation": interpolation, "crop_rounding": "down"}
        assert np.array_equal(view(image, (crop_h, crop_w), **how), np.asarray(expected)), (image.size, squashed)


@pytest.mark.parametrize("size", [(2600, 1700), (1700, 2600), (6000, 900)])
def test_images_in_several_blocks_of_memory_equal_pillow(size: tuple[int, int]) -> None:
    image = Image.fromarray(np.random.default_rng(3).integers(0, 256, (size[1], size[0], 3), np.uint8))
    assert 4 * size[0] * size[1] > Image.core.get_block_size()
    short = min(size)
    resized = image.resize((224 * size[0] // short, 224 * size[1] // short), Image.Resampling.BICUBIC)
    left, top = ((n - 200) // 2 for n in resized.size)
    expected = np.asarray(resized.crop((left, top, left + 200, top + 200)))
    how = {"resize": "shorter-side", "size": 224, "interpolation": "bicubic", "crop_rounding": "down"}
    assert np.array_equal(view(image, (200, 200), **how), expected)
    one_row = image.resize((1, 1), Image.Resampling.BICUBIC)
    assert np.array_equal(view(image, (1, 1), resize="squash", interpolation="bicubic"), np.asarray(one_row))


def test_versions_of_pillow_that_do_not_share_memory(monkeypatch: pytest.MonkeyPatch, make_image: MakeImage) -> None:
    image, how = make_image(200, 150), {"resize": "shorter-side", "size": 60, "interpolation": "bilinear"}
    expected = view(image, (50, 50), **how)
    monkeypatch.delattr(Image.Image, "__arrow_c_array__", raising=False)
    assert np.array_equal(view(image, (50, 50), **how), expected)


def test_pixels_equal_torchvision_to_the_end(transforms: ModuleType, make_image: MakeImage) -> None:
    tiny = Tiny(size=(24, 24), preprocessing=Preprocessing("shorter-side", 28, "bilinear"))
    image = make_image(50, 40)
    steps = [transforms.Resize(28), transforms.CenterCrop(24), transforms.ToTensor()]
    normal = transforms.Normalize(tiny.metadata().preprocessing.mean, tiny.metadata().preprocessing.std)  # type: ignore[union-attr]
    expected = transforms.Compose([*steps, normal])(image).numpy()
    found = normalise([load_image(image, tiny.metadata())], tiny.metadata())
    assert found.shape == (1, 3, 24, 24) and found.dtype == np.float32
    # Three float32 operations on values up to 3, in another order.
    np.testing.assert_allclose(found[0], expected, rtol=0, atol=1e-6)


def test_normalise_by_hand() -> None:
    how = Preprocessing("squash", None, "nearest", True, (0.1, 0.2, 0.3), (0.5, 0.25, 2.0), "BGR")
    tiny = Tiny(size=(2, 2), preprocessing=how)
    rgb = np.arange(12, dtype=np.uint8).reshape(2, 2, 3) * 20
    found = normalise([load_image(rgb, tiny.metadata())], tiny.metadata())[0]
    for c, (mean, std) in enumerate(zip(how.mean, how.std, strict=True)):
        np.testing.assert_allclose(found[c], (rgb[..., 2 - c] / 255 - mean) / std, atol=1e-6)


def test_placement_maps_the_view_onto_the_image(make_image: MakeImage) -> None:
    """The placement maps the position of a bright block in the view to its position on the image."""
    how = Preprocessing("shorter-side", 32, "bilinear")
    array = np.zeros((120, 200, 3), np.uint8)
    array[60:68, 120:128] = 255
    found, placement = resize_and_crop(Image.fromarray(array), how, (24, 28), "x")
    y, x = (np.average(np.arange(n), weights=np.asarray(found)[..., 0].sum(axis=1 - i)) for i, n in enumerate((24, 28)))
    assert (x + 0.5 + placement.left) * placement.scale_x == pytest.approx(124, abs=0.5)
    assert (y + 0.5 + placement.top) * placement.scale_y == pytest.approx(64, abs=0.5)


@pytest.mark.parametrize(
    "how", [{"resize": "none", "crop": False}, {"resize": "shorter-side", "size": 9, "crop": False}]
)
def test_size_that_does_not_fit(make_image: MakeImage, how: dict[str, Any]) -> None:
    with pytest.raises(ImageError, match=r"x: \d+x9 pixels after preprocessing, but the model takes 12x9"):
        view(make_image(20, 9), (9, 12), **how)
    assert view(make_image(12, 9), (9, 12), **how).shape == (9, 12, 3)


def test_thin_image_is_not_enlarged() -> None:
    with pytest.raises(ImageError, match="x: 40000x1 pixels would be resized to 10240000x256"):
        view(Image.new("RGB", (40_000, 1)), (224, 224), resize="shorter-side", size=256)


# Accepted images.


def test_path_pil_and_array_are_the_same(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    image = make_image()
    path = tmp_path / "x.png"
    image.save(path)
    kinds = [path, str(path), image, Image.open(path), np.asarray(image), np.asarray(image)[:, ::-1][:, ::-1]]
    results = [explainer.explain(kind).attributions for kind in kinds]
    together = explainer.explain(kinds)
    for i, result in enumerate(results):
        assert result.shape == (1, 12, 16)
        assert np.array_equal(result, results[0])
        np.testing.assert_allclose(together.attributions[i], result[0], rtol=1e-5, atol=1e-7)
    assert [p.name for p in together.images] == [str(path)] * 2 + ["image 2", str(path), "image 4", "image 5"]


def test_grey_array(explainer: Explainer, make_image: MakeImage) -> None:
    grey = np.asarray(make_image().convert("L"))
    rgb = np.repeat(grey[..., None], 3, axis=2)
    assert np.array_equal(explainer.explain(grey).logits, explainer.explain(rgb).logits)


def test_one_channel_network(tmp_path: Path, make_image: MakeImage) -> None:
    how = Preprocessing(mean=(0.5,), std=(0.5,))
    explainer = Explainer(Tiny(channels=1, preprocessing=how).save(tmp_path / "grey.onnx"))
    result = explainer.explain([make_image(), make_image().convert("L")], method="backprop")
    assert result.attributions.shape == (2, 1, 12, 16)
    assert np.array_equal(result.images[0].view, result.images[1].view)
    assert result.images[0].view.shape == (12, 16, 1)
    assert result.overlays()[0].mode == result.figures()[0].mode == "RGB"


def test_network_of_other_channels_takes_arrays_only(tmp_path: Path, make_image: MakeImage) -> None:
    how = Preprocessing(mean=(0,) * 4, std=(1,) * 4)
    explainer = Explainer(Tiny(channels=4, preprocessing=how).save(tmp_path / "four.onnx"))
    with pytest.raises(ImageError, match=r"takes 4 channels, .* float32 array \(N,4,H,W\)"):
        explainer.explain(make_image())
    result = explainer.explain(np.ones((2, 4, 12, 16), np.float32))
    assert result.heatmaps.shape == (2, 12, 16)
    with pytest.raises(ImageError, match="does not say how to turn preprocessed pixels with 4 channels back"):
        result.overlays()


def test_file_without_preprocessing_takes_arrays_only(tmp_path: Path, make_image: MakeImage) -> None:
    explainer = Explainer(Tiny(preprocessing=None).save(tmp_path / "bare.onnx"))
    with pytest.raises(ImageError, match="does not say how to preprocess images"):
        explainer.explain(make_image())
    result = explainer.explain(np.ones((1, 3, 12, 16), np.float32))
    with pytest.raises(ImageError, match="does not say how to turn preprocessed pixels with 3 channels back"):
        result.overlays()


def test_preprocessed_pixels_are_not_changed(explainer: Explainer, make_image: MakeImage) -> None:
    images = [make_image(seed=1), make_image(30, 50, seed=2)]
    result = explainer.explain(images)
    pixels = normalise([p for p in result.images if isinstance(p, LoadedImage)], explainer.metadata)
    again = explainer.explain(pixels)
    assert np.array_equal(again.logits, result.logits)
    assert np.array_equal(again.attributions, result.attributions)
    # Undoing the normalisation gives the view, so the overlays are the same.
    for mine, theirs in zip(again.overlays(), result.overlays(), strict=True):
        assert np.array_equal(np.asarray(mine), np.asarray(theirs))
    strided = np.repeat(pixels, 2, axis=0)[::2]
    assert np.array_equal(explainer.explain(strided).logits, result.logits)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        ([], "no images given"),
        ((), "no images given"),
        (np.zeros((0, 3, 12, 16), np.float32), "no images given"),
        (np.zeros((1, 3, 12, 16)), r"must be float32 \(N,3,12,16\), not float64"),
        (np.zeros((1, 3, 16, 12), np.float32), r"must have shape \(N,3,12,16\), not \(1, 3, 16, 12\)"),
        (np.zeros((3, 12, 16), np.float32), r"must have shape \(N,3,12,16\)"),
        (np.full((2, 3, 12, 16), np.nan, np.float32), "preprocessed image 0 holds NaN"),
        (
            np.zeros((2, 12, 16, 3), np.uint8),
            r"must be float32 .* not uint8 \(2, 12, 16, 3\); .* a list of uint8 arrays",
        ),
        (np.zeros((12, 16, 5), np.uint8), r"an image array must be uint8 HxWx3 .* not uint8 \(12, 16, 5\)"),
        (np.zeros((0, 16, 3), np.uint8), "has no pixels"),
        ([np.zeros((12, 16, 3), np.float32)], "image 0: an image array must be uint8"),
        (None, "image 0: an image must be a path, the bytes of .* or a uint8 array, not NoneType"),
        (7, "not int"),
        ([[]], "not list"),
    ],
)
def test_arguments_that_are_not_images(explainer: Explainer, images: Any, words: str) -> None:
    with pytest.raises(ImageError, match=words) as raised:
        explainer.explain(images)
    assert "\n" not in str(raised.value)


def test_arrays_with_alpha_are_composited_onto_white(explainer: Explainer, make_image: MakeImage) -> None:
    pixels = np.asarray(make_image(16, 12))
    alpha = np.linspace(0, 255, 12 * 16).astype(np.uint8).reshape(12, 16, 1)
    white = (pixels * (alpha / 255) + 255 * (1 - alpha / 255)).round().astype(np.uint8)
    found, expected = (explainer.preprocess(each) for each in (np.dstack([pixels, alpha]), white))
    assert np.abs(found - expected).max() <= 1.01 / 255 / 0.224  # rounding by one level


def test_preprocessed_pixels_that_are_not_aligned(explainer: Explainer) -> None:
    images = explainer.preprocess(np.ones((2, 3, 12, 16), np.float32))
    unaligned = np.frombuffer(b"x" + images.tobytes(), np.float32, offset=1).reshape(images.shape)
    assert not unaligned.flags.aligned and np.array_equal(explainer.preprocess(unaligned), images)


def test_last_preprocessed_image_not_finite(explainer: Explainer) -> None:
    images = np.zeros((4, 3, 12, 16), np.float32)
    images[3, 2, 11, 15] = np.inf
    with pytest.raises(ImageError, match="preprocessed image 3 holds NaN or infinity"):
        explainer.explain(images)


def test_images_are_decoded_batch_by_batch(explainer: Explainer, make_image: MakeImage, tmp_path: Path) -> None:
    make_image().save(tmp_path / "a.png")
    loading = image_batch([tmp_path / "a.png", tmp_path / "b.png"], explainer.metadata)
    assert len(loading) == 2
    images, pixels = loading.load(0, 1, 1)
    assert len(images) == 1 and pixels.shape == (1, 3, 12, 16)
    with pytest.raises(ImageError, match=r"b\.png: cannot be read"):
        loading.load(1, 2, 1)


def test_original_is_decoded_again(explainer: Explainer, make_image: MakeImage) -> None:
    image = make_image()
    found = load_image(image, explainer.metadata)
    assert found.view.shape == (12, 16, 3)
    assert np.array_equal(found.original(), np.asarray(image))
    assert load_image(found, explainer.metadata) is found
    assert replace(found, name="y").name == "y"


# Fast decoding of JPEGs.


def jpeg(image: Image.Image, **options: Any) -> EncodedImage:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=90, **options)
    return EncodedImage("x.jpg", file.getvalue())


def smooth(width: int, height: int) -> Image.Image:
    """Return an image whose colours change over many pixels, as in most photographs."""
    coarse = np.random.default_rng(width).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)


def both(image: Any, metadata: Metadata) -> tuple[LoadedImage, LoadedImage]:
    exact, fast = load_image(image, metadata), load_image(image, metadata, fast=True)
    assert (fast.placement, fast.size, fast.view.shape) == (exact.placement, exact.size, exact.view.shape)
    return exact, fast


def how_different(exact: LoadedImage, fast: LoadedImage) -> tuple[int, float]:
    difference = np.abs(exact.view.astype(int) - fast.view)
    return int(difference.max()), float(difference.mean())


@pytest.mark.parametrize("size", [(640, 480), (1000, 700), (480, 641), (1999, 1333), (800, 90), (100, 80), (12, 9)])
@pytest.mark.parametrize("how", ["squash", "shorter-side", "shorter-side nearest", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_fast_decoding_changes_colours_little(size: tuple[int, int], how: str, channels: int) -> None:
    """Fast decoding averages 2x2, 4x4 or 8x8 pixels before resizing.

    Colours that change over many pixels differ by at most 29 of 255, as measured on photographs; hard edges may differ
    more.
    """
    mode, _, interpolation = how.partition(" ")
    length = 40 if mode == "shorter-side" else None
    preprocessing = Preprocessing(
        mode, length, interpolation or "bilinear", mean=(0.5,) * channels, std=(0.5,) * channels
    )
    metadata = Tiny(size=(36, 44), channels=channels, preprocessing=preprocessing).metadata()
    exact, fast = both(jpeg(smooth(*size)), metadata)
    most, mean = how_different(exact, fast)
    assert most <= 29 and mean < 4
    if channels == 3 and (mode == "none" or min(size) < 80):
        assert most == 0  # the image is too small to be reduced


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fast_decoding_of_every_orientation(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    metadata = Tiny(size=(36, 60), preprocessing=Preprocessing("shorter-side", 60)).metadata()
    exact, fast = both(jpeg(smooth(900, 500), exif=exif), metadata)
    most, mean = how_different(exact, fast)
    assert 0 < most <= 29 and mean < 2
    assert exact.size == ((900, 500) if orientation < 5 else (500, 900))
    # In another orientation, nearly every pixel would differ.
    others = [exact.view[::-1], exact.view[:, ::-1], exact.view[::-1, ::-1]]
    assert all(np.abs(other.astype(int) - fast.view).mean() > 10 for other in others)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_fast_decoding_reduces_rotated_images_equally(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = (800, 640) if orientation < 5 else (640, 800)
    content = jpeg(smooth(*stored), exif=exif).content
    decoded = decode_bytes(content, "RGB", "x", lambda whole: (whole[0] // 8, whole[1] // 2))
    assert decoded.size == (800, 640) and decoded.image.size == (400, 320)


def test_fast_decoding_never_enlarges() -> None:
    """The decoded image is at least as large as its final size, and has the aspect ratio of the whole image."""
    content = jpeg(smooth(1000, 700)).content
    for wanted in [(1000, 700), (999, 699), (501, 351), (500, 350), (300, 20), (20, 300), (125, 88), (30, 30), (1, 1)]:
        decoded = decode_bytes(content, "RGB", "x", lambda _, wanted=wanted: wanted)
        width, height = decoded.image.size
        assert decoded.size == (1000, 700) and width >= wanted[0] and height >= wanted[1]
        scale = next(scale for scale in (8, 4, 2, 1) if -(-1000 // scale) == width)
        assert height == -(-700 // scale)
        assert scale == max(s for s in (1, 2, 4, 8) if 1000 / s >= wanted[0] and 700 / s >= wanted[1]), wanted


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP", "TIFF", "MPO"])
def test_fast_decoding_is_for_jpegs(form: str) -> None:
    file = io.BytesIO()
    smooth(900, 500).save(file, form)
    exact, fast = both(EncodedImage("x.jpg", file.getvalue()), Tiny().metadata())
    assert form == "MPO" or np.array_equal(exact.view, fast.view)  # an MPO with a single image is a JPEG


def test_fast_decoding_is_off_by_default(tmp_path: Path, make_image: MakeImage) -> None:
    encoded = jpeg(make_image(800, 600))
    (tmp_path / "x.jpg").write_bytes(encoded.content)
    metadata = Tiny().metadata()
    with Image.open(tmp_path / "x.jpg") as image:
        expected = load_image(np.asarray(image), metadata).view
    for source in (encoded, tmp_path / "x.jpg"):
        assert np.array_equal(load_image(source, metadata).view, expected)
        assert not np.array_equal(load_image(source, metadata, fast=True).view, expected)
        # The whole image is decoded exactly in both cases.
        assert np.array_equal(
            load_image(source, metadata, fast=True).original(), load_image(source, metadata).original()
        )
    with Image.open(tmp_path / "x.jpg") as image:
        assert np.array_equal(load_image(image, metadata, fast=True).view, expected)
    assert np.array_equal(
        load_image(np.asarray(make_image(800, 600)), metadata, fast=True).view,
        load_image(make_image(800, 600), metadata).view,
    )
