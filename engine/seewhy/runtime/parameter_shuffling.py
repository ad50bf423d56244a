"""Shuffle the values of a model file's parameters, in memory."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.checks import is_integer
from seewhy._shared.text import brief
from seewhy.errors import ArgumentError
from seewhy.runtime.model_file import ModelFile


def with_shuffled_values(model: ModelFile, tensors: Iterable[str], seed: int) -> ModelFile:
    """Return a model whose tensors hold their own values in a random order. Everything else is shared, not copied.

    The order of a tensor's values depends on the seed and its name alone.

    Args:
        model: Model file, which is not changed. Metadata and hashes of the result are those of this file.
        tensors: Names of initializers.
        seed: Seed, an integer of at least 0.

    Returns:
        The model with shuffled values.

    Raises:
        ArgumentError: If the seed is not an integer of at least 0.
        ModelFileError: If the model has no such tensor, or one that is damaged.
    """
    if not is_integer(seed) or seed < 0:
        raise ArgumentError(f"seed must be an integer of at least 0, not {brief(seed)}")
    shuffled = {name: _shuffle(values, int(seed), name) for name, values in model.values(tensors).items()}
    return replace(model, weights={**model.weights, **shuffled})


def _shuffle(values: NDArray[Any], seed: int, name: str) -> NDArray[Any]:
    digest = hashlib.sha256(name.encode()).digest()
    order = np.random.default_rng([seed, int.from_bytes(digest[:8], "little")])
    return order.permutation(values.reshape(-1)).reshape(values.shape)
