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
    MetricError,
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
    from seewhy.evaluation.evaluate import evaluate
    from seewhy.evaluation.result import EvaluationResult
    from seewhy.explainer.explainer import Explainer
    from seewhy.explainer.explanation import Explanation
    from seewhy.explainer.model_cutting import cut
    from seewhy.explainer.prediction import Prediction
    from seewhy.methods.base import RuleContext
    from seewhy.methods.method import Method
    from seewhy.methods.options import Option
    from seewhy.methods.plugins import load_plugin
    from seewhy.methods.registry import list_methods, register_method
    from seewhy.metrics.base import Measured, NotMeasurable
    from seewhy.metrics.metric import Metric
    from seewhy.metrics.registry import list_metrics, register_metric
    from seewhy.quantization.quantize import quantize
    from seewhy.visualization.drawing_options import list_colormaps

__all__ = [
    "ArgumentError",
    "ClusterError",
    "EvaluationResult",
    "Explainer",
    "Explanation",
    "ExportArgumentError",
    "ExportError",
    "ImageError",
    "JobSummary",
    "Measured",
    "Method",
    "MethodError",
    "Metric",
    "MetricError",
    "MissingExtraError",
    "ModelFileError",
    "NonFiniteError",
    "NotMeasurable",
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
    "evaluate",
    "explain_folder",
    "list_colormaps",
    "list_methods",
    "list_metrics",
    "load_plugin",
    "quantize",
    "register_method",
    "register_metric",
]

# `seewhy --help` needs neither onnxruntime nor Pillow, which take a while to import.
__getattr__ = lazy_names(
    __name__,
    {
        "EvaluationResult": "seewhy.evaluation.result",
        "Explainer": "seewhy.explainer.explainer",
        "Explanation": "seewhy.explainer.explanation",
        "JobSummary": "seewhy.bulk.folder_job",
        "Measured": "seewhy.metrics.base",
        "Method": "seewhy.methods.method",
        "Metric": "seewhy.metrics.metric",
        "NotMeasurable": "seewhy.metrics.base",
        "Option": "seewhy.methods.options",
        "Prediction": "seewhy.explainer.prediction",
        "Preprocessing": "seewhy.contract.metadata",
        "RuleContext": "seewhy.methods.base",
        "Settings": "seewhy.bulk.settings",
        "cut": "seewhy.explainer.model_cutting",
        "evaluate": "seewhy.evaluation.evaluate",
        "explain_folder": "seewhy.bulk.explain_folder",
        "list_colormaps": "seewhy.visualization.drawing_options",
        "list_methods": "seewhy.methods.registry",
        "list_metrics": "seewhy.metrics.registry",
        "load_plugin": "seewhy.methods.plugins",
        "quantize": "seewhy.quantization.quantize",
        "register_method": "seewhy.methods.registry",
        "register_metric": "seewhy.metrics.registry",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
