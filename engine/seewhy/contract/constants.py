"""Constants of the file contract: names of graph values, versions, limits, and the choices that metadata may name."""

from __future__ import annotations

from typing import TypeAlias

SCHEMA = 1
OPSET = 20
IR_VERSION = 10

IMAGES = "images"
TARGETS = "targets"
LOGITS = "logits"
ACTIVATIONS = "activations"
GRADIENTS = "gradients"
INPUT_GRADIENTS = "input_gradients"
GUIDED_GRADIENTS = "guided_gradients"
CLASS_WEIGHTS = "class_weights"
DECONVNET_GRADIENTS = "deconvnet_gradients"
GRADCAM_MAP = "gradcam_map"

INPUTS = (IMAGES, TARGETS)
OUTPUTS = (
    LOGITS,
    ACTIVATIONS,
    GRADIENTS,
    INPUT_GRADIENTS,
    GUIDED_GRADIENTS,
    CLASS_WEIGHTS,
    DECONVNET_GRADIENTS,
    GRADCAM_MAP,
)
OPTIONAL_OUTPUTS = (DECONVNET_GRADIENTS, GRADCAM_MAP)

PREDICTED = -1
"""The value of `targets` that asks for the class that the model predicts."""

EXTERNAL_DATA_THRESHOLD = int(1.8 * 2**30)
"""Bytes of weights beyond which they go to the sibling file `NAME.onnx.data` (protobuf stops at 2 GiB)."""

KEY_PREFIX = "seewhy."
DIGEST_KEY = "seewhy.sha256"
"""SHA-256 over every byte of the file, with the 64 digits of this value themselves read as zeros."""
DIGEST_PLACEHOLDER = "0" * 64

RESIZE_MODES = ("shorter-side", "squash", "none")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
CHANNEL_ORDERS = ("RGB", "BGR")
SCORES = ("softmax", "sigmoid", "none")
LAYER_FORMS = ("map", "channels-last", "tokens")

MAX_PIXELS = 178_956_970
"""Pixels beyond which a picture is refused as a decompression bomb: where Pillow draws its own line."""
LONGEST_TEXT = 8192
"""Length of the longest name, label or other string in bytes of UTF-8; no path of Linux is longer than 4096."""

Shape: TypeAlias = "tuple[int | str, ...]"
