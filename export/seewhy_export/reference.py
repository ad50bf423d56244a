"""What an export is checked against: PyTorch's own autograd.

Nothing here goes through the joint graph, the lowering or ONNX. The forward graph is run by PyTorch's kernels on real
tensors, and the guided rule is a hook that cuts the gradient before PyTorch's own derivative of each rectifier.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx import Interpreter, Node
from torch.utils import _pytree as pytree

from seewhy import contract

from .forward import ForwardGraph
from .layer import TargetLayer
from .rules import in_scope, rectifier_of


class _Hooked(Interpreter):
    """Runs the forward graph and keeps what is asked for; rectifiers in scope get a hook that `guided` switches."""

    def __init__(self, forward: ForwardGraph, scope: tuple[str, ...] | None, keep: Sequence[Node]) -> None:
        super().__init__(forward.graph_module)
        self.scope = scope
        self.guided = False
        self.kept: dict[Node, Any] = dict.fromkeys(keep)

    def run_node(self, node: Node) -> Any:
        value = super().run_node(node)
        if node.op == "call_function" and rectifier_of(node) is not None and in_scope(node, self.scope):
            value.register_hook(lambda gradient: gradient.clamp(min=0) if self.guided else gradient)
        if node in self.kept:
            self.kept[node] = value
        return value


def reference(
    forward: ForwardGraph,
    layer: TargetLayer,
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
    keep = [layer.node, forward.logits] + ([layer.class_weights] if layer.class_weights is not None else [])
    typed = forward.to(images.dtype)
    run = _Hooked(typed, scope, keep)
    with torch.enable_grad():
        run.run(*typed.weights.values(), images, enable_io_processing=False)
        activations, logits = run.kept[layer.node], run.kept[forward.logits]
        index = torch.where(targets < 0, logits.argmax(1), targets)
        score = logits.gather(1, index[:, None]).sum()
        values = {contract.LOGITS: logits, contract.ACTIVATIONS: activations}
        if layer.class_weights is not None:
            values[contract.CLASS_WEIGHTS] = run.kept[layer.class_weights][index]
        gradients, input_gradients = torch.autograd.grad(score, [activations, images], retain_graph=True)
        values[contract.GRADIENTS], values[contract.INPUT_GRADIENTS] = gradients, input_gradients
        if contract.GUIDED_GRADIENTS in outputs:
            run.guided = True
            values[contract.GUIDED_GRADIENTS] = torch.autograd.grad(score, images)[0]
    weights = gradients.mean((2, 3), keepdim=True)
    values[contract.GRADCAM_MAP] = (weights * activations).sum(1).clamp(min=0)
    return {name: values[name].detach() for name in outputs}


def eager_reference(module: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """What the module itself returns, without any graph, and the input gradient of its highest value.

    Args:
        module: takes images in the dtype of `image`.
        image: (1, C, H, W).
    """
    image = image.clone().requires_grad_(True)
    with torch.enable_grad():
        (value,) = (leaf for leaf in pytree.tree_leaves(module(image)) if isinstance(leaf, Tensor))
    return _value_and_gradient(value, image)


def traced_reference(forward: ForwardGraph, image: Tensor) -> dict[str, Tensor]:
    """The same of the traced graph, a final score included."""
    image = image.clone().requires_grad_(True)
    typed = forward.to(image.dtype)
    run = _Hooked(typed, None, [forward.returned])
    with torch.enable_grad():
        run.run(*typed.weights.values(), image, enable_io_processing=False)
    return _value_and_gradient(run.kept[forward.returned], image)


def _value_and_gradient(value: Tensor, image: Tensor) -> dict[str, Tensor]:
    gradient = torch.autograd.grad(value.max(1).values.sum(), image)[0]
    return {"its output": value.detach(), "its gradient": gradient}
