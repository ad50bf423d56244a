"""SeeWhy: explain an image classifier's decisions with onnxruntime alone.

explainer = seewhy.Explainer("model.onnx")
result = explainer.explain("photo.jpg", method="gradcam")
result.overlays()[0].save("overlay.png")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seewhy._shared.lazy_names import lazy_names
from seewhy._version import __version__
from seewhy.errors import (
    ArgumentError,
    ClusterError,
    ExportError,
    ImageError,
    MethodError,
    MissingExtraError,
    ModelFileError,
    NonFiniteError,
    OutputError,
    ProviderError,
    SeewhyError,
    TargetError,
)

if TYPE_CHECKING:
    from seewhy.bulk.explain_folder import explain_folder
    from seewhy.bulk.folder_job import JobSummary
    from seewhy.bulk.settings import Settings
    from seewhy.explainer.explainer import Explainer
    from seewhy.explainer.explanation import Explanation
    from seewhy.visualization.drawing_options import list_colormaps

__all__ = [
    "ArgumentError",
    "ClusterError",
    "Explainer",
    "Explanation",
    "ExportError",
    "ImageError",
    "JobSummary",
    "MethodError",
    "MissingExtraError",
    "ModelFileError",
    "NonFiniteError",
    "OutputError",
    "ProviderError",
    "SeewhyError",
    "Settings",
    "TargetError",
    "__version__",
    "explain_folder",
    "list_colormaps",
]

# `seewhy --help` needs neither onnxruntime nor Pillow, which take a while to import.
__getattr__ = lazy_names(
    __name__,
    {
        "Explainer": "seewhy.explainer.explainer",
        "Explanation": "seewhy.explainer.explanation",
        "Settings": "seewhy.bulk.settings",
        "JobSummary": "seewhy.bulk.folder_job",
        "explain_folder": "seewhy.bulk.explain_folder",
        "list_colormaps": "seewhy.visualization.drawing_options",
    },
)
