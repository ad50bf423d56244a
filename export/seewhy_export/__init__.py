"""Export of PyTorch image classifiers to ONNX files that also explain their decisions.

`export` writes a model file and returns an `ExportReport`. A function that `seewhy export package.module:factory`
calls may return a `Source`.
"""

from seewhy_export.exporter import ExportReport, export
from seewhy_export.sources.registry import Source

__all__ = ["ExportReport", "Source", "export"]
