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
    ExportArgumentError,
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
    from seewhy.contract.metadata import Preprocessing
    from seewhy.explainer.explainer import Explainer
    from seewhy.explainer.explanation import Explanation
    from seewhy.explainer.model_cutting import cut
    from seewhy.explainer.prediction import Prediction
    from seewhy.methods.base import RuleContext
    from seewhy.methods.method import Method
    from seewhy.methods.options import Option
    from seewhy.methods.plugins import load_plugin
    from seewhy.methods.registry import list_methods, register_method
    from seewhy.visualization.drawing_options import list_colormaps

__all__ = [
    "ArgumentError",
    "ClusterError",
    "Explainer",
    "Explanation",
    "ExportArgumentError",
    "ExportError",
    "ImageError",
    "JobSummary",
    "Method",
    "MethodError",
    "MissingExtraError",
    "ModelFileError",
    "NonFiniteError",
    "Option",
    "OutputError",
    "Prediction",
    "Preprocessing",
    "ProviderError",
    "RuleContext",
    "SeewhyError",
    "Settings",
    "TargetError",
    "__version__",
    "cut",
    "explain_folder",
    "list_colormaps",
    "list_methods",
    "load_plugin",
    "register_method",
]

# `seewhy --help` needs neither onnxruntime nor Pillow, which take a while to import.
__getattr__ = lazy_names(
    __name__,
    {
        "Explainer": "seewhy.explainer.explainer",
        "Explanation": "seewhy.explainer.explanation",
        "JobSummary": "seewhy.bulk.folder_job",
        "Method": "seewhy.methods.method",
        "Option": "seewhy.methods.options",
        "Prediction": "seewhy.explainer.prediction",
        "Preprocessing": "seewhy.contract.metadata",
        "RuleContext": "seewhy.methods.base",
        "Settings": "seewhy.bulk.settings",
        "cut": "seewhy.explainer.model_cutting",
        "explain_folder": "seewhy.bulk.explain_folder",
        "list_colormaps": "seewhy.visualization.drawing_options",
        "list_methods": "seewhy.methods.registry",
        "load_plugin": "seewhy.methods.plugins",
        "register_method": "seewhy.methods.registry",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
