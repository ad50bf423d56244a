"""Explanations on Ray Data: a class for `Dataset.map_batches`.

    import ray
    from seewhy.ray import ExplainBatch

    photographs = ray.data.from_items([{"path": path} for path in paths])
    rows = photographs.map_batches(
        ExplainBatch,
        fn_constructor_kwargs={"model": "/shared/model.onnx", "method": "gradcam"},
        compute=ray.data.ActorPoolStrategy(size=8),
        batch_size=128,
        num_cpus=1,
    )
    rows.write_parquet("/shared/rows")

This module imports no Ray: an `ExplainBatch` can be called without a cluster.
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
"""Columns of the same number of rows, as Ray Data hands them over in the format `numpy`."""

_READ = ("path", "bytes", "image", "id", "target")


class ExplainBatch:
    """Explains batches of images; Ray Data makes one in each actor, with a session of its own.

    A batch has one of the columns

    - `path`: a file that the actor reads (text, or the bytes of a name that is not UTF-8),
    - `bytes`: a file's content,
    - `image`: (H,W,3) uint8 pixels, as `ray.data.read_images` makes them (which leaves photographs lying as their
      camera lay; give paths or bytes where that matters);

    the latter two may have a `path` beside them, as a name. `id` and `target` may be there: the row's own name, and the
    class to explain (an index, a label, or nothing for the predicted one). All other columns are passed on.

    What comes back is a `pyarrow.Table` of the rows that Parquet shards hold, one for each image, method and class in
    the images' order: path, id, error, predicted, label, probability, top5, method, target, target_label,
    target_probability, height, width, rule, heatmap, model_sha256. An image that cannot be explained has rows, too,
    with `error` and no heatmap. The rows are those of `seewhy explain --format parquet`, bit for bit, where processors
    of the same kind run the same versions.
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
        """Read the model file and check everything that can be checked without an image.

        Args:
            model: a file that `seewhy export` wrote, where every actor can read it.
            method, top, options: as in `Explainer.explain`.
            target: the class to explain for rows that name none, or a list of classes to explain for each image; None
                is the predicted class.
            dtype: of the heatmaps: float32, or float16 or uint8, which come with the columns `scale` and `offset`:
                the map is heatmap * scale + offset. How close that is: `seewhy.tables.table_columns.compact`.
            full_size: heatmaps of the input's size in [0,1] instead of small maps and the `rule` to enlarge them.
            fast_decode: decode JPEGs with less detail: quicker, and other pixels.
            batch_size: images in one run of the graph; several of these make a good `batch_size` of `map_batches`.
            providers, verify: as for `Explainer`. A GPU is there only for actors with `num_gpus`.
            threads: give as many as `num_cpus`. None is one for each core of the machine, for an actor that has it
                alone.
            records: add a column `record`: the image's line in a manifest, as JSON, which has the logits besides.

        Raises:
            SeewhyError: something of this is wrong, or pyarrow is not installed.
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
        return self._explainer

    def __call__(self, batch: Batch) -> Any:
        """Explain a batch; see the class.

        Raises:
            ImageError: there is no column of images, or a column has the name of one that is added.
            TargetError: a row names a class, and several are asked for of each image.
            OutputError, ProviderError: what concerns all images: onnxruntime failed, memory is short.
        """
        others, methods = self._others(batch), self._request.settings.methods
        given = list(_inputs(batch))
        outcomes = explain_rows(self._request, [ImageTask(one) for one, _ in given])
        entries = [
            ShardEntry({**outcome.record, "path": path}, outcome.rows)
            for outcome, (_, path) in zip(outcomes, given, strict=True)
        ]
        each = [table_columns.table_rows([entry], methods) for entry in entries]
        table = table_columns.arrow_table([line for rows in each for line in rows], self._explainer.sha256, self._dtype)
        places = [place for place, rows in enumerate(each) for _ in rows]
        if self._records:
            texts = [json.dumps(entry.record) for entry in entries]
            table = table.append_column("record", table_columns.texts([texts[place] for place in places]))
        for name in others:
            table = table.append_column(name, _arrow(np.asarray(batch[name])[places]))
        return table

    def _others(self, batch: Batch) -> list[str]:
        made = table_columns.NAMES | ({"record"} if self._records else set())
        others = [name for name in batch if name not in _READ]
        for name in others:
            if name in made:
                raise ImageError(f"the dataset has a column {name!r} already, which is added here; rename or drop it")
        return others


@dataclass(frozen=True)
class _Pixels(ImageInput):
    """An image that is decoded already."""

    pixels: Any = None

    @property
    def image(self) -> Any:
        return self.pixels


def _inputs(batch: Batch) -> Iterator[tuple[ImageInput, str | None]]:
    """Each row's image, and its path if it has one."""
    kinds = [name for name in ("bytes", "image", "path") if name in batch]
    if not kinds:
        raise ImageError(f"the dataset has no column path, bytes or image; it has {brief(sorted(batch))}")
    if kinds[:2] == ["bytes", "image"]:
        raise ImageError("the dataset has the columns bytes and image; drop one of them")
    for row, value in enumerate(batch[kinds[0]]):
        path, identity, target = (_at(batch, name, row) for name in ("path", "id", "target"))
        identity = None if identity is None else str(identity)
        called = path if isinstance(path, str) else identity or f"image {row} of a batch"
        item = _IMAGES[kinds[0]](ImageInput(called, identity), path, value)
        yield _with_target(item, target), path if isinstance(path, str) else None


def _at(batch: Batch, name: str, row: int) -> Any:
    """A value of a column that may not be there, as Python's; None where there is nothing, or not a number."""
    value = batch[name][row] if name in batch else None
    value = value.item() if isinstance(value, np.generic) else value
    value = os.fsdecode(value) if isinstance(value, bytes) else value
    return None if isinstance(value, float) and np.isnan(value) else value


def _with_target(item: ImageInput, value: Any) -> ImageInput:
    if isinstance(value, str):  # as in lists
        return replace(item, target=read_target(value))
    if isinstance(value, float) and value.is_integer():  # what integers become beside nothing
        value = int(value)
    if value is None or is_integer(value):
        return replace(item, target=value)
    error = TargetError(f"{item.path}: a target is a class index or a label, not {brief(value)}")
    return replace(item, error=item.error or error)


def _file(item: ImageInput, path: Any, value: Any) -> ImageInput:
    if isinstance(path, str):
        return item
    return replace(item, error=ImageError(f"{item.path}: a path must be text, not {brief(path)}"))


def _content(item: ImageInput, path: Any, value: Any) -> ImageInput:
    if isinstance(value, bytes):
        return replace(item, content=value)
    return replace(item, error=ImageError(f"{item.path}: no bytes, but {brief(value)}"))


def _pixels(item: ImageInput, path: Any, value: Any) -> ImageInput:
    if isinstance(value, np.ndarray):
        return _Pixels(item.path, item.id, item.target, pixels=value)
    return replace(item, error=ImageError(f"{item.path}: no pixels, but {brief(value)}"))


def _arrow(values: NDArray[Any]) -> Any:
    """A column that is passed on; arrays become lists."""
    pa = table_columns.pyarrow()
    if values.dtype == object:
        return pa.array([value.tolist() if isinstance(value, np.ndarray) else value for value in values])
    flat = pa.array(values.ravel())
    for length in reversed(values.shape[1:]):
        flat = pa.FixedSizeListArray.from_arrays(flat, length)
    return flat


_IMAGES = {"path": _file, "bytes": _content, "image": _pixels}
