"""Explain images in pipelines of Ray Data, with a class for `Dataset.map_batches`.

    import ray
    from seewhy.ray import ExplainBatch

    images = ray.data.from_items([{"path": path} for path in paths])
    rows = images.map_batches(
        ExplainBatch,
        fn_constructor_kwargs={"model": "/shared/model.onnx", "method": "gradcam"},
        compute=ray.data.ActorPoolStrategy(size=8),
        batch_size=128,
        num_cpus=1,
    )
    rows.write_parquet("/shared/rows")

This module does not import Ray, so an `ExplainBatch` can be called without a cluster.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from seewhy._shared.checks import is_integer
from seewhy._shared.text import brief
from seewhy.bulk.explain_files import explain_rows
from seewhy.bulk.job_defaults import BATCH_SIZE
from seewhy.bulk.job_request import resolve_job
from seewhy.bulk.outcomes import ImageTask
from seewhy.bulk.settings import Settings
from seewhy.errors import ImageError, TargetError
from seewhy.explainer.explainer import Explainer, MethodOptions
from seewhy.inputs.image_inputs import ImageInput
from seewhy.methods.plugins import Plugin, load_plugin
from seewhy.runtime.providers import Provider
from seewhy.tables import table_columns
from seewhy.tables.table_columns import ShardEntry
from seewhy.targets.class_targets import Target, read_target

Batch: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Columns with the same number of rows, in the batch format `numpy` of Ray Data."""

_INPUT_COLUMNS = ("path", "bytes", "image", "id", "target")


class ExplainBatch:
    """Explains batches of images. Ray Data creates one in each actor, with its own session.

    A batch has one of these columns:

    - `path`: path of an image file that the actor reads, as text, or as bytes if the name is not UTF-8
    - `bytes`: content of an image file
    - `image`: pixels, uint8 of shape (H, W, 3), as `ray.data.read_images` returns them. That function ignores the EXIF
      orientation tag; use paths or bytes if the orientation matters.

    A batch with `bytes` or `image` may also have a column `path`, which names the images. The optional column `id`
    identifies the rows. The optional column `target` is the class to explain: an index, a label, or null for the
    predicted class. All other columns are copied to the result.

    The result is a `pyarrow.Table` with the rows of a Parquet shard, one for each image, method and class, in the order
    of the images. The columns are path, id, error, predicted, label, probability, top5, method, target, target_label,
    target_probability, height, width, postprocessing, heatmap and model_sha256. An image that cannot be explained has
    rows, too, with `error` and without a heatmap. On processors of the same kind and with the same versions, the rows
    equal those of `seewhy explain --format parquet` bit for bit.
    """

    def __init__(
        self,
        model: str | os.PathLike[str],
        *,
        method: str | Sequence[str] = "gradcam",
        target: Target | Sequence[Target] | None = None,
        top: int | None = None,
        options: MethodOptions | None = None,
        dtype: str = "float32",
        full_size: bool = False,
        fast_decode: bool = False,
        batch_size: int = BATCH_SIZE,
        providers: Sequence[Provider] | None = None,
        threads: int | None = 1,
        verify: bool = True,
        records: bool = False,
        plugins: Sequence[str | os.PathLike[str] | Plugin] = (),
    ) -> None:
        """Read the model file, and validate the arguments against it.

        Args:
            model: Path of a model file, which every actor must be able to read.
            method: As in `Explainer.explain`.
            target: Class to explain for rows without a target, or a list of classes to explain for each image. None is
                the predicted class.
            top: As in `Explainer.explain`.
            options: As in `Explainer.explain`.
            dtype: Type of the heatmaps: float32, float16 or uint8. The latter two come with the columns `scale` and
                `offset`; the map is heatmap * scale + offset. `seewhy.tables.table_columns.compact` has the error.
            full_size: Whether to return heatmaps of the input's size in [0, 1] instead of low-resolution maps, whose
                `postprocessing` tells how to enlarge them.
            fast_decode: Whether to decode JPEG files with less detail, which is faster and changes pixels.
            batch_size: Maximum number of images in one run of the graph. A multiple of it is a good `batch_size` for
                `map_batches`.
            providers: As in `Explainer`. Only actors with `num_gpus` have a GPU.
            threads: Number of threads, which should equal `num_cpus`. None is one for each core of the machine, and
                fits an actor that has the machine to itself.
            verify: As in `Explainer`.
            records: Whether to add a column `record` with the image's line of a manifest as JSON, including the logits.
            plugins: Python files that register methods, or their contents as `Plugin`.

        Raises:
            SeewhyError: If an argument is not valid, or pyarrow is not installed.
        """
        table_columns.pyarrow()
        table_columns.check_dtype(dtype)
        self._explainer = Explainer(model, providers, threads, verify)
        for plugin in plugins:
            plugin.load() if isinstance(plugin, Plugin) else load_plugin(plugin)
        settings = Settings(
            [method] if isinstance(method, str) else list(method),
            () if target is None else target,  # type: ignore[arg-type]
            top,
            batch_size=batch_size,
            options={} if options is None else options,
            format="parquet",
            full_size=full_size,
            fast_decode=fast_decode,
        )
        self._request = resolve_job(self._explainer, settings)
        self._dtype, self._records = dtype, records

    @property
    def explainer(self) -> Explainer:
        """The explainer of the model file."""
        return self._explainer

    def __call__(self, batch: Batch) -> Any:
        """Explain a batch.

        Args:
            batch: Columns of images; the class describes them.

        Returns:
            The rows, as a `pyarrow.Table`.

        Raises:
            ImageError: If the batch has no column of images, or a column has the name of one of the result.
            TargetError: If a row has a target, and several classes are explained for each image.
            ProviderError: If onnxruntime fails.
        """
        copied, methods = self._copied_columns(batch), self._request.settings.methods
        images = list(_images(batch))
        outcomes = explain_rows(self._request, [ImageTask(image) for image, _ in images])
        entries = [
            ShardEntry({**outcome.record, "path": path}, outcome.rows)
            for outcome, (_, path) in zip(outcomes, images, strict=True)
        ]
        per_image = [table_columns.table_rows([entry], methods) for entry in entries]
        rows = [row for own in per_image for row in own]
        table = table_columns.arrow_table(rows, self._explainer.sha256, self._dtype)
        image_of_row = [index for index, own in enumerate(per_image) for _ in own]
        if self._records:
            texts = [json.dumps(entry.record) for entry in entries]
            table = table.append_column("record", table_columns.texts([texts[index] for index in image_of_row]))
        for name in copied:
            table = table.append_column(name, _arrow_column(np.asarray(batch[name])[image_of_row]))
        return table

    def _copied_columns(self, batch: Batch) -> list[str]:
        """Return the names of the columns that are copied to the result."""
        added = table_columns.NAMES | ({"record"} if self._records else set())
        copied = [name for name in batch if name not in _INPUT_COLUMNS]
        for name in copied:
            if name in added:
                raise ImageError(f"column {name!r} of the dataset is also a column of the result; rename or drop it")
        return copied


@dataclass(frozen=True)
class _DecodedImage(ImageInput):
    """An image that is already decoded."""

    pixels: Any = None

    @property
    def image(self) -> Any:
        return self.pixels


def _images(batch: Batch) -> Iterator[tuple[ImageInput, str | None]]:
    """Yield the image of each row, and its path if it has one."""
    kinds = [name for name in ("bytes", "image", "path") if name in batch]
    if not kinds:
        raise ImageError(f"the dataset has no column path, bytes or image; it has {brief(sorted(batch))}")
    if kinds[:2] == ["bytes", "image"]:
        raise ImageError("the dataset has the columns bytes and image; drop one of them")
    for row, value in enumerate(batch[kinds[0]]):
        path, identity, target = (_value(batch, name, row) for name in ("path", "id", "target"))
        identity = None if identity is None else str(identity)
        name = path if isinstance(path, str) else identity or f"image {row} of a batch"
        image = _READERS[kinds[0]](ImageInput(name, identity), path, value)
        yield _with_target(image, target), path if isinstance(path, str) else None


def _value(batch: Batch, name: str, row: int) -> Any:
    """Return a value as a Python object, or None if the column is missing or the value is null or NaN."""
    value = batch[name][row] if name in batch else None
    value = value.item() if isinstance(value, np.generic) else value
    value = os.fsdecode(value) if isinstance(value, bytes) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _with_target(image: ImageInput, value: Any) -> ImageInput:
    if isinstance(value, str):  # digits are an index, as in lists of images
        return replace(image, target=read_target(value))
    if isinstance(value, float) and value.is_integer():  # a column of integers with nulls becomes floats
        value = int(value)
    if value is None or is_integer(value):
        return replace(image, target=value)
    error = TargetError(f"{image.path}: a target must be a class index or a label, not {brief(value)}")
    return replace(image, error=image.error or error)


def _from_path(image: ImageInput, path: Any, value: Any) -> ImageInput:
    if isinstance(path, str):
        return image
    return replace(image, error=ImageError(f"{image.path}: a path must be text, not {brief(path)}"))


def _from_bytes(image: ImageInput, path: Any, value: Any) -> ImageInput:
    if isinstance(value, bytes):
        return replace(image, content=value)
    return replace(image, error=ImageError(f"{image.path}: the column bytes must hold bytes, not {brief(value)}"))


def _from_pixels(image: ImageInput, path: Any, value: Any) -> ImageInput:
    if isinstance(value, np.ndarray):
        return _DecodedImage(image.path, image.id, image.target, pixels=value)
    return replace(image, error=ImageError(f"{image.path}: the column image must hold arrays, not {brief(value)}"))


def _arrow_column(values: NDArray[Any]) -> Any:
    """Return a copied column; arrays become lists."""
    pa = table_columns.pyarrow()
    if values.dtype == object:
        return pa.array([value.tolist() if isinstance(value, np.ndarray) else value for value in values])
    flat = pa.array(values.ravel())
    for length in reversed(values.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, length)
    return flat


_READERS = {"path": _from_path, "bytes": _from_bytes, "image": _from_pixels}
