"""Export a PyTorch image classifier so that its ONNX file also explains itself."""

from .exporter import ExportReport, export
from .sources import Source

__all__ = ["ExportReport", "Source", "export"]
