"""Explainers of one model whose parameters are shuffled, from the output down, in a few stages."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Sequence

from seewhy.contract.metadata import ParameterGroup
from seewhy.errors import ModelFileError
from seewhy.explainer.explainer import Explainer
from seewhy.methods.float32_files import cannot_shuffle
from seewhy.runtime.sessions import CACHED_BYTES

CASCADING, INDEPENDENT = "cascading", "independent"
"""Orders: shuffle the parameters of a stage and of all stages above it, or those of the stage alone."""

MOST_STAGES = 16
"""Maximum number of stages."""


class ShuffledStages:
    """Explainers of one model, one for each stage of shuffled parameters. Threads may share them.

    Attributes:
        modules: Paths of the modules of each stage, from the output down.
    """

    def __init__(
        self,
        explainer: Explainer,
        order: str = CASCADING,
        most: int = MOST_STAGES,
        seed: int = 0,
        limit: int = CACHED_BYTES,
    ) -> None:
        """Shuffle the parameters. Sessions are created when they are first needed.

        Args:
            explainer: Explainer of the model, which is not changed.
            order: `cascading` or `independent`.
            most: Maximum number of stages.
            seed: Seed of the shuffled values.
            limit: Maximum total size in bytes of the weights of all sessions that are kept between uses.

        Raises:
            ModelFileError: If the model file does not list its parameters, or is quantised.
        """
        stages = split_into_stages(parameters_of(explainer), most)
        self.modules = tuple(tuple(group.module for group in stage) for stage in stages)
        self._limit = limit
        self._lock = threading.Lock()
        self._explainers: list[Explainer] = []
        changed = explainer
        for stage in stages:
            tensors = [name for group in stage for name in group.tensors]
            changed = (changed if order == CASCADING else explainer).with_shuffled_parameters(tensors, seed)
            self._explainers.append(changed)

    def __len__(self) -> int:
        """Return the number of stages."""
        return len(self._explainers)

    def __getitem__(self, stage: int) -> Explainer:
        """Return the explainer of a stage."""
        return self._explainers[stage]

    def release(self, stage: int) -> None:
        """Free the sessions of a stage if those of all stages are too large to be kept.

        Stages are used one after the other for each image. The first ones are kept, and the others are created again
        for each image: if the oldest one made room, none would ever be there when it is needed.

        Args:
            stage: Index of the stage that has been used.
        """
        with self._lock:
            if sum(one.session_bytes for one in self._explainers) > self._limit:
                self._explainers[stage].release_sessions()


def parameters_of(explainer: Explainer) -> tuple[ParameterGroup, ...]:
    """Return the parameters that a model file lists.

    Args:
        explainer: Explainer of the model file.

    Returns:
        The parameters by module, from the output down; at least one group.

    Raises:
        ModelFileError: If the file lists none, or is quantised.
    """
    if explainer.quantization is not None:
        raise ModelFileError(f"{explainer.path}: {cannot_shuffle(explainer.quantization)}")
    groups = explainer.metadata.parameters
    if not groups:
        reason = "does not list its parameters" if groups is None else "has no parameters"
        raise ModelFileError(
            f"{explainer.path}: the file {reason}, so they cannot be shuffled; export the network again with this "
            f"version of seewhy"
        )
    return groups


def split_into_stages(
    groups: Sequence[ParameterGroup], most: int = MOST_STAGES
) -> tuple[Sequence[ParameterGroup], ...]:
    """Split a list of modules into consecutive stages with nearly equal numbers of modules.

    Args:
        groups: Parameters by module.
        most: Maximum number of stages.

    Returns:
        The groups of each stage, in the same order.
    """
    count = min(len(groups), most)
    edges = [len(groups) * i // count for i in range(count + 1)]
    return tuple(groups[start:end] for start, end in itertools.pairwise(edges))
