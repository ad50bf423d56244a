"""SeeWhy: explain an image classifier's decisions with onnxruntime alone.

explainer = seewhy.Explainer("model.onnx")
result = explainer.explain("photo.jpg", method="gradcam")
result.overlays()[0].save("overlay.png")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import (
    ExportError,
    ImageError,
    MethodError,
    MissingExtraError,
    ModelFileError,
    OutputError,
    ProviderError,
    SeewhyError,
    TargetError,
)

if TYPE_CHECKING:
    from .explainer import Explainer
    from .explanation import Explanation

__version__ = "0.1.0"

__all__ = [
    "Explainer",
    "Explanation",
    "ExportError",
    "ImageError",
    "MethodError",
    "MissingExtraError",
    "ModelFileError",
    "OutputError",
    "ProviderError",
    "SeewhyError",
    "TargetError",
    "__version__",
]


def __getattr__(name: str) -> Any:
    # The exporter and `seewhy --help` need neither onnxruntime nor Pillow, which take a while to import.
    if name in ("Explainer", "Explanation"):
        from . import explainer

        return getattr(explainer, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
