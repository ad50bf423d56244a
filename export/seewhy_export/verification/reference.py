"""Reference for the parity check: PyTorch's own autograd.

Nothing here goes through the joint graph, the lowering or ONNX. The forward graph is run by PyTorch's kernels on real
tensors, and the guided rule is a hook that cuts the gradient before PyTorch's own derivative of each rectifier.
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


class _Switch:
    """Which output's rule the next backward pass follows; None is PyTorch's own.

    The autograd graph holds this, and nothing that holds the graph: such circles through C++ are never collected.
    """

    def __init__(self) -> None:
        self.rule: str | None = None


class _Ruled(torch.autograd.Function):
    """A rectifier whose backward pass is PyTorch's own until another rule is switched on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, switch: _Switch, damps: bool, call: Callable[[Tensor], Tensor]) -> Tensor:
        ctx.save_for_backward(x)
        ctx.switch, ctx.damps, ctx.call = switch, damps, call
        result: Tensor = call(x)
        return result

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors
        if ctx.switch.rule == contract.DECONVNET_GRADIENTS:
            # The rectifier itself, unless it also cuts at the top, which is no part of rectifying.
            return (ctx.call(gradient) if ctx.damps else gradient.clamp(min=0)), None, None, None
        with torch.enable_grad():
            again = x.detach().requires_grad_(True)
            value = ctx.call(again)
        if ctx.switch.rule == contract.GUIDED_GRADIENTS:
            gradient = gradient.clamp(min=0)
        return torch.autograd.grad(value, again, gradient)[0], None, None, None


class _Hooked(Interpreter):
    """Runs the forward graph and keeps what is asked for; rectifiers in scope follow the switch."""

    def __init__(self, forward: ForwardGraph, scope: tuple[str, ...] | None, keep: Sequence[Node]) -> None:
        super().__init__(forward.graph_module)
        self.scope = scope
        self.switch = _Switch()
        self.kept: dict[Node, Any] = dict.fromkeys(keep)

    def run_node(self, node: Node) -> Any:
        rectifier = rectifier_of(node) if node.op == "call_function" and in_scope(node, self.scope) else None
        value = super().run_node(node) if rectifier is None else self._ruled(node, rectifier.x)
        if node in self.kept:
            self.kept[node] = value
        return value

    def _ruled(self, node: Node, position: int) -> Tensor:
        args, kwargs = self.fetch_args_kwargs_from_env(node)
        before, x, behind = args[:position], args[position], args[position + 1 :]
        operator: Any = node.target
        damps = node.target in (aten.leaky_relu.default, aten.rrelu.default, aten.prelu.default)
        apply: Any = _Ruled.apply
        result: Tensor = apply(x, self.switch, damps, lambda value: operator(*before, value, *behind, **kwargs))
        return result


def reference(
    forward: ForwardGraph,
    layer: TargetLayer | None,
    outputs: Sequence[str],
    images: Tensor,
    targets: Tensor,
    scope: tuple[str, ...] | None = None,
) -> dict[str, Tensor]:
    """Compute the contract's outputs in the dtype of `images`.

    Args:
        images: (N, C, H, W).
        targets: (N,) int64, -1 for the predicted class.
    """
    images = images.clone().requires_grad_(True)
    at, head = (None, None) if layer is None else (layer.node, layer.class_weights)
    keep = [node for node in (at, forward.logits, head) if node is not None]
    typed = forward.to(images.dtype)
    run = _Hooked(typed, scope, keep)
    with torch.enable_grad(), computing_in(images.dtype):
        run.run(*typed.weights.values(), images, enable_io_processing=False)
        logits = run.kept[forward.logits]
        index = torch.where(targets < 0, logits.argmax(1), targets)
        score = logits.gather(1, index[:, None]).sum()
        values = {contract.LOGITS: logits}
        if head is not None:
            values[contract.CLASS_WEIGHTS] = run.kept[head][index]
        behind = {contract.INPUT_GRADIENTS: images}
        if at is not None:
            behind[contract.GRADIENTS] = values[contract.ACTIVATIONS] = run.kept[at]
        gradients = torch.autograd.grad(score, list(behind.values()), retain_graph=True)
        values |= dict(zip(behind, gradients, strict=True))
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


def eager_reference(module: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What the module itself returns, without any graph, and the input gradients of the highest values.

    Args:
        module: takes images in the dtype of `image`.
        image: (N, C, H, W).
    """
    image = image.clone().requires_grad_(True)
    with torch.enable_grad(), computing_in(image.dtype):
        (value,) = (leaf for leaf in pytree.tree_leaves(module(image)) if isinstance(leaf, Tensor))
    return _value_and_gradient(value, image)


def traced_reference(forward: ForwardGraph, image: Tensor) -> dict[str, Tensor]:
    """The same of the traced graph, a final score included."""
    image = image.clone().requires_grad_(True)
    typed = forward.to(image.dtype)
    run = _Hooked(typed, None, [forward.returned])
    with torch.enable_grad(), computing_in(image.dtype):
        run.run(*typed.weights.values(), image, enable_io_processing=False)
    return _value_and_gradient(run.kept[forward.returned], image)


def _value_and_gradient(value: Tensor, image: Tensor) -> dict[str, Tensor]:
    with computing_in(image.dtype):
        gradient = torch.autograd.grad(value.max(1).values.sum(), image)[0]
    return {"its output": value.detach(), "its gradient": gradient}
