"""Exact products of 8-bit integers on CPUs whose fast instruction saturates.

Without VNNI, onnxruntime multiplies uint8 by int8 on x86-64 with `vpmaddubsw`, which adds two products in 16 bits and
saturates. The logits of a quantised EfficientNet-Lite0 were off by 68 %. With the session option
`session.x64quantprecision`, onnxruntime converts the weights to uint8 and uses kernels that add in 32 bits. The results
then have the same bits as with VNNI, where the option would only cost time.
`docs/decisions/exact-products-without-vnni.md` compares the alternatives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seewhy._core import cpu_features
from seewhy.runtime.onnx_messages import GraphProto

if TYPE_CHECKING:
    import onnxruntime

_OPTION = "session.x64quantprecision"
# A CPU with one of these adds the products in 32 bits, and onnxruntime uses it.
_EXACT = frozenset({"avx512_vnni", "avx_vnni", "amx_int8"})


def products_saturate() -> bool:
    """Return True if onnxruntime's products of uint8 and int8 saturate on this CPU."""
    features = cpu_features() or ()
    return "sse2" in features and _EXACT.isdisjoint(features)


def make_products_exact(options: onnxruntime.SessionOptions, graph: GraphProto) -> None:
    """Set the option for exact products, if the graph has 8-bit layers and this CPU needs the option.

    Args:
        options: Options of the session, which are changed in place.
        graph: Graph of the session.
    """
    if products_saturate() and any(node.op_type == "QuantizeLinear" for node in graph.node):
        options.add_session_config_entry(_OPTION, "1")
