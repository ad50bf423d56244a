"""Interfaces of PyTorch that are private, undocumented or marked as unstable.

No other module of the exporter may use such an interface, and a test checks this. A new version of PyTorch that changes
one of them is handled here. Each entry names the versions of PyTorch in which it is known to work.

Names of ATen operators that start with an underscore, such as `aten._softmax`, do not belong here: they are data that
a traced graph contains.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch._decomp import core_aten_decompositions, decomposition_table
from torch._dispatch.python import enable_python_dispatcher
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import ExportedProgram
from torch.fx import Graph, GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.graph import CodeGen
from torch.fx.traceback import get_current_meta, preserve_node_meta
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "FAKE_TENSOR_LOGGER",
    "GRAD_MODE_BLOCK",
    "LOGGERS",
    "DecomposedProgram",
    "FakeTensorMode",
    "OpOverload",
    "TorchDispatchMode",
    "convert_torchscript",
    "core_aten_decompositions",
    "fake_mode_of",
    "flatten_calling_convention",
    "forget_compiled_call",
    "is_composite",
    "multiple_of_size",
    "operator_without_translation",
    "overload_name",
    "pytree",
    "record_module_stack",
    "registered_decomposition",
    "schema_of",
    "skip_type_promotion",
    "symbol_ranges",
    "symbolic_batch_size",
    "trace_graph",
    "tracing_with_module_stacks",
    "unwrap_module",
]

# Re-exports. FakeTensorMode runs operators on shapes alone; OpOverload is the type of an ATen operator in a graph;
# TorchDispatchMode intercepts every operator; pytree lists and maps the tensors in nested containers;
# core_aten_decompositions returns PyTorch's own table of decompositions. Known to work: 2.13, 2.14.

LOGGERS = ("torch.fx", "torch.export", "torch._export", "torch._dynamo")
"""Loggers that address PyTorch's developers. Known to work: 2.13, 2.14."""

FAKE_TENSOR_LOGGER = "torch._subclasses.fake_tensor"
"""Logger that prints a traceback for each operator that fails on fake tensors. Known to work: 2.13, 2.14."""

GRAD_MODE_BLOCK: Any = torch.ops.higher_order.wrap_with_set_grad_enabled
"""Operator that holds the body of a `torch.no_grad()` block in a traced graph. Known to work: 2.13, 2.14."""


# Operators


def schema_of(operator: Any) -> Any:
    """Return an operator's schema: its arguments, results and what it writes to. Known to work: 2.13, 2.14."""
    return operator._schema


def overload_name(operator: Any) -> str:
    """Return the overload part of an operator's name, such as `Tensor`. Known to work: 2.13, 2.14."""
    return str(operator._overloadname)


def is_composite(operator: Any) -> bool:
    """Tell whether an operator is implemented by other operators. Known to work: 2.13, 2.14."""
    return torch._C._dispatch_has_kernel_for_dispatch_key(operator.name(), "CompositeImplicitAutograd")


def registered_decomposition(operator: Any) -> Callable[..., Any]:
    """Return PyTorch's own decomposition of an operator. Known to work: 2.13, 2.14."""
    return decomposition_table[operator]


# Fake tensors and symbolic sizes


def fake_mode_of(value: Any) -> FakeTensorMode:
    """Return the mode that a fake tensor belongs to. Known to work: 2.13, 2.14."""
    mode: FakeTensorMode = value.fake_mode
    return mode


def symbol_ranges(value: Any) -> dict[Any, Any]:
    """Return the value ranges of all symbolic sizes around a fake tensor. Known to work: 2.13, 2.14."""
    return dict(value.fake_mode.shape_env.var_to_range)


def multiple_of_size(size: Any, unit: Any) -> int | None:
    """Return n if a symbolic size is n times another one, else None. Known to work: 2.13, 2.14."""
    quotient = size.node.expr / unit.node.expr
    return int(quotient) if quotient.is_Integer else None


def symbolic_batch_size() -> AbstractContextManager[Any]:
    """Keep sizes symbolic where a C++ kernel would make them constant, as pad's does. Known to work: 2.13, 2.14."""
    return enable_python_dispatcher()


# Traces


def trace_graph(
    function: Callable[..., Any], arguments: Sequence[Any], decompositions: dict[Any, Callable[..., Any]]
) -> GraphModule:
    """Trace a function of fake tensors, autograd included, into ATen operators. Known to work: 2.13, 2.14."""
    # Constants that the function creates are real tensors.
    return make_fx(function, decomposition_table=decompositions, _allow_non_fake_inputs=True)(*arguments)


def tracing_with_module_stacks() -> AbstractContextManager[None]:
    """Copy the stack of `record_module_stack` to every node that is traced. Known to work: 2.13, 2.14."""
    return preserve_node_meta()


def record_module_stack(stack: Any) -> None:
    """Set the `nn_module_stack` of the nodes that are traced next. Known to work: 2.13, 2.14."""
    get_current_meta()["nn_module_stack"] = stack


def flatten_calling_convention(graph: Graph) -> None:
    """Make a traced graph take its placeholders one by one, not in nested lists. Known to work: 2.13, 2.14."""
    graph.set_codegen(CodeGen())


# The user's modules


_WRAPPERS = {"OptimizedModule": "_orig_mod", "DataParallel": "module", "DistributedDataParallel": "module"}


def unwrap_module(module: nn.Module) -> nn.Module:
    """Return the module inside wrappers of torch.compile and data parallelism. Known to work: 2.13, 2.14."""
    while type(module).__name__ in _WRAPPERS and type(module).__module__.startswith("torch."):
        module = getattr(module, _WRAPPERS[type(module).__name__])
    return module


def forget_compiled_call(module: nn.Module) -> None:
    """Undo `nn.Module.compile()`, which compiles a module's call in place. Known to work: 2.13, 2.14."""
    module._compiled_call_impl = None


def convert_torchscript(module: torch.jit.ScriptModule, example: Tensor) -> nn.Module:
    """Convert a TorchScript module to one that torch.export accepts. Known to work: 2.13, 2.14."""
    # This is the only way from TorchScript that PyTorch still has; torch.export's own error message names it.
    from torch._export.converter import TS2EPConverter

    converted: nn.Module = TS2EPConverter(module, (example,)).convert().module()
    return converted


# torch.onnx


class DecomposedProgram(ExportedProgram):
    """A program that torch.onnx converts without tracing it once more to decompose it. Known to work: 2.13, 2.14."""

    def run_decompositions(self, *args: Any, **kwargs: Any) -> ExportedProgram:
        """Return the program itself."""
        return self


class _GraphWithoutModules(GraphModule):
    """A graph that lists no modules: torch.onnx promotes dtypes module by module, and so skips that pass."""

    def modules(self, remove_duplicate: bool = True) -> Iterator[nn.Module]:
        return iter(())


def skip_type_promotion(program: ExportedProgram) -> None:
    """Make torch.onnx skip the pass that gives operands equal dtypes. Known to work: 2.13, 2.14."""
    program._graph_module = _GraphWithoutModules(nn.Module(), program.graph)


_OPERATOR = re.compile(r"OpOverload\(op='([\w.:]+)', overload='(\w+)'\)")


def operator_without_translation(message: str) -> str | None:
    """Return the operator that an error of torch.onnx names, such as `aten.sort.stable`. Known to work: 2.13, 2.14."""
    found = _OPERATOR.search(message)
    return None if found is None else ".".join(found.groups())
