"""Reference values for the parity check, computed by PyTorch's own autograd.

The reference uses neither the joint graph nor the lowering nor ONNX. PyTorch's kernels run the forward graph on real
tensors. The guided rule clips the gradient before PyTorch's own derivative of each rectifier.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node

from seewhy.contract import constants as contract
from seewhy_export._shared.torch_internals import pytree
from seewhy_export.backward.rectifiers import in_scope, rectifier_of
from seewhy_export.capture.forward_graph import ForwardGraph
from seewhy_export.target_layer.selection import TargetLayer
from seewhy_export.verification.float64_mode import computing_in

aten: Any = torch.ops.aten


class _RuleSwitch:
    """Holder of the output whose gradient rule the next backward pass follows; None is PyTorch's own rule.

    The autograd graph refers to this object. It must not refer back to the graph: Python never collects reference
    cycles that pass through C++.
    """

    def __init__(self) -> None:
        self.rule: str | None = None


class _SwitchableRectifier(torch.autograd.Function):
    """Rectifier whose backward pass is PyTorch's own until another rule is switched on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, switch: _RuleSwitch, has_slope: bool, call: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.switch, ctx.has_slope, ctx.call = switch, has_slope, call
        result: Tensor = call(x)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        if ctx.switch.rule == contract.DECONVNET_GRADIENTS:
            # Apply the rectifier itself, but not an upper bound such as ReLU6's, which does not rectify.
            return (ctx.call(gradient) if ctx.has_slope else gradient.clamp(min=0)), None, None, None
        with torch.enable_grad():
            x = x.detach().requires_grad_(True)
            value = ctx.call(x)
        if ctx.switch.rule == contract.GUIDED_GRADIENTS:
            gradient = gradient.clamp(min=0)
        return torch.autograd.grad(value, x, gradient)[0], None, None, None


class _ReferenceInterpreter(Interpreter):
    """Interpreter of the forward graph that keeps the values of chosen nodes; rectifiers in scope follow the switch."""

    def __init__(self, forward: ForwardGraph, scope: tuple[str, ...] | None, keep: Sequence[Node]) -> None:
        super().__init__(forward.graph_module)
        self.scope = scope
        self.switch = _RuleSwitch()
        self.kept: dict[Node, Any] = dict.fromkeys(keep)

    def run_node(self, node: Node) -> Any:
        rectifier = rectifier_of(node) if node.op == "call_function" and in_scope(node, self.scope) else None
        value = super().run_node(node) if rectifier is None else self._run_rectifier(node, rectifier.input_index)
        if node in self.kept:
            self.kept[node] = value
        return value

    def _run_rectifier(self, node: Node, position: int) -> Tensor:
        """Run a rectifier whose argument at `position` is rectified."""
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        before, x, after = args[:position], args[position], args[position + 1 :]
        operator: Any = node.target
        has_slope = node.target in (aten.leaky_relu.default, aten.rrelu.default, aten.prelu.default)
        apply: Any = _SwitchableRectifier.apply
        result: Tensor = apply(x, self.switch, has_slope, lambda value: operator(*before, value, *after, **kwargs))
        return result


def reference_outputs(
    forward: ForwardGraph,
    layer: TargetLayer | None,
    outputs: Sequence[str],
    images: Tensor,
    targets: Tensor,
    scope: tuple[str, ...] | None = None,
) -> dict[str, Tensor]:
    """Compute the file contract's outputs by autograd.

    Args:
        forward: Forward graph of the network.
        layer: Target layer; None if no output needs one.
        outputs: Names of the outputs.
        images: Preprocessed images of shape (N, C, H, W). Their dtype is that of the computation.
        targets: Class indices, int64 of shape (N,); -1 for the predicted class.
        scope: Module path prefixes inside which the guided and deconvnet rules apply; None applies them everywhere.

    Returns:
        The value of each output, by its name.
    """
    images = images.clone().requires_grad_(True)
    layer_node, head = (None, None) if layer is None else (layer.node, layer.class_weights)
    keep = [node for node in (layer_node, forward.logits, head) if node is not None]
    typed = forward.to(images.dtype)
    run = _ReferenceInterpreter(typed, scope, keep)
    with torch.enable_grad(), computing_in(images.dtype):
        run.run(*typed.weights.values(), images, enable_io_processing=False)
        logits = run.kept[forward.logits]
        index = torch.where(targets < 0, logits.argmax(1), targets)
        score = logits.gather(1, index[:, None]).sum()
        values = {contract.LOGITS: logits}
        if head is not None:
            values[contract.CLASS_WEIGHTS] = run.kept[head][index]
        differentiated = {contract.INPUT_GRADIENTS: images}
        if layer_node is not None:
            differentiated[contract.GRADIENTS] = values[contract.ACTIVATIONS] = run.kept[layer_node]
        gradients = torch.autograd.grad(score, list(differentiated.values()), retain_graph=True)
        values |= dict(zip(differentiated, gradients, strict=True))
        for name in (contract.GUIDED_GRADIENTS, contract.DECONVNET_GRADIENTS):
            if name in outputs:
                run.switch.rule = name
                values[name] = torch.autograd.grad(score, images, retain_graph=True)[0]
    if layer is not None:
        for name in (contract.ACTIVATIONS, contract.GRADIENTS):
            values[name] = layer.layout.to_map(values[name])
        weights = values[contract.GRADIENTS].mean((2, 3), keepdim=True)
        values[contract.GRADCAM_MAP] = (weights * values[contract.ACTIVATIONS]).sum(1).clamp(min=0)
    return {name: values[name].detach() for name in outputs}


def eager_output_and_gradient(module: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Run the module itself, without any graph.

    Args:
        module: Network that takes images in the dtype of `images` and returns one tensor (N, class count).
        images: Preprocessed images of shape (N, C, H, W).

    Returns:
        `its output`, and `its gradient`: the gradient of each image's highest output with respect to the images.
    """
    images = images.clone().requires_grad_(True)
    with torch.enable_grad(), computing_in(images.dtype):
        (value,) = (leaf for leaf in pytree.tree_leaves(module(images)) if isinstance(leaf, Tensor))
    return _output_and_gradient(value, images)


def traced_output_and_gradient(forward: ForwardGraph, images: Tensor) -> dict[str, Tensor]:
    """Run the forward graph, including a final score operator, and return what `eager_output_and_gradient` does."""
    images = images.clone().requires_grad_(True)
    typed = forward.to(images.dtype)
    run = _ReferenceInterpreter(typed, None, [forward.returned])
    with torch.enable_grad(), computing_in(images.dtype):
        run.run(*typed.weights.values(), images, enable_io_processing=False)
    return _output_and_gradient(run.kept[forward.returned], images)


def _output_and_gradient(value: Tensor, images: Tensor) -> dict[str, Tensor]:
    """Return an output and the gradient of its highest values with respect to the images."""
    with computing_in(images.dtype):
        gradient = torch.autograd.grad(value.max(1).values.sum(), images)[0]
    return {"its output": value.detach(), "its gradient": gradient}
