"""Constants of the file contract: names of graph values, versions, limits, and the allowed values of metadata."""

from __future__ import annotations

from typing import TypeAlias

SCHEMA = 3
"""Newest version of the file format. A file states the oldest version that can describe it."""
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
GRADIENTS_OF_THE_IMAGE = frozenset({INPUT_GRADIENTS, GUIDED_GRADIENTS, DECONVNET_GRADIENTS})
"""Outputs that need a backward pass through the whole network. Quantised files hold none of them."""

PREDICTED = -1
"""Value of `targets` that stands for the class that the model predicts."""

EXTERNAL_DATA_THRESHOLD = int(1.8 * 2**30)
"""Largest size of the weights in the model file, in bytes.

Larger weights go to the file `NAME.onnx.data` beside it, because protobuf allows at most 2 GiB.
"""

SMALLEST_EXTERNAL_TENSOR = 1024
"""Smallest size of a tensor in that file, in bytes. Shapes stay in the model file: its graph is checked without it."""

KEY_PREFIX = "seewhy."
DIGEST_KEY = "seewhy.sha256"
"""Metadata key of the SHA-256 of all bytes of the file, with the 64 digits of this value replaced by zeros."""
DIGEST_PLACEHOLDER = "0" * 64

RESIZE_MODES = ("shorter-side", "squash", "none")
INTERPOLATIONS = ("nearest", "box", "bilinear", "hamming", "bicubic", "lanczos")
CHANNEL_ORDERS = ("RGB", "BGR")
CROP_ROUNDINGS = ("half-even", "down")
SCORES = ("softmax", "sigmoid", "none")
LAYER_FORMS = ("map", "channels-last", "tokens")

MAX_PIXELS = 178_956_970
"""Maximum number of pixels of an image. Larger images are refused as decompression bombs, as Pillow does."""
LONGEST_TEXT = 8192
"""Maximum length of a name, label or other string, in bytes of UTF-8. Paths on Linux have at most 4096 bytes."""

Shape: TypeAlias = "tuple[int | str, ...]"
"""Shape of a graph value. A letter stands for a length that the file does not fix."""
