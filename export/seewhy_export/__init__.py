"""Export of PyTorch image classifiers to ONNX files that also explain their decisions.

`export` writes a model file and returns an `ExportReport`. `list_layers` lists the layers that it can explain. A
function that `seewhy export package.module:factory` calls may return a `Source`, and a `Preprocessing` describes what
happens to images before the network.
"""

from seewhy.contract.metadata import Preprocessing
from seewhy_export.exporter import ExportReport, export
from seewhy_export.sources.registry import Source
from seewhy_export.sources.torchvision_import import define_missing_operators
from seewhy_export.target_layer.listing import LayerInfo, list_layers

define_missing_operators()

__all__ = ["ExportReport", "LayerInfo", "Preprocessing", "Source", "export", "list_layers"]
