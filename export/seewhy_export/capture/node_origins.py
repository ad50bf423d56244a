"""Find the place in the user's module that an operator of a trace comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.fx import Node

from seewhy_export._shared.torch_internals import pytree, record_module_stack


class Origins:
    """Follows a trace: `node` is the forward node that runs, or whose gradient is being computed.

    What is traced under `tracing_with_module_stacks` takes that node's modules along.
    """

    def __init__(self) -> None:
        self.node: Node | None = None
        self._known: set[Any] = set()

    def enter(self, node: Node) -> None:
        self.node = node
        record_module_stack(node.meta.get("nn_module_stack", {}))

    def follow(self, node: Node, value: Any) -> None:
        """Come back to `node` whenever autograd passes what has made `value`."""
        waiting = [leaf.grad_fn for leaf in pytree.tree_leaves(value) if isinstance(leaf, Tensor)]
        while waiting:
            function: Any = waiting.pop()
            if function is not None and function not in self._known:
                self._known.add(function)
                function.register_prehook(lambda _gradients: self.enter(node))
                waiting.extend(before for before, _ in function.next_functions)

    def forget(self) -> None:
        """Let go of autograd's graph: it holds the hooks, the hooks hold this, and such a circle is never collected."""
        self._known.clear()


def described(node: Node) -> str:
    """`aten.median.dim in features.pool (MedianPool)`."""
    return f"{node.target} in {place(node.meta.get('nn_module_stack', {}))}"


def place(modules: Mapping[str, tuple[str, Any]]) -> str:
    """The innermost of a node's modules, by its path and class."""
    if not modules:
        return "the network"
    path, kind = list(modules.values())[-1]
    name = kind.rpartition(".")[2] if isinstance(kind, str) else getattr(kind, "__name__", str(kind))
    return f"{path} ({name})" if path else f"the network itself ({name})"
