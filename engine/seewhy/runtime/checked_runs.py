"""Run the graph of a model file, and check the shapes and numbers of its outputs."""

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

_MAX_CHECKED = 1000


@dataclass(frozen=True)
class GraphRunner:
    """Graph of a model file, whose outputs are checked after each run. Threads may share it."""

    model: ModelFile
    """The model file."""
    sessions: SessionCache
    """Sessions for the model file."""
    _checked: set[tuple[Any, ...]] = field(default_factory=set, repr=False)
    """Shapes that are known to be right. A program uses the same few shapes again and again."""

    def __call__(
        self, outputs: frozenset[str], feeds: Mapping[str, NDArray[Any]], images: Sequence[int] | Integers
    ) -> Outputs:
        """Compute outputs of the graph, as `SessionCache.run` does.

        Args:
            outputs: Names of the outputs.
            feeds: Values of N rows by name.
            images: Index of the image that each row belongs to, for error messages; shape (N,).

        Returns:
            The outputs by name.

        Raises:
            ModelFileError: If the shape of an output differs from the contract.
            NonFiniteError: If an output contains NaN or infinity.
            ProviderError: If onnxruntime fails.
        """
        values = self.sessions.run(outputs, feeds)
        self._check_shapes({**feeds, **values}, len(images))
        for name, value in values.items():
            row = first_not_finite(value)
            if row is not None:
                raise NonFiniteError(
                    f"{self.model.name}: {name} of image {images[row]} holds NaN or infinity; check the model's "
                    f"weights and preprocessing"
                )
        return values

    def _check_shapes(self, values: Mapping[str, NDArray[Any]], rows: int) -> None:
        """Compare shapes with the contract, because onnxruntime does not enforce the shapes that a file declares."""
        actual = (rows, *((name, value.shape) for name, value in values.items()))
        if actual in self._checked:
            return
        lengths: dict[int | str, int] = {"N": rows}
        for name, value in values.items():
            shape = in_graph_maps.SHAPE if in_graph_maps.is_map(name) else self.model.metadata.shapes[name]
            expected = [lengths.get(length, length) for length in shape]
            fits = len(value.shape) == len(shape) and all(
                have == want or (isinstance(want, str) and have > 0)
                for have, want in zip(value.shape, expected, strict=True)
            )
            if not fits:
                raise ModelFileError(
                    f"{self.model.name}: {name} must have shape ({_listed(expected)}), not ({_listed(value.shape)}); "
                    f"export the network again"
                )
            lengths.update(zip(shape, value.shape, strict=True))
        if len(self._checked) < _MAX_CHECKED:
            self._checked.add(actual)


def _listed(lengths: Iterable[object]) -> str:
    """Return the lengths of a shape as text."""
    return ", ".join(map(str, lengths))
