"""The Explainer: a batch of images in, attributions out."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, overload

from seewhy._shared.arrays import Integers
from seewhy._shared.checks import is_integer
from seewhy._shared.cpu_count import usable_cores
from seewhy._shared.text import brief
from seewhy.contract.metadata import Metadata
from seewhy.errors import ImageError, MethodError, TargetError
from seewhy.explainer.batch_explainer import BatchRequest, explain_batch
from seewhy.explainer.explanation import Explanation
from seewhy.explainer.explanation_builder import ExplanationBuilder
from seewhy.images import preprocessing
from seewhy.methods import registry as methods
from seewhy.methods.base import RuleContext
from seewhy.methods.multi_pass import PassCounter
from seewhy.methods.options import resolve_options
from seewhy.methods.registry import METHODS
from seewhy.runtime.checked_runs import GraphRunner
from seewhy.runtime.model_file import ModelFile
from seewhy.runtime.providers import Provider
from seewhy.runtime.sessions import SessionCache, validate_threads
from seewhy.targets.class_targets import resolve_targets, validate_top

Images: TypeAlias = Any
"""A path, a PIL image or a uint8 HxWx3 (or HxW) array; a list of these; or a float32 (N,Cin,H,W) array."""
MethodOptions: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Method -> option -> value."""


class Explainer:
    """Explains the decisions of one model file. May be shared by threads.

    Attributes:
        metadata: everything that the file says about itself.
        methods: names of the methods that the file can serve.
        providers: names of the onnxruntime execution providers in use, in order of preference.
        labels: names of the classes, or None where the file holds none.
        threads: most threads for one run; None is one for each core that the process may use.
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
            threads: most threads to use for one run; None is one for each core that the process may use. At most four
                for each usable core, or 16 if that is more.
            verify: check the file's SHA-256. Damaged files often load and run, with wrong numbers.

        Raises:
            ModelFileError: the file is missing, damaged, or not one that the exporter wrote.
            ProviderError: a provider is unknown, not installed, or does not start.
        """
        self._model = ModelFile.read(path, verify)
        self._asked = providers
        self._start(threads)

    def _start(self, threads: int | None) -> None:
        threads = self.threads = validate_threads(threads)
        self._sessions = SessionCache(self._model, self._asked, threads)
        self._runs = GraphRunner(self._model, self._sessions)
        self._size = RuleContext(*self._model.metadata.image_size, threads or usable_cores())
        self._others: dict[int | None, Explainer] = {}
        self._lock = threading.Lock()

    def with_threads(self, threads: int | None) -> Explainer:
        """Return an Explainer of the same model whose runs take `threads` threads, and keep it for the next time.

        Several threads that call `explain` at the same time are best served by runs of a single thread each. The file
        is not read again, but the weights are in memory once for each.
        """
        threads = validate_threads(threads)
        if threads == self.threads:
            return self
        with self._lock:
            if threads not in self._others:
                other = copy.copy(self)
                other._start(threads)
                self._others[threads] = other
            return self._others[threads]

    @property
    def metadata(self) -> Metadata:
        return self._model.metadata

    @property
    def methods(self) -> tuple[str, ...]:
        return methods.available_methods(self._model.outputs)

    @property
    def providers(self) -> tuple[str, ...]:
        return self._sessions.providers

    @property
    def sha256(self) -> str:
        """SHA-256 of the model file's bytes as they were read, as 64 hexadecimal digits."""
        return self._model.sha256

    @property
    def external_data_sha256(self) -> str | None:
        """SHA-256 of the bytes of the weights file beside the model file, or None where there is none."""
        return self._model.external_data_sha256

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self._model.metadata.labels

    def __repr__(self) -> str:
        return f"Explainer({str(self._model.path)!r}, providers={list(self.providers)})"

    @overload
    def explain(
        self,
        images: Images,
        method: str = ...,
        target: Any = ...,
        top: int | None = ...,
        batch_size: int = ...,
        options: MethodOptions | None = ...,
        progress: Callable[[int, int], object] | None = ...,
    ) -> Explanation: ...

    @overload
    def explain(
        self,
        images: Images,
        method: Sequence[str],
        target: Any = ...,
        top: int | None = ...,
        batch_size: int = ...,
        options: MethodOptions | None = ...,
        progress: Callable[[int, int], object] | None = ...,
    ) -> dict[str, Explanation]: ...

    def explain(
        self,
        images: Images,
        method: str | Sequence[str] = "gradcam",
        target: Any = None,
        top: int | None = None,
        batch_size: int = 32,
        options: MethodOptions | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Explanation | dict[str, Explanation]:
        """Explain why the model scores a class as it does, for each image.

        Args:
            images: a path, a PIL image or a uint8 HxWx3 (or HxW) array, or a list of these; or one float32
                (N,Cin,H,W) array, taken as already preprocessed.
            method: a method's name, or a list of names: one plain run serves them all, and methods of many passes add
                theirs.
            target: None (the class that the model predicts), a class index, or a label; a list of N of these is one
                per image, and a nested list or (N,K) array is K per image.
            top: explain the `top` highest classes of each image, best first, instead of `target`.
            batch_size: the most images (or pairs of image and class) that go through the graph together.
            options: of methods that have any, by the method's name: {"smoothgrad": {"samples": 50, "seed": 1}}.
            progress: called as progress(done, total) with the number of passes, while methods of many passes run.

        Returns:
            An `Explanation`, or for a list of methods a dict of them by name.

        Raises:
            ImageError: an image cannot be used.
            MethodError: as `resolve_options` raises it, or `progress` cannot be called.
            TargetError: a target is out of range, unknown, ambiguous, or one too few or too many.
            NonFiniteError: the model produced NaN or infinity.
            ProviderError: onnxruntime failed to run the graph.
        """
        resolved = self.resolve_methods(method, options)
        if progress is not None and not callable(progress):
            raise MethodError(f"progress must be a function of two numbers, not {brief(progress)}")
        if not is_integer(batch_size) or batch_size < 1:
            raise ImageError(f"batch_size must be a positive integer, not {brief(batch_size)}")
        batch = preprocessing.image_batch(images, self.metadata)
        wanted = self._wanted(target, top, len(batch))
        nested = wanted is None or wanted.ndim == 2
        each = int(top) if top is not None else (wanted.shape[1] if wanted is not None and nested else 1)
        asked = None if wanted is None else wanted.reshape(-1, each)

        request = BatchRequest([METHODS[name] for name in resolved], resolved, each, int(batch_size), self._size)
        results = ExplanationBuilder(request, self.metadata, nested)
        count = PassCounter(len(batch), progress)
        for start in range(0, len(batch), request.batch_size):
            part = slice(start, start + request.batch_size)
            photos, pixels = batch.load(part.start, part.stop, self._size.threads)
            classes = None if asked is None else asked[part]
            results.add(explain_batch(self._runs, request, pixels, classes, start, count), photos)
        found = results.explanations()
        return found[method] if isinstance(method, str) else found

    def resolve_methods(
        self, method: str | Sequence[str], options: MethodOptions | None = None
    ) -> dict[str, dict[str, Any]]:
        """Return every method asked for, in order, with all its options: those given, and defaults for the others.

        Raises:
            MethodError: a method is unknown, the file lacks what it needs, or an option is unknown or wrong.
        """
        names = [method] if isinstance(method, str) else method
        if not isinstance(names, (list, tuple)):
            raise MethodError(f"method must be a name or a list of names, not {brief(method)}")
        if not names:
            raise MethodError(f"no method given; this file can serve {', '.join(self.methods)}")
        found = [methods.find_method(name, self._model.outputs, str(self._model.path)) for name in names]
        given = {} if options is None else options
        if not isinstance(given, Mapping):
            raise MethodError(f"options must be a dict of methods and their options, not {brief(given)}")
        for name in given:
            if name not in METHODS:
                known = ", ".join(METHODS)
                raise MethodError(f"options for {brief(name)}, but there is no such method; there are {known}")
            if name not in names:
                raise MethodError(f"options for {name}, but the methods asked for are {', '.join(names)}")
        return {one.name: resolve_options(one.name, one.options, given.get(one.name)) for one in found}

    def _wanted(self, target: Any, top: int | None, images: int) -> Integers | None:
        """Targets (N,) or (N,K); None where `top` asks for the highest, which only the logits tell."""
        if top is None:
            return resolve_targets(target, images, self.metadata.class_count, self.labels)
        if target is not None:
            raise TargetError(f"give target or top, not both (target={brief(target)}, top={brief(top)})")
        validate_top(top, self.metadata.class_count)
        return None
