"""The tiny model with an 8-bit backbone, made by onnxruntime's own tool instead of `seewhy quantize`."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper
from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_static

from seewhy.contract import checksum
from seewhy.contract import constants as contract
from seewhy.runtime.graph_pruning import prune
from support.quantization import QUANTIZATION
from support.tiny_model import Tiny

BACKBONE = ("c1", "a1", "p1", "c2", "activations")
"""Names of the nodes that run in 8 bits."""
OUTPUTS = (contract.LOGITS, contract.ACTIVATIONS, contract.GRADIENTS, contract.CLASS_WEIGHTS)


def quantized_tiny(folder: Path, tiny: Tiny | None = None) -> Path:
    """Write `tiny.onnx`, a float32 file, and `tiny.int8.onnx`, and return the path of the second.

    Args:
        folder: Folder of both files.
        tiny: Configuration of the float32 file.

    Returns:
        Path of the quantised file.
    """
    tiny = tiny or Tiny()
    float32 = tiny.save(folder / "tiny.onnx")
    plain = folder / "plain.onnx"
    onnx.save(prune(tiny.proto(), OUTPUTS), plain)
    path = folder / "tiny.int8.onnx"
    logging.getLogger().addFilter(_no_advice)
    quantize_static(
        plain,
        path,
        _Calibration(tiny),
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
        nodes_to_quantize=list(BACKBONE),
    )
    logging.getLogger().removeFilter(_no_advice)
    model = onnx.load(path)
    origin = {"float32_file": float32.name, "float32_sha256": hashlib.sha256(float32.read_bytes()).hexdigest()}
    metadata = replace(tiny.metadata(), quantization=replace(QUANTIZATION, **origin), parity={}, parameters=None)
    helper.set_model_props(model, {**metadata.to_properties(), contract.DIGEST_KEY: contract.DIGEST_PLACEHOLDER})
    # onnxruntime's tool adds its own domain, which no node uses.
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", contract.OPSET))
    path.write_bytes(checksum.seal(model.SerializeToString()))
    plain.unlink()
    return path


def bright_pixels(tiny: Tiny, images: int = 8) -> NDArray[np.float32]:
    """Return preprocessed pixels, most of them large, so that sums of two 8-bit products exceed 16 bits."""
    random = np.random.default_rng(3)
    return random.uniform(0.2, 2, (images, tiny.channels, *tiny.size)).astype(np.float32)


def _no_advice(record: logging.LogRecord) -> bool:
    """Return False for onnxruntime's advice to preprocess the graph first."""
    return "pre-processing" not in record.getMessage()


class _Calibration(CalibrationDataReader):  # type: ignore[misc]
    """A single batch of bright images."""

    def __init__(self, tiny: Tiny) -> None:
        self._batches = iter([{contract.IMAGES: bright_pixels(tiny), contract.TARGETS: np.full(8, -1)}])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)
