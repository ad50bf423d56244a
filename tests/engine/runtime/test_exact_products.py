"""Tests of `seewhy.runtime.exact_products`: quantised files give the same results with and without VNNI."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from seewhy import Explainer
from seewhy.runtime import exact_products
from seewhy.runtime.exact_products import products_saturate
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.sessions import SessionCache
from support.hidden_instructions import needs_valgrind, without_avx512
from support.quantized_tiny import bright_pixels, quantized_tiny
from support.tiny_model import Tiny

OPTION = "session.x64quantprecision"


@pytest.mark.parametrize(
    ("features", "saturates"),
    [
        (("sse2",), True),
        (("sse2", "avx2"), True),
        (("sse2", "avx2", "avx512f"), True),
        (("sse2", "avx2", "avx512f", "avx512_vnni"), False),
        (("sse2", "avx2", "avx_vnni"), False),
        (("sse2", "avx2", "amx_int8"), False),
        (("neon",), False),
        (("neon", "dotprod"), False),
        (None, False),
    ],
)
def test_products_saturate_on_x86_without_vnni(
    features: tuple[str, ...] | None, saturates: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact_products, "cpu_features", lambda: features)
    assert products_saturate() == saturates


def has_option(path: Path, outputs: frozenset[str]) -> bool:
    """Return True if the engine sets the option for a session that computes these outputs."""
    found: list[bool] = []

    def record(options: onnxruntime.SessionOptions) -> None:
        try:
            found.append(options.get_session_config_entry(OPTION) == "1")
        except RuntimeError:  # onnxruntime raises it for an entry that is not set
            found.append(False)

    SessionCache(ModelFile.read(path, verify=True), ["cpu"], 1).create_session(outputs, record)
    (result,) = found
    return result


@pytest.mark.parametrize("vnni", [False, True])
def test_the_option_is_set_for_quantised_graphs_without_vnni(
    tmp_path: Path, vnni: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = quantized_tiny(tmp_path)
    features = ("sse2", "avx2", "avx_vnni") if vnni else ("sse2", "avx2")
    monkeypatch.setattr(exact_products, "cpu_features", lambda: features)
    outputs = frozenset({"logits", "activations"})
    assert has_option(path, outputs) != vnni
    assert not has_option(tmp_path / "tiny.onnx", outputs)


PROGRAM = """
import sys
import numpy as np
import onnxruntime
from seewhy import Explainer
model, pixels, result = sys.argv[1:]
images = np.load(pixels)
explanation = Explainer(model, providers=["cpu"], threads=1).explain(images)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
(saturated,) = session.run(["logits"], {"images": images, "targets": np.full(len(images), -1)})
np.savez(result, maps=explanation.maps, logits=explanation.logits, saturated=saturated)
"""


@pytest.mark.slow
@needs_valgrind
def test_maps_are_the_same_without_vnni(tmp_path: Path) -> None:
    path = quantized_tiny(tmp_path)
    images = bright_pixels(Tiny())
    np.save(tmp_path / "pixels.npy", images)
    without_avx512(PROGRAM, path, tmp_path / "pixels.npy", tmp_path / "result.npz")
    found = np.load(tmp_path / "result.npz")
    float32 = Explainer(tmp_path / "tiny.onnx", ["cpu"]).explain(images)
    native = Explainer(path, ["cpu"]).explain(images)

    # The integers are equal. One activation may be rounded to the next integer, because the products of scales are
    # computed in float32 by other instructions: half a percent of the largest value.
    for name, expected in (("maps", native.maps), ("logits", native.logits)):
        assert expected is not None
        np.testing.assert_allclose(found[name], expected, atol=0.005 * np.abs(expected).max())
    # Without the option, onnxruntime saturates on this network, so the test can fail.
    errors = [np.abs(one - float32.logits).max() for one in (found["saturated"], found["logits"])]
    assert errors[0] > 3 * errors[1]


@pytest.mark.slow
@needs_valgrind
def test_hidden_features_are_not_listed() -> None:
    printed = without_avx512("from seewhy import _core; print(*_core.cpu_features())")
    assert printed.split() == ["sse2", "avx2"]
