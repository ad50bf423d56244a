"""A joint graph as an ONNX model in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import onnx_ir
import torch
from onnx_ir.passes import PassManager
from onnx_ir.passes import common as passes
from onnxscript import opset20
from onnxscript.optimizer import fold_constants
from torch.export import ExportedProgram
from torch.export.exported_program import ModuleCallEntry, ModuleCallSignature
from torch.export.graph_signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    OutputKind,
    OutputSpec,
    TensorArgument,
)
from torch.fx import Graph, Node

from seewhy.contract import constants as contract
from seewhy.errors import ExportError
from seewhy_export._shared.messages import one_line, quiet, some
from seewhy_export._shared.torch_internals import (
    DecomposedProgram,
    operator_without_translation,
    pytree,
    skip_type_promotion,
    symbol_ranges,
)
from seewhy_export.backward.joint_graph import JointGraph
from seewhy_export.capture.node_origins import describe_node
from seewhy_export.lowering.onnx_masks import TRANSLATIONS

op: Any = opset20

# Bytes. Constants that lowerings make twice are far smaller; comparing all weights would only take time.
_LARGEST_SHARED = 1 << 16


def to_onnx(joint: JointGraph) -> onnx_ir.Model:
    """Convert; inputs and outputs carry the contract's names, and the batch is the one dynamic dimension.

    Raises:
        ExportError: an operator has no ONNX form, or one that the file contract does not allow.
    """
    try:
        # Decomposing traces the whole graph once more, which takes longer than all the rest; most graphs need none.
        model = _convert(joint, DecomposedProgram)
    except Exception:  # noqa: BLE001  what the converter and its verifier raise has no common base
        try:
            model = _convert(joint, ExportedProgram)
        except Exception as error:
            raise ExportError(f"the joint graph cannot be written as ONNX: {_cause(error, joint)}") from error
    model.ir_version = contract.IR_VERSION
    _tidy(model, joint.outputs)
    _refuse_what_no_file_holds(model)
    _name_batch(model)
    return model


def _is_promoted(graph: Graph) -> bool:
    """Whether no operator mixes dtypes, as whatever autograd and make_fx have traced hardly ever does."""
    return all(
        _has_one_dtype(node)
        for node in graph.nodes
        if node.op == "call_function" and node.target not in _MIXED_ON_PURPOSE
    )


def _has_one_dtype(node: Node) -> bool:
    values = [value for n in node.all_input_nodes if isinstance(value := n.meta.get("val"), torch.Tensor)]
    result = node.meta.get("val")
    # Integers that become floats: a number with a fraction is added to them, or they are divided.
    widened = isinstance(result, torch.Tensor) and result.is_floating_point() and not all(map(_is_float, values))
    return len({value.dtype for value in values}) < 2 and not widened


def _is_float(value: torch.Tensor) -> bool:
    return value.is_floating_point()


# Casts; and indices and conditions, which are integers and booleans beside what they choose from.
_MIXED_ON_PURPOSE = {
    torch.ops.aten._to_copy.default,
    torch.ops.aten.where.self,
    torch.ops.aten.index.Tensor,
    torch.ops.aten.index_select.default,
    torch.ops.aten.gather.default,
    torch.ops.aten.scatter_add.default,
    torch.ops.aten.embedding.default,
    torch.ops.aten.masked_fill.Scalar,
}


def _convert(joint: JointGraph, kind: type[ExportedProgram]) -> onnx_ir.Model:
    with quiet():
        program = torch.onnx.export(
            _exported_program(joint, kind),
            dynamo=True,
            opset_version=contract.OPSET,
            input_names=list(contract.INPUTS),
            custom_translation_table={**TRANSLATIONS, **_TRANSLATIONS},
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program.model


def _cause(error: BaseException, joint: JointGraph) -> str:
    """torch.onnx wraps the reason in pages of advice; the innermost exception has it."""
    nodes = [node for node in joint.graph_module.graph.nodes if node.op == "call_function"]
    for node in nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and value.is_complex():
            return f"{describe_node(node)} gives complex numbers, and ONNX's operators take none"
    while error.__cause__ is not None:
        error = error.__cause__
    operator = operator_without_translation(str(error))
    if operator is None:
        return one_line(error)
    where = next((describe_node(node) for node in nodes if str(node.target) == operator), operator)
    return f"{where} has no ONNX form; write that part with other operators"


def _exported_program(joint: JointGraph, kind: type[ExportedProgram]) -> ExportedProgram:
    """The joint graph is what torch.export would make of it: functional, ATen, weights lifted. So only say so."""
    graph = copy.deepcopy(joint.graph_module.graph)
    for node in graph.nodes:
        # The converter logs a warning for every node that belongs to no module.
        node.meta.setdefault("nn_module_stack", {"": ("", "Joint")})
    placeholders = [node for node in graph.nodes if node.op == "placeholder"]
    inputs = [
        InputSpec(InputKind.BUFFER, TensorArgument(node.name), name, persistent=True)
        for node, name in zip(placeholders, joint.weights, strict=False)
    ]
    inputs += [InputSpec(InputKind.USER_INPUT, TensorArgument(node.name), None) for node in placeholders[-2:]]
    results: Any = graph.output_node().args[0]
    arguments = [TensorArgument(node.name) for node in results]
    call = ModuleCallSignature(
        inputs=[spec.arg for spec in inputs[-2:]],
        outputs=list(arguments),
        in_spec=pytree.tree_structure(((0, 0), {})),
        out_spec=pytree.tree_structure([0] * len(results)),
        forward_arg_names=list(contract.INPUTS),
    )
    program = kind(
        root=torch.nn.Module(),
        graph=graph,
        graph_signature=ExportGraphSignature(
            inputs, [OutputSpec(OutputKind.USER_OUTPUT, argument, None) for argument in arguments]
        ),
        state_dict=dict(joint.weights),
        range_constraints=symbol_ranges(placeholders[-2].meta["val"]),
        module_call_graph=[ModuleCallEntry("", call)],
    )
    if kind is DecomposedProgram and _is_promoted(graph):
        # Otherwise the converter would run every operator once more on fake tensors.
        skip_type_promotion(program)
    return program


def _tidy(model: onnx_ir.Model, outputs: Sequence[str]) -> None:
    """Fold the arithmetic on shapes, share what stands twice, drop what is unused. Weights are left as they are."""
    with quiet():
        fold_constants(model)
    PassManager(
        [
            passes.RemoveUnusedNodesPass(),
            passes.RemoveUnusedFunctionsPass(),
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
            passes.DeduplicateInitializersPass(size_limit=_LARGEST_SHARED),
            passes.CommonSubexpressionEliminationPass(),
            passes.IdentityEliminationPass(),
            passes.RemoveUnusedNodesPass(),
            # Where guided and plain gradients are the same, or a layer returns its input, an output needs a value.
            passes.OutputFixPass(),
            passes.ClearMetadataAndDocStringPass(),
        ]
    )(model)
    # The converter renames an input that is an output as well.
    for values, names in ((model.graph.inputs, contract.INPUTS), (model.graph.outputs, outputs)):
        for value, name in zip(values, names, strict=True):
            value.name = name
    model.graph.name = "seewhy"
    model.metadata_props.clear()
    model.graph.metadata_props.clear()


def _refuse_what_no_file_holds(model: onnx_ir.Model) -> None:
    """Check that the graph has neither loops nor branches, functions, or operators of other domains.

    A few of the converter's operators are written so (`embedding_bag` as a Loop), and the engine refuses such files.
    """
    found = [function.name for function in model.functions.values()]
    for node in model.graph:
        graphs = any(
            attribute.type in (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        )
        if graphs or node.domain:
            found.append(node.op_type)
    if found:
        raise ExportError(
            f"the joint graph cannot be written as ONNX without {some(sorted(set(found)))}, which a model file may not "
            f"hold; write that part with other operators"
        )


def _name_batch(model: onnx_ir.Model) -> None:
    """Call the batch dimension N wherever an input or output has it."""
    for value in [*model.graph.inputs, *model.graph.outputs]:
        assert value.shape is not None
        value.shape = onnx_ir.Shape(["N", *value.shape.dims[1:]])


def _max_pool_with_indices(
    x: Any,
    kernel_size: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0, 0),
    dilation: Sequence[int] = (1, 1),
    ceil_mode: bool = False,
) -> Any:
    """ONNX counts winners over the whole batch, PyTorch within each map."""
    pooled, flat = op.MaxPool(
        x,
        ceil_mode=int(ceil_mode),
        dilations=_both(dilation),
        kernel_shape=_both(kernel_size),
        pads=_both(padding) * 2,
        strides=_both(stride or kernel_size),
    )
    height, width = x.shape[2], x.shape[3]
    return pooled, op.Mod(flat, op.Constant(value_int=int(height) * int(width)))


def _view(x: Any, size: Sequence[Any]) -> Any:
    """Of a shape only the batch is unknown; so Reshape finds it, and nothing has to compute it."""
    unknown = [not isinstance(s, int) for s in size]
    if sum(unknown) + list(size).count(-1) <= 1:
        sizes = [-1 if u else s for s, u in zip(size, unknown, strict=True)]
        # As a tensor: of an empty list, nobody could tell what it is a list of.
        return op.Reshape(x, op.Constant(value=onnx_ir.tensor(sizes, onnx_ir.DataType.INT64)))
    one = op.Constant(value_ints=[1])
    sizes = [op.Reshape(s, one) if u else op.Constant(value_ints=[s]) for s, u in zip(size, unknown, strict=True)]
    return op.Reshape(x, op.Concat(*sizes, axis=0))


def _both(values: Sequence[int]) -> list[int]:
    """ATen lets one number stand for height and width."""
    return list(values) * (2 // len(values))


_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.max_pool2d_with_indices.default: _max_pool_with_indices,
    torch.ops.aten.sym_numel.default: lambda x: op.Size(x),
    torch.ops.aten.view.default: _view,
    torch.ops.aten._unsafe_view.default: _view,
    torch.ops.aten.reshape.default: _view,
}
