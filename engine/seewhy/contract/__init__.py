"""The file contract between exporter and engine, written with the standard library only."""

from seewhy.contract.metadata import Layer, Metadata, ModelInfo, Preprocessing, Rectifiers

__all__ = ["Layer", "Metadata", "ModelInfo", "Preprocessing", "Rectifiers"]
