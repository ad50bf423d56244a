"""The file contract between exporter and engine. This package uses the standard library alone."""

from seewhy.contract.metadata import Layer, Metadata, ModelInfo, Preprocessing, Rectifiers

__all__ = ["Layer", "Metadata", "ModelInfo", "Preprocessing", "Rectifiers"]
