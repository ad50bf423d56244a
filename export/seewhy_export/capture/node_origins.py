"""Origin of a traced operator: the module of the user's network that it comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.fx import Node

from seewhy_export._shared.torch_internals import pytree, record_module_stack


class OriginTracker:
    """Tracker of the forward node that runs, or whose gradient is computed, during a trace.

    Nodes that are traced under `tracing_with_module_stacks` get the module stack of that forward node.
    """

    def __init__(self) -> None:
        self.node: Node | None = None
        """Current forward node; None before the trace starts."""
        self._known_functions: set[Any] = set()

    def enter(self, node: Node) -> None:
        """Make a forward node the current one."""
        self.node = node
        record_module_stack(node.meta.get("nn_module_stack", {}))

    def follow(self, node: Node, value: Any) -> None:
        """Make `node` the current one again whenever autograd runs backward through the functions that made `value`."""
        waiting = [leaf.grad_fn for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
        while waiting:
            function: Any = waiting.pop()
            if function is not None and function not in self._known_functions:
                self._known_functions.add(function)
                function.register_prehook(lambda _gradients: self.enter(node))
                waiting.extend(before for before, _ in function.next_functions)

    def forget(self) -> None:
        """Release autograd's graph. It holds the hooks, which hold this object: such a cycle is never collected."""
        self._known_functions.clear()


def describe_node(node: Node) -> str:
    """Return a node's operator and module, such as `aten.median.dim in features.pool (MedianPool)`."""
    return f"{node.target} in {_describe_module(node.meta.get('nn_module_stack', {}))}"


def module_path(node: Node) -> str:
    """Return the path of the module whose code a node comes from; empty for the network's own code."""
    modules = node.meta.get("nn_module_stack")
    path: str = list(modules.values())[-1][0] if modules else ""
    return path


def _describe_module(modules: Mapping[str, tuple[str, Any]]) -> str:
    """Return the path and class of the innermost module of a module stack."""
    if not modules:
        return "the network"
    path, kind = list(modules.values())[-1]
    name = kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return f"{path} ({name})" if path else f"the network itself ({name})"
