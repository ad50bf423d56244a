"""Runs of one model file's graph, with every shape and number that comes out of it looked at."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from seewhy._shared.arrays import Integers, first_not_finite
from seewhy.errors import ModelFileError, NonFiniteError
from seewhy.runtime import in_graph_maps
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.sessions import Outputs, SessionCache

_MOST_REMEMBERED = 1000


@dataclass(frozen=True)
class GraphRunner:
    """Runs a model file's graph, for any of its outputs. May be shared by threads."""

    model: ModelFile
    sessions: SessionCache
    _found_right: set[tuple[Any, ...]] = field(default_factory=set, repr=False)
    """Shapes that were looked at before; programs ask for the same few again and again."""

    def __call__(
        self, outputs: frozenset[str], feeds: Mapping[str, NDArray[Any]], images: Sequence[int] | Integers
    ) -> Outputs:
        """Return `outputs` for `feeds`, as `SessionCache.run` does; `images` (N,) says which image a row belongs to.

        Raises:
            ModelFileError: If an output has another shape than the contract says.
            NonFiniteError: If an output holds NaN or infinity.
        """
        values = self.sessions.run(outputs, feeds)
        self._check_shapes({**feeds, **values}, len(images))
        for name, value in values.items():
            row = first_not_finite(value)
            if row is not None:
                raise NonFiniteError(
                    f"{self.model.path}: {name} of image {images[row]} holds NaN or infinity, so there is nothing to "
                    f"show; check the model's weights and preprocessing"
                )
        return values

    def _check_shapes(self, values: Mapping[str, NDArray[Any]], rows: int) -> None:
        """onnxruntime returns what the graph computes, whatever shape the file declares for it."""
        found = (rows, *((name, value.shape) for name, value in values.items()))
        if found in self._found_right:
            return
        lengths: dict[int | str, int] = {"N": rows}
        for name, value in values.items():
            shape = in_graph_maps.SHAPE if in_graph_maps.is_map(name) else self.model.metadata.shapes[name]
            wanted = [lengths.get(length, length) for length in shape]
            fits = len(value.shape) == len(shape) and all(
                have == want or (isinstance(want, str) and have > 0)
                for have, want in zip(value.shape, wanted, strict=True)
            )
            if not fits:
                raise ModelFileError(
                    f"{self.model.path}: {name} has the shape ({_listed(value.shape)}) and not ({_listed(wanted)}); "
                    f"export the network again"
                )
            lengths.update(zip(shape, value.shape, strict=True))
        if len(self._found_right) < _MOST_REMEMBERED:
            self._found_right.add(found)


def _listed(lengths: Iterable[object]) -> str:
    return ", ".join(map(str, lengths))
