"""Run the graph of a model file, and check the shapes and numbers of its outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

from numpy.typing import NDArray

from seewhy._core import first_not_finite
from seewhy._shared.arrays import Integers
from seewhy.errors import ModelFileError, NonFiniteError
from seewhy.runtime import in_graph_maps
from seewhy.runtime.batch_splitting import run_sub_batches
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.sessions import Outputs, RunPlan, SessionCache

SubBatchRun: TypeAlias = "Callable[[Mapping[str, NDArray[Any]], Sequence[int] | Integers], Outputs]"
"""Function that runs the graph with feeds of m rows and the index of the image of each row (m,)."""
_Result = TypeVar("_Result")

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
        return self._checked_values(self.sessions.run(outputs, feeds), feeds, images)

    def in_sub_batches(
        self,
        plan: RunPlan,
        work: Callable[[slice, SubBatchRun], _Result],
        take: Callable[[slice, _Result], object],
    ) -> None:
        """Compute outputs of the graph for many rows, whose inputs are made and whose outputs are used on the way.

        Each sub-batch is made, run and checked on one core, without waiting for the other cores. Memory does not grow
        with the number of rows.

        Args:
            plan: What `SessionCache.plan` returned for these rows.
            work: Function that gets the rows of a sub-batch and a function that runs the graph for it, as `__call__`
                does with feeds and images. Several threads call it at the same time.
            take: Function that receives the rows and the result of `work` for each sub-batch, in order and on the
                calling thread.

        Raises:
            ModelFileError: If the shape of an output differs from the contract.
            NonFiniteError: If an output contains NaN or infinity.
            ProviderError: If onnxruntime fails.
        """

        def run(feeds: Mapping[str, NDArray[Any]], images: Sequence[int] | Integers) -> Outputs:
            return self._checked_values(self.sessions.run_planned(plan, feeds), feeds, images)

        run_sub_batches(lambda part: work(part, run), plan.sub_batches, plan.callers, take)

    def _checked_values(
        self, values: Outputs, feeds: Mapping[str, NDArray[Any]], images: Sequence[int] | Integers
    ) -> Outputs:
        """Return the outputs if their shapes and numbers are right."""
        arrays = [*values.values()]
        actual = (len(images), *feeds, *values, *[value.shape for value in [*feeds.values(), *arrays]])
        if actual not in self._checked:
            self._check_shapes({**feeds, **values}, len(images))
            if len(self._checked) < _MAX_CHECKED:
                self._checked.add(actual)
        found = first_not_finite(*arrays)
        if found is not None:
            name, image = [*values][found[0]], images[found[1]]
            raise NonFiniteError(
                f"{self.model.name}: {name} of image {image} holds NaN or infinity; check the model's weights and "
                f"preprocessing"
            )
        return values

    def _check_shapes(self, values: Mapping[str, NDArray[Any]], rows: int) -> None:
        """Compare shapes with the contract, because onnxruntime does not enforce the shapes that a file declares."""
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


def _listed(lengths: Iterable[object]) -> str:
    """Return the lengths of a shape as text."""
    return ", ".join(map(str, lengths))
