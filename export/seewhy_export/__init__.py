"""Export a PyTorch image classifier so that its ONNX file also explains itself."""

from seewhy_export.exporter import ExportReport, export
from seewhy_export.sources.registry import Source

__all__ = ["ExportReport", "Source", "export"]
