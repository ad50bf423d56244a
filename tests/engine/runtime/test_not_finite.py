"""Tests of results that hold NaN or infinity: the error names the output or the method, and the image."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from seewhy import Explainer, NonFiniteError
from seewhy.methods.registry import METHODS
from support.references.methods import Reference
from support.session_calls import Feeds, Run, replace_runs
from support.tiny_model import Tiny
from support.tiny_model_files import pixels, write

FEW = {"smoothgrad": {"samples": 7}, "integrated-gradients": {"steps": 5}}


@pytest.mark.parametrize("name", ["conv1.weight", "conv2.bias", "fc.weight", "fc.bias"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_an_error(tmp_path: Path, name: str, value: float) -> None:
    weights = Tiny().weights()
    weights[name].flat[0] = value
    explainer = Explainer(write(tmp_path / "broken.onnx", Tiny().proto(weights)))
    for method in METHODS:
        with pytest.raises(NonFiniteError, match=r"broken\.onnx: \w+ of image 0 holds NaN or infinity") as raised:
            explainer.explain(pixels(2), method=method, target=0)
        assert "\n" not in str(raised.value)


def test_the_image_that_overflows_is_named(explainer: Explainer) -> None:
    images = pixels(5)
    images[3] *= np.float32(1e38)
    for batch_size in (1, 2, 32):
        with pytest.raises(NonFiniteError, match=r"logits of image 3 holds NaN or infinity"):
            explainer.explain(images, target=[[0, 1]] * 5, batch_size=batch_size)


def nearest(feeds: Feeds, known: dict[str, np.ndarray]) -> np.ndarray:
    """Return the image that each row is changed from: the one with the smallest angle to it."""
    name = next(name for name in known if name in feeds)
    rows, images = (value.reshape(len(value), -1) for value in (feeds[name], known[name]))
    return np.argmax(rows @ images.T / np.linalg.norm(images, axis=1), axis=1)


@pytest.mark.parametrize("batch_size", [1, 2, 1000])
@pytest.mark.parametrize("method", ["gradcam", "backprop", *(name for name in METHODS if METHODS[name].multi_pass)])
def test_the_image_of_a_later_run_is_named(
    tmp_path: Path, method: str, batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The plain run is finite; in later runs, the rows that belong to image 2 are not."""
    tiny, images = Tiny(), pixels(3)
    explainer = Explainer(tiny.save(tmp_path / "m.onnx"))
    known = {
        "images": images,
        "activations": np.array([Reference(tiny).forward(image).activations for image in images]),
    }
    plain_run_done = False

    def spoiled(run: Run, outputs: frozenset[str], feeds: Feeds) -> dict[str, Any]:
        nonlocal plain_run_done
        values = run(outputs, feeds)
        if plain_run_done:
            for value in values.values():
                value[nearest(feeds, known) == 2] = np.nan
        plain_run_done |= "images" in feeds and np.array_equal(feeds["images"][-1], images[2])
        return values

    replace_runs(monkeypatch, spoiled)
    with pytest.raises(NonFiniteError, match=r"m\.onnx: \w+ of image 2 holds NaN or infinity"):
        explainer.explain(images, method=method, top=2, batch_size=batch_size, options={method: FEW.get(method, {})})


def test_large_but_finite_numbers_are_fine(explainer: Explainer) -> None:
    """Sums of such values overflow, but each value is finite."""
    images = pixels(2) * np.float32(1e36)
    result = explainer.explain(images, method="gradcam", target=0)
    assert np.isfinite(result.logits).all() and np.abs(result.logits).max() > 1e34
    assert np.isfinite(result.heatmaps).all()


def overflowing(path: Path, sign: int) -> Explainer:
    """Return a model whose products of activations (5e20) and gradients (5e17) sum to sign * 5e38, beyond float32."""
    tiny = Tiny()
    weights = {name: np.zeros_like(value) for name, value in tiny.weights().items()}
    weights["conv1.weight"][0, 0, 1, 1] = 1
    weights["conv2.weight"][[0, 2], 0, 1, 1] = 480
    weights["conv2.bias"][[1, 3]] = 1e19
    weights["fc.weight"][0, :4] = np.array([1, -1, 1, -1]) * sign * 2.5e19
    return Explainer(write(path, tiny.proto(weights)))


BRIGHT = np.zeros((1, 3, 12, 16), np.float32)
BRIGHT[0, 0, 4, 4] = 1e18


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("method", ["cam", "gradcam", "hirescam", "xgradcam", "guided-gradcam"])
def test_a_map_that_overflows(tmp_path: Path, method: str, sign: int) -> None:
    """Both signs are errors. After a ReLU, -infinity would look like a position without evidence."""
    explainer = overflowing(tmp_path / "m.onnx", sign)
    assert np.isfinite(explainer.explain(BRIGHT, method="eigencam", target=0).logits).all()
    with pytest.raises(
        NonFiniteError, match=f"^{method}: the result holds NaN or infinity, because values overflow float32"
    ):
        explainer.explain(BRIGHT, method=method, target=0)


@pytest.mark.parametrize("method", ["inputxgradient", "integrated-gradients"])
def test_a_product_that_overflows(tmp_path: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error comes without a warning of NumPy, which pytest would raise as an error."""
    explainer = Explainer(Tiny().save(tmp_path / "m.onnx"))

    def steep(run: Run, outputs: frozenset[str], feeds: Feeds) -> dict[str, Any]:
        return {n: np.full_like(v, 3e38) if n == "input_gradients" else v for n, v in run(outputs, feeds).items()}

    replace_runs(monkeypatch, steep)
    options = {method: FEW.get(method, {})}
    with pytest.raises(
        NonFiniteError, match=f"^{method}: the result holds NaN or infinity, because values overflow float32"
    ):
        explainer.explain(pixels() * 10, method=method, target=0, options=options)
