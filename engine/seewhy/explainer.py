"""The Explainer: a batch of images in, attributions out."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from . import methods, preprocess
from .contract import IMAGES, LOGITS, PREDICTED, Metadata
from .errors import ImageError, MethodError, OutputError, TargetError
from .explanation import Explanation
from .methods import Attribution, Method, Size
from .model import ModelFile
from .preprocess import Picture
from .sessions import Outputs, Provider, Sessions
from .targets import check_top, highest, is_integer, resolve

Floats: TypeAlias = NDArray[np.float32]
Images: TypeAlias = Any
"""A path, a PIL image or a uint8 HxWx3 (or HxW) array; a list of these; or a float32 (N,Cin,H,W) array."""


class Explainer:
    """Explains the decisions of one model file. May be shared by threads.

    Attributes:
        metadata: everything that the file says about itself.
        methods: names of the methods that the file can serve.
        providers: names of the onnxruntime execution providers in use, in order of preference.
        labels: names of the classes, or None where the file holds none.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        providers: Sequence[Provider] | None = None,
        threads: int | None = None,
        verify: bool = True,
    ) -> None:
        """Read a model file.

        Args:
            path: a file that `seewhy export` wrote.
            providers: names of onnxruntime execution providers ("CUDAExecutionProvider", or "cuda" for short), or
                (name, options) pairs, in order of preference. None takes CUDA if usable, else the CPU.
            threads: most threads to use for one run; None leaves it to onnxruntime.
            verify: check the file's SHA-256. Damaged files often load and run, with wrong numbers.

        Raises:
            ModelFileError: the file is missing, damaged, or not one that the exporter wrote.
            ProviderError: a provider is unknown, not installed, or does not start.
        """
        self._model = ModelFile.read(path, verify)
        self._sessions = Sessions(self._model, providers, threads)
        self._size = Size(*self._model.metadata.image_size, threads or 0)

    @property
    def metadata(self) -> Metadata:
        return self._model.metadata

    @property
    def methods(self) -> tuple[str, ...]:
        return methods.available(self._model.outputs)

    @property
    def providers(self) -> tuple[str, ...]:
        return self._sessions.providers

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self._model.metadata.labels

    def __repr__(self) -> str:
        return f"Explainer({str(self._model.path)!r}, providers={list(self.providers)})"

    @overload
    def explain(
        self, images: Images, method: str = ..., target: Any = ..., top: int | None = ..., batch_size: int = ...
    ) -> Explanation: ...

    @overload
    def explain(
        self, images: Images, method: Sequence[str], target: Any = ..., top: int | None = ..., batch_size: int = ...
    ) -> dict[str, Explanation]: ...

    def explain(
        self,
        images: Images,
        method: str | Sequence[str] = "gradcam",
        target: Any = None,
        top: int | None = None,
        batch_size: int = 32,
    ) -> Explanation | dict[str, Explanation]:
        """Explain why the model scores a class as it does, for each image.

        Args:
            images: a path, a PIL image or a uint8 HxWx3 (or HxW) array, or a list of these; or one float32
                (N,Cin,H,W) array, taken as already preprocessed.
            method: a method's name, or a list of names: then the graph runs once for all of them.
            target: None (the class that the model predicts), a class index, or a label; a list of N of these is one
                per image, and a nested list or (N,K) array is K per image.
            top: explain the `top` highest classes of each image, best first, instead of `target`.
            batch_size: the most images (or pairs of image and class) that go through the graph together.

        Returns:
            An `Explanation`, or for a list of methods a dict of them by name.

        Raises:
            ImageError: an image cannot be used.
            MethodError: a method is unknown, or the file lacks what it needs.
            TargetError: a target is out of range, unknown, ambiguous, or one too few or too many.
            OutputError: the model produced NaN or infinity.
            ProviderError: onnxruntime failed to run the graph.
        """
        chosen = self._methods([method] if isinstance(method, str) else method)
        if not is_integer(batch_size) or batch_size < 1:
            raise ImageError(f"batch_size must be a positive integer, not {batch_size!r}")
        batch = preprocess.batch(images, self.metadata)
        wanted = self._wanted(target, top, len(batch))
        each = top or (wanted.shape[1] if wanted is not None and wanted.ndim == 2 else 1)
        step = max(1, batch_size // each)

        rows = _Rows(chosen)
        photographs: list[Picture] = []
        for start in range(0, len(batch), step):
            photos, pixels = batch.load(start, start + step, self._size.threads)
            if wanted is None:
                asked = highest(self._run(frozenset(), pixels, None, start, 1)[LOGITS], each)
            else:
                asked = wanted[start : start + step]
            self._explain_part(pixels, asked.reshape(-1), each, start, batch_size, rows)
            photographs += photos
        nested = wanted is None or wanted.ndim == 2
        results = rows.explanations(each, nested, self.metadata, tuple(photographs))
        return results[method] if isinstance(method, str) else results

    def _methods(self, names: Sequence[str]) -> list[Method]:
        if not names:
            raise MethodError(f"no method given; this file can serve {', '.join(self.methods)}")
        return [methods.find(name, self._model.outputs, str(self._model.path)) for name in dict.fromkeys(names)]

    def _wanted(self, target: Any, top: int | None, images: int) -> NDArray[np.int64] | None:
        """Targets (N,) or (N,K); None where `top` asks for the highest, which only the logits tell."""
        if top is None:
            return resolve(target, images, self.metadata.classes, self.labels)
        if target is not None:
            raise TargetError(f"give target or top, not both (target={target!r}, top={top!r})")
        check_top(top, self.metadata.classes)
        return None

    def _explain_part(
        self, pixels: Floats, asked: NDArray[np.int64], each: int, first: int, batch_size: int, rows: _Rows
    ) -> None:
        """Explain n images for their n*each targets, in runs of at most `batch_size` pairs."""
        outputs = frozenset(name for method in rows.methods for name in method.outputs)
        repeated = pixels if each == 1 else np.repeat(pixels, each, axis=0)
        for start in range(0, len(asked), batch_size):
            part = slice(start, start + batch_size)
            values = self._run(outputs, repeated[part], asked[part], first * each + start, each)
            rows.add(values, asked[part], self._size)

    def _run(
        self, outputs: frozenset[str], pixels: Floats, asked: NDArray[np.int64] | None, first: int, each: int
    ) -> Outputs:
        """Run the graph for `outputs` and the logits; `first` and `each` say which image a row belongs to.

        The images themselves are among the values that come back.
        """
        if asked is None:
            asked = np.full(len(pixels), PREDICTED, np.int64)
        values = self._sessions.run(outputs | {LOGITS}, pixels, asked)
        for name, value in values.items():
            row = _first_not_finite(value)
            if row is not None:
                raise OutputError(
                    f"{self._model.path}: {name} of image {(first + row) // each} holds NaN or infinity, so there is "
                    f"nothing to show; check the model's weights and preprocessing"
                )
        return {IMAGES: pixels, **values}


@dataclass
class _Rows:
    """Results by pairs of image and class, collected part by part."""

    methods: list[Method]
    logits: list[Floats] = field(default_factory=list)
    targets: list[NDArray[np.int64]] = field(default_factory=list)
    attributions: list[list[Attribution]] = field(default_factory=list)
    heatmaps: list[list[Floats]] = field(default_factory=list)

    def add(self, values: Outputs, asked: NDArray[np.int64], size: Size) -> None:
        logits = values[LOGITS]
        self.logits.append(logits)
        self.targets.append(np.where(asked == PREDICTED, logits.argmax(axis=1), asked))
        attributions = [method.combine(values, size) for method in self.methods]
        for method, attribution in zip(self.methods, attributions, strict=True):
            if _first_not_finite(attribution.values) is not None:
                raise OutputError(f"{method.name}: the values overflow float32; check the model's weights")
        self.attributions.append(attributions)
        self.heatmaps.append([m.heatmaps(a.values, size) for m, a in zip(self.methods, attributions, strict=True)])

    def explanations(
        self, each: int, nested: bool, metadata: Metadata, photographs: tuple[Picture, ...]
    ) -> dict[str, Explanation]:
        """Put the parts together: one Explanation a method."""

        def join(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
            joined = parts[0] if len(parts) == 1 else np.concatenate(parts)
            return joined.reshape(-1, each, *joined.shape[1:]) if nested else joined

        logits = np.concatenate(self.logits)[::each]
        targets = join(self.targets)
        results = {}
        for i, method in enumerate(self.methods):
            maps = [part[i].maps for part in self.attributions]
            results[method.name] = Explanation(
                method=method.name,
                logits=logits,
                probabilities=_SCORES[metadata.score](logits),
                targets=targets,
                maps=join([m for m in maps if m is not None]) if maps[0] is not None else None,
                attributions=join([part[i].values for part in self.attributions]),
                heatmaps=join([part[i] for part in self.heatmaps]),
                classes=metadata.labels,
                photographs=photographs,
            )
        return results


def _first_not_finite(values: Floats) -> int | None:
    """The first row of `values` that holds NaN or infinity."""
    # NaN and infinity survive a sum, and one sum is much cheaper than a look at each element.
    with np.errstate(all="ignore"):
        if np.isfinite(values.sum()):
            return None
    bad = np.flatnonzero(~np.isfinite(values).reshape(len(values), -1).all(axis=1))
    return int(bad[0]) if bad.size else None


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    result: Floats = powers / powers.sum(axis=1, keepdims=True)
    return result


def _sigmoid(logits: Floats) -> Floats:
    small = np.exp(-np.abs(logits))  # never overflows
    result: Floats = np.where(logits >= 0, 1, small) / (1 + small)
    return result


_SCORES: dict[str, Callable[[Floats], Floats | None]] = {
    "softmax": _softmax,
    "sigmoid": _sigmoid,
    "none": lambda logits: None,
}
