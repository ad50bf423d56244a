"""PyTorch's private interfaces: only one module uses them, and each works with the installed version."""

import ast
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.fx import Graph, Interpreter

import seewhy_export
from seewhy_export._shared import torch_internals
from seewhy_export._shared.messages import quiet

PACKAGE = Path(seewhy_export.__file__).parent
LIBRARIES = ("torch", "torchvision", "onnxscript", "onnx_ir", "onnx", "onnxruntime", "timm")
UNSTABLE = {
    "CodeGen",
    "experimental",
    "expr",
    "fake_mode",
    "get_current_meta",
    "higher_order",
    "preserve_node_meta",
    "set_codegen",
    "shape_env",
    "var_to_range",
}
"""Names without an underscore that PyTorch does not document, or marks as not backward compatible."""
NOT_OF_TORCH = {"_fields"}
"""Attributes with an underscore that belong to Python itself."""

aten: Any = torch.ops.aten


def is_private(name: str) -> bool:
    return (name.startswith("_") and not name.startswith("__")) or name in UNSTABLE


def private_names(tree: ast.Module) -> Iterator[str]:
    """Every use of a private name of another library."""
    own = {n.name for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            module = getattr(node, "module", None)
            for name in [f"{module}.{a.name}" if module else a.name for a in node.names]:
                path = name.split(".")
                if path[0] in LIBRARIES and any(map(is_private, path)):
                    yield name
        elif isinstance(node, ast.Attribute) and is_private(node.attr) and node.attr not in own | NOT_OF_TORCH:
            owner = ast.unparse(node.value)
            # An operator may have a private name, as aten._softmax has: it is what a traced graph contains.
            if owner not in ("self", "cls", "aten", "torch.ops.aten"):
                yield f"{owner}.{node.attr}"
        elif isinstance(node, ast.keyword) and node.arg and is_private(node.arg):
            yield f"{node.arg}="
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            path = node.value.split(".")
            whole_path = all(part.isidentifier() for part in path)
            if whole_path and path[0] in LIBRARIES and any(map(is_private, path)):
                yield repr(node.value)


def test_no_other_module_uses_a_private_interface() -> None:
    found = {
        str(path.relative_to(PACKAGE)): names
        for path in PACKAGE.rglob("*.py")
        if (names := list(private_names(ast.parse(path.read_text()))))
    }
    assert list(found) == ["_shared/torch_internals.py"], found


@pytest.mark.parametrize(
    "code",
    [
        "import torch._decomp",
        "from torch.utils import _pytree",
        "from torch.fx.experimental.proxy_tensor import make_fx",
        "from torch.onnx._internal.fx import passes",
        "from onnxscript._internal import ast_utils",
        "torch._C._dispatch_has_kernel('relu')",
        "node.target._schema.is_mutable",
        "torch.ops.higher_order.cond",
        "value.fake_mode",
        "size.node.expr",
        "make(function, _allow_non_fake_inputs=True)",
        "logging.getLogger('torch._dynamo')",
    ],
)
def test_every_kind_of_private_use_is_found(code: str) -> None:
    assert list(private_names(ast.parse(code)))


def traced(function: Any, *arguments: Tensor, table: dict[Any, Any] | None = None) -> torch.fx.GraphModule:
    return torch_internals.trace_graph(function, arguments, {} if table is None else table)


def targets(graph: Graph) -> list[Any]:
    return [node.target for node in graph.nodes if node.op == "call_function"]


def exported_images() -> Any:
    """The placeholder of the images of a module that is exported with a symbolic batch size."""
    batch = torch.export.Dim.DYNAMIC
    program = torch.export.export(nn.ReLU(), (torch.zeros(2, 3),), dynamic_shapes=({0: batch},), strict=False)
    (images,) = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"]
    return images


def test_operators_tell_their_schema_their_overload_and_whether_they_are_composite() -> None:
    assert isinstance(aten.relu_.default, torch_internals.OpOverload)
    assert torch_internals.schema_of(aten.relu_.default).is_mutable
    assert not torch_internals.schema_of(aten.relu.default).is_mutable
    assert torch_internals.schema_of(aten.relu.default).name == "aten::relu"
    assert torch_internals.overload_name(aten.add.Tensor) == "Tensor"
    assert torch_internals.is_composite(aten.conv2d.default)
    assert not torch_internals.is_composite(aten.convolution.default)


def test_decompositions_compute_what_the_operator_does() -> None:
    x = torch.randn(4, 5)
    own = torch_internals.core_aten_decompositions()[aten.rsub.Scalar]
    torch.testing.assert_close(own(x, 2), torch.rsub(x, 2))
    theta = torch.randn(2, 2, 3)
    decomposed = torch_internals.registered_decomposition(aten.affine_grid_generator.default)(theta, [2, 3, 4, 5], True)
    torch.testing.assert_close(decomposed, nn.functional.affine_grid(theta, [2, 3, 4, 5], align_corners=True))


def test_fake_tensors_have_shapes_alone() -> None:
    with torch_internals.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        product = torch.zeros(2, 3) @ torch.zeros(3, 4)
    assert product.shape == (2, 4)
    assert torch_internals.fake_mode_of(product) is mode


def test_symbolic_batch_sizes_are_compared_and_kept() -> None:
    images = exported_images()
    batch = images.shape[0]
    assert torch_internals.multiple_of_size(batch * 6, batch) == 6
    assert torch_internals.multiple_of_size(batch + 1, batch) is None
    assert len(torch_internals.symbol_ranges(images)) == 1
    with torch_internals.fake_mode_of(images), torch_internals.symbolic_batch_size():
        padded = aten.constant_pad_nd.default(images, [1, 1], 0.0)
    assert not isinstance(padded.shape[0], int)
    assert padded.shape[1] == 5


def test_traces_follow_autograd_and_the_table_given() -> None:
    def gradient(x: Tensor) -> Tensor:
        x = x.detach().requires_grad_(True)
        with torch.enable_grad():
            return torch.autograd.grad((torch.sigmoid(x) + torch.ones(3)).sum(), x)[0]

    x = torch.randn(2, 3)
    graph_module = traced(gradient, x)
    assert aten.sigmoid_backward.default in targets(graph_module.graph)
    table = {aten.sigmoid_backward.default: lambda g, y: g * y * (1 - y)}
    lowered = traced(gradient, x, table=table)
    assert aten.sigmoid_backward.default not in targets(lowered.graph)
    torch.testing.assert_close(lowered(x), gradient(x))


def test_traced_nodes_carry_the_module_stack_that_was_set() -> None:
    stack = {"block": ("block", "Block")}

    def compute(x: Tensor) -> Tensor:
        torch_internals.record_module_stack(stack)
        return torch.relu(x)

    with torch_internals.tracing_with_module_stacks():
        graph = traced(compute, torch.zeros(2)).graph
    (node,) = [node for node in graph.nodes if node.target is aten.relu.default]
    assert node.meta["nn_module_stack"] == stack


def test_a_flattened_graph_takes_its_placeholders_one_by_one() -> None:
    def add(weights: list[Tensor], x: Tensor) -> Tensor:
        return weights[0] + weights[1] * x

    graph_module = torch_internals.trace_graph(add, ([torch.ones(2), torch.ones(2)], torch.ones(2)), {})
    torch_internals.flatten_calling_convention(graph_module.graph)
    graph_module.recompile()
    (value,) = torch_internals.pytree.tree_leaves(graph_module(torch.ones(2), torch.ones(2), torch.ones(2)))
    assert value.tolist() == [2.0, 2.0]


def test_no_grad_blocks_are_this_operator() -> None:
    class Blocked(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            with torch.no_grad():
                scale = x.mean()
            return x * scale

    program = torch.export.export(Blocked(), (torch.zeros(2, 3),), strict=False)
    assert torch_internals.GRAD_MODE_BLOCK in targets(program.graph)


def test_nested_containers_are_listed_and_mapped() -> None:
    nested = ([1, 2], {"x": 3})
    assert torch_internals.pytree.tree_leaves(nested) == [1, 2, 3]
    assert torch_internals.pytree.tree_map(lambda value: value + 1, nested) == ([2, 3], {"x": 4})
    assert torch_internals.pytree.tree_structure([0, 0]).num_leaves == 2


def test_a_dispatch_mode_sees_every_operator() -> None:
    seen = []

    class Recorder(torch_internals.TorchDispatchMode):
        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            seen.append(func)
            return func(*args, **(kwargs or {}))

    with Recorder():
        torch.relu(torch.zeros(2))
    assert aten.relu.default in seen


def test_compiled_and_parallel_modules_are_unwrapped() -> None:
    module = nn.Linear(2, 2)
    assert torch_internals.unwrap_module(torch.compile(module)) is module
    assert torch_internals.unwrap_module(nn.DataParallel(module)) is module
    assert torch_internals.unwrap_module(module) is module
    module.compile(backend=lambda *_: pytest.fail("the call is still compiled"))
    torch_internals.forget_compiled_call(module)
    module(torch.zeros(1, 2))


def test_torchscript_is_converted() -> None:
    module = nn.Sequential(nn.Linear(3, 2), nn.ReLU()).eval()
    x = torch.randn(2, 3)
    with quiet():
        converted = torch_internals.convert_torchscript(torch.jit.trace(module, x), x)
    torch.testing.assert_close(converted(x), module(x))


def test_a_decomposed_program_is_left_as_it_is() -> None:
    exported = torch.export.export(nn.ReLU(), (torch.zeros(2),), strict=False)
    program = torch_internals.DecomposedProgram(
        root=exported.graph_module,
        graph=exported.graph,
        graph_signature=exported.graph_signature,
        state_dict={},
        range_constraints={},
        module_call_graph=exported.module_call_graph,
    )
    assert program.run_decompositions({}) is program
    torch_internals.skip_type_promotion(program)
    assert list(program.graph_module.modules()) == []
    (value,) = Interpreter(program.graph_module).run(torch.tensor([-1.0, 1.0]))
    assert value.tolist() == [0.0, 1.0]


def test_an_operator_without_translation_is_named() -> None:
    class Unknown(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.cholesky_inverse(x)

    with pytest.raises(Exception) as caught, quiet():
        torch.onnx.export(Unknown().eval(), (torch.eye(3),), dynamo=True, verbose=False)
    error: BaseException = caught.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert torch_internals.operator_without_translation(str(error)) == "aten.cholesky_inverse.default"
    assert torch_internals.operator_without_translation("something else") is None


def test_loggers_exist() -> None:
    for name in (*torch_internals.LOGGERS, torch_internals.FAKE_TENSOR_LOGGER):
        assert name in logging.root.manager.loggerDict, name
