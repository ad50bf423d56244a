"""Conversion of a joint graph to an ONNX model in memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Sequence
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
from seewhy_export._shared.messages import first_few, one_line, quiet
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

# Limit in bytes for merging equal constants. Those that lowerings create twice are far smaller, and comparing all
# weights would only take time.
_LARGEST_MERGED = 1 << 16


def to_onnx(joint: JointGraph) -> onnx_ir.Model:
    """Convert a joint graph to ONNX.

    Args:
        joint: Joint graph in float32.

    Returns:
        A model whose inputs and outputs have the file contract's names, and whose only dynamic dimension is the batch.

    Raises:
        ExportError: If an operator has no ONNX form, or one that the file contract does not allow.
    """
    try:
        # Decomposition traces the whole graph again, which takes longer than all other steps. Most graphs need none.
        model = _convert(joint, DecomposedProgram)
    except Exception:  # noqa: BLE001  errors of the converter and of its verifier have no common base
        try:
            model = _convert(joint, ExportedProgram)
        except Exception as error:
            raise ExportError(f"the joint graph cannot be written as ONNX: {_reason(error, joint)}") from error
    model.ir_version = contract.IR_VERSION
    _simplify(model, joint.outputs, {name for group in joint.parameters for name in group.tensors})
    _refuse_forbidden_operators(model)
    _refuse_racing_sums(model)
    _name_batch(model)
    return model


def _has_equal_dtypes(graph: Graph) -> bool:
    """Tell whether no operator mixes dtypes, which holds for nearly every graph that autograd and make_fx trace."""
    return all(
        _has_one_dtype(node) for node in graph.nodes if node.op == "call_function" and node.target not in _MIXING_DTYPES
    )


def _has_one_dtype(node: Node) -> bool:
    """Tell whether all tensors that a node reads, and its result, need no promotion."""
    values = [value for n in node.all_input_nodes if isinstance(value := n.meta.get("val"), torch.Tensor)]
    result = node.meta.get("val")
    # Integers become floats if they are divided, or if a number with a fraction is added to them.
    promoted = isinstance(result, torch.Tensor) and result.is_floating_point() and not all(map(_is_float, values))
    return len({value.dtype for value in values}) < 2 and not promoted


def _is_float(value: torch.Tensor) -> bool:
    return value.is_floating_point()


# Casts, and operators that take integer indices or boolean conditions next to floats.
_MIXING_DTYPES = {
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
    """Run PyTorch's converter on the joint graph as a program of the given class."""
    with quiet():
        program = torch.onnx.export(
            _exported_program(joint, kind),
            dynamo=True,
            opset_version=contract.OPSET,
            input_names=list(contract.INPUTS),
            custom_translation_table={**TRANSLATIONS, **_OWN_TRANSLATIONS},
            optimize=False,
            verbose=False,
        )
    assert program is not None
    return program.model


def _reason(error: BaseException, joint: JointGraph) -> str:
    """Return why a conversion failed. torch.onnx wraps the reason in long advice; the innermost exception holds it."""
    nodes = [node for node in joint.graph_module.graph.nodes if node.op == "call_function"]
    for node in nodes:
        value = node.meta.get("val")
        if isinstance(value, torch.Tensor) and value.is_complex():
            return f"{describe_node(node)} returns complex numbers, which ONNX's operators do not take"
    while error.__cause__ is not None:
        error = error.__cause__
    operator = operator_without_translation(str(error))
    if operator is None:
        return one_line(error)
    origin = next((describe_node(node) for node in nodes if str(node.target) == operator), operator)
    return f"{origin} has no ONNX form; use other operators there"


def _exported_program(joint: JointGraph, kind: type[ExportedProgram]) -> ExportedProgram:
    """Wrap the joint graph as an exported program. It already is functional, in ATen operators, with lifted weights."""
    graph = copy.deepcopy(joint.graph_module.graph)
    for node in graph.nodes:
        # The converter logs a warning for every node without a module.
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
    if kind is DecomposedProgram and _has_equal_dtypes(graph):
        # Otherwise the converter would run every operator once more on fake tensors.
        skip_type_promotion(program)
    return program


def _simplify(model: onnx_ir.Model, outputs: Sequence[str], parameters: Collection[str]) -> None:
    """Fold shape arithmetic, merge duplicates and drop unused nodes. Parameters stay as they are, one tensor each."""

    def reads_parameter(node: onnx_ir.Node) -> bool:
        return any(value is not None and value.name in parameters for value in node.inputs)

    with quiet():
        fold_constants(model, should_fold=lambda node: False if reads_parameter(node) else None)
    PassManager(
        [
            passes.RemoveUnusedNodesPass(),
            passes.RemoveUnusedFunctionsPass(),
            passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        ]
    )(model)
    initializers = model.graph.initializers
    # Two parameters with equal values are still two: layers that are copies of each other, for example.
    kept = {name: initializers.pop(name) for name in list(initializers) if name in parameters}
    passes.DeduplicateInitializersPass(size_limit=_LARGEST_MERGED)(model)
    initializers.update(kept)
    PassManager(
        [
            passes.CommonSubexpressionEliminationPass(),
            passes.IdentityEliminationPass(),
            passes.RemoveUnusedNodesPass(),
            # An output needs a value of its own if guided and plain gradients are equal, or a layer returns its input.
            passes.OutputFixPass(),
            passes.ClearMetadataAndDocStringPass(),
        ]
    )(model)
    # The converter renames an input that is also an output.
    for values, names in ((model.graph.inputs, contract.INPUTS), (model.graph.outputs, outputs)):
        for value, name in zip(values, names, strict=True):
            value.name = name
    model.graph.name = "seewhy"
    model.metadata_props.clear()
    model.graph.metadata_props.clear()


def _refuse_forbidden_operators(model: onnx_ir.Model) -> None:
    """Check that the graph has no loops, branches, functions or operators of other domains.

    The converter uses them for a few operators (a Loop for `embedding_bag`), and the engine refuses such files.
    """
    forbidden = [function.name for function in model.functions.values()]
    for node in model.graph:
        has_subgraph = any(
            attribute.type in (onnx_ir.AttributeType.GRAPH, onnx_ir.AttributeType.GRAPHS)
            for attribute in node.attributes.values()
        )
        if has_subgraph or node.domain:
            forbidden.append(node.op_type)
    if forbidden:
        raise ExportError(
            f"the joint graph cannot be written as ONNX without {first_few(sorted(set(forbidden)))}, which a model "
            f"file may not hold; use other operators there"
        )


def _refuse_racing_sums(model: onnx_ir.Model) -> None:
    """Check that no ScatterND adds values, because onnxruntime loses some of them if it uses several threads."""
    for node in model.graph:
        reduction = node.attributes.get("reduction")
        if node.op_type == "ScatterND" and reduction is not None and reduction.as_string() != "none":
            raise ExportError(
                "the network, or its gradient, adds values at positions that a mask selects, which onnxruntime "
                "computes wrongly in several threads; multiply by the mask instead"
            )


def _name_batch(model: onnx_ir.Model) -> None:
    """Name the batch dimension of all inputs and outputs N."""
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
    """Translate a max pool with indices: ONNX's indices count through the whole batch, PyTorch's within each map."""
    pooled, flat = op.MaxPool(
        x,
        ceil_mode=int(ceil_mode),
        dilations=_pair(dilation),
        kernel_shape=_pair(kernel_size),
        pads=_pair(padding) * 2,
        strides=_pair(stride or kernel_size),
    )
    height, width = x.shape[2], x.shape[3]
    return pooled, op.Mod(flat, op.Constant(value_int=int(height) * int(width)))


def _view(x: Any, size: Sequence[Any]) -> Any:
    """Translate a reshape. Only the batch size is unknown, and Reshape infers it without further operators."""
    unknown = [not isinstance(s, int) for s in size]
    if sum(unknown) + list(size).count(-1) <= 1:
        sizes = [-1 if u else s for s, u in zip(size, unknown, strict=True)]
        # The constant is a tensor, since an empty list has no element type.
        return op.Reshape(x, op.Constant(value=onnx_ir.tensor(sizes, onnx_ir.DataType.INT64)))
    one = op.Constant(value_ints=[1])
    sizes = [op.Reshape(s, one) if u else op.Constant(value_ints=[s]) for s, u in zip(size, unknown, strict=True)]
    return op.Reshape(x, op.Concat(*sizes, axis=0))


def _pair(values: Sequence[int]) -> list[int]:
    """Return height and width, for which ATen accepts a single number."""
    return list(values) * (2 // len(values))


_OWN_TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.aten.max_pool2d_with_indices.default: _max_pool_with_indices,
    torch.ops.aten.sym_numel.default: lambda x: op.Size(x),
    torch.ops.aten.view.default: _view,
    torch.ops.aten._unsafe_view.default: _view,
    torch.ops.aten.reshape.default: _view,
}
