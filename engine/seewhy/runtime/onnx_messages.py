"""ONNX's protobuf messages, without the rest of the `onnx` package.

`import onnx` also loads checkers, the operator schemas and converters: on one machine 14 MiB and 100 ms, in a process
whose other imports take 50 MiB. Explaining an image needs only the message classes, which protobuf generates into one
module of that package. This file loads the module alone. A later `import onnx` finds it and uses the same classes.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto
else:

    def _load():
        name = "onnx.onnx_ml_pb2"
        if name not in sys.modules:
            package = importlib.util.find_spec("onnx")
            if package is None or package.origin is None:
                raise ModuleNotFoundError("No module named 'onnx'", name="onnx")
            spec = importlib.util.spec_from_file_location(name, Path(package.origin).with_name("onnx_ml_pb2.py"))
            module = sys.modules[name] = importlib.util.module_from_spec(spec)
            try:
                spec.loader.exec_module(module)
            except BaseException:
                del sys.modules[name]
                raise
        return sys.modules[name]

    _messages = _load()
    AttributeProto, GraphProto, ModelProto = _messages.AttributeProto, _messages.GraphProto, _messages.ModelProto
    NodeProto, TensorProto, ValueInfoProto = _messages.NodeProto, _messages.TensorProto, _messages.ValueInfoProto

__all__ = ["AttributeProto", "GraphProto", "ModelProto", "NodeProto", "TensorProto", "ValueInfoProto"]
