"""The Explainer, which turns images into explanations."""

from __future__ import annotations

import copy
import io
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from seewhy._shared import checks
from seewhy._shared.arrays import Floats, Integers
from seewhy._shared.background import Background
from seewhy._shared.cpu_count import usable_cores
from seewhy._shared.text import brief
from seewhy.contract.constants import IMAGES, LOGITS
from seewhy.contract.metadata import Metadata
from seewhy.contract.quantization import Quantization
from seewhy.errors import ArgumentError, ModelFileError, NonFiniteError
from seewhy.explainer.batch_explainer import BatchRequest, explain_batch
from seewhy.explainer.explanation import Explanation
from seewhy.explainer.explanation_builder import ExplanationBuilder
from seewhy.explainer.prediction import Prediction
from seewhy.methods.base import RuleContext
from seewhy.methods.float32_files import cannot_shuffle
from seewhy.methods.method import MethodRequest
from seewhy.methods.multi_pass import PassCounter
from seewhy.methods.registry import METHODS, available_methods, resolve_methods
from seewhy.runtime.checked_runs import GraphRunner
from seewhy.runtime.model_file import ModelFile, repeat_reason
from seewhy.runtime.parameter_shuffling import with_shuffled_values
from seewhy.runtime.providers import Provider
from seewhy.runtime.sessions import SessionCache, validate_threads
from seewhy.targets.class_targets import Target, TargetRequest, resolve_request

if TYPE_CHECKING:
    from PIL import Image

    from seewhy.images import preprocessing

OneImage: TypeAlias = "str | os.PathLike[str] | bytes | io.BytesIO | Image.Image | NDArray[np.uint8]"
"""A path, the bytes of an image file, a PIL image, or a uint8 array of shape (H, W, 3), (H, W, 4) or (H, W)."""
Images: TypeAlias = "OneImage | Sequence[OneImage] | NDArray[np.float32]"
"""One image, a list of images, or a float32 array of shape (N, Cin, H, W) that is preprocessed already."""
Targets: TypeAlias = "Target | Sequence[Target | None] | Sequence[Sequence[Target | None]] | Integers | None"
"""None, a class index or label, N of them, or N times K of them."""
MethodOptions: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Option values by method and option."""
# A program explains with the same few arguments again and again.
_MAX_REQUESTS = 1000


class Explainer:
    """Explains the decisions of one model file. Threads may share an explainer.

    Attributes:
        metadata: Everything that the model file says about itself.
        methods: Names of the methods that the file can serve.
        providers: Names of the onnxruntime execution providers in use, in order of preference.
        labels: Labels of all classes, or None if the file holds none.
        quantization: Quantisation of an 8-bit file and its measured drift, or None for a float32 file.
        threads: Maximum number of threads for one run; None is one for each core that the process may use.
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
            path: A file that `seewhy export` wrote.
            providers: Names of onnxruntime execution providers ("CUDAExecutionProvider", or "cuda" for short), or
                (name, options) pairs, in order of preference. None takes CUDA if it is usable, else the CPU.
            threads: Maximum number of threads for one run; None is one for each core that the process may use. At most
                four for each usable core, or 16 if that is more.
            verify: Whether to verify the file's SHA-256. Damaged files often load and run, with wrong numbers.

        Raises:
            ArgumentError: If an argument has the wrong type, or `threads` is out of range.
            ModelFileError: If the file is missing, damaged, or not one that the exporter wrote.
            ProviderError: If a provider is unknown, not installed, or does not start.
        """
        path, verify = checks.path("the model file", path), checks.flag("verify", verify)
        self._model = ModelFile.read(path, verify, for_session=True)
        self._requested_providers = _validate_providers(providers)
        self._start(threads)

    def _start(self, threads: int | None, keeps_memory: bool = True) -> None:
        threads = self.threads = validate_threads(threads)
        self._sessions = SessionCache(self._model, self._requested_providers, threads, keeps_memory)
        self._runs = GraphRunner(self._model, self._sessions)
        self._context = RuleContext(*self._model.metadata.image_size, threads or usable_cores())
        self._resolved: dict[str, tuple[MethodRequest, ...]] = {}
        self._requests: dict[tuple[Any, ...], BatchRequest] = {}
        self._others: dict[int | None, Explainer] = {}
        self._lock = threading.Lock()

    def with_threads(self, threads: int | None) -> Explainer:
        """Prepare an explainer of the same model that uses another number of threads.

        Several threads that call `explain` at the same time are served best by runs of a single thread each. The file
        is not read again, but the weights are in memory once for each number of threads.

        Args:
            threads: As in `Explainer`.

        Returns:
            The explainer, which is kept for the next call, or this one if the number is the same.

        Raises:
            ArgumentError: If the number is out of range.
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

    def with_shuffled_parameters(self, tensors: Iterable[str], seed: int = 0) -> Explainer:
        """Prepare an explainer of the same model in which the values of some tensors are shuffled.

        Forward and backward pass use the same shuffled values. The file is not read again, and hashes and metadata
        stay those of the file. The order of a tensor's values depends on the seed and its name alone.

        Args:
            tensors: Names of tensors, such as those in `metadata.parameters`.
            seed: Seed, an integer of at least 0.

        Returns:
            A new explainer.

        Raises:
            ArgumentError: If the seed is not an integer of at least 0.
            ModelFileError: If the model has no such tensor, or is quantised.
        """
        if self.quantization is not None:
            raise ModelFileError(f"{self._model.name}: {cannot_shuffle(self.quantization)}")
        other = copy.copy(self)
        other._model = with_shuffled_values(self._model, tensors, seed)
        # There may be many such explainers, which take turns. When each kept the memory of its runs, 16 of them took
        # 4 GiB instead of 1.3 (EfficientNet-Lite0, gradients of the image), and were not faster.
        other._start(self.threads, keeps_memory=False)
        return other

    @property
    def session_bytes(self) -> int:
        """Size in bytes of the weights that this explainer's sessions hold, besides those of the model file."""
        return self._sessions.weight_bytes

    def release_sessions(self) -> None:
        """Free the memory of this explainer's sessions. Later calls create them again."""
        self._sessions.clear()

    @property
    def path(self) -> Path:
        """Path of the model file."""
        return self._model.path

    @property
    def metadata(self) -> Metadata:
        """Everything that the model file says about itself."""
        return self._model.metadata

    @property
    def methods(self) -> tuple[str, ...]:
        """Names of the methods that the file can serve."""
        return available_methods(self._model.outputs)

    @property
    def providers(self) -> tuple[str, ...]:
        """Names of the onnxruntime execution providers in use, in order of preference."""
        return self._sessions.providers

    @property
    def sessions_created(self) -> int:
        """Number of onnxruntime sessions that were created so far. Creating one takes longer than many runs."""
        return self._sessions.created

    @property
    def sha256(self) -> str:
        """SHA-256 of the model file's bytes as they were read, as 64 hexadecimal digits."""
        return self._model.sha256

    @property
    def external_data_sha256(self) -> str | None:
        """SHA-256 of the bytes of the weights file beside the model file, or None if there is none."""
        return self._model.external_data_sha256

    @property
    def labels(self) -> tuple[str, ...] | None:
        """Labels of all classes, or None if the file holds none."""
        return self._model.metadata.labels

    @property
    def quantization(self) -> Quantization | None:
        """Quantisation of an 8-bit file and its measured drift, or None for a float32 file."""
        return self._model.metadata.quantization

    def __repr__(self) -> str:
        """Return the path, the providers, and `int8` if the file is quantised."""
        kind = "" if self.quantization is None else f", {self.quantization.weight_type}"
        return f"Explainer({str(self._model.path)!r}, providers={list(self.providers)}{kind})"

    @overload
    def explain(
        self,
        images: Images,
        method: str = ...,
        target: Targets = ...,
        top: int | None = ...,
        batch_size: int = ...,
        options: MethodOptions | None = ...,
        progress: Callable[[int, int], object] | None = ...,
    ) -> Explanation: ...

    @overload
    def explain(
        self,
        images: Images,
        method: list[str] | tuple[str, ...],
        target: Targets = ...,
        top: int | None = ...,
        batch_size: int = ...,
        options: MethodOptions | None = ...,
        progress: Callable[[int, int], object] | None = ...,
    ) -> dict[str, Explanation]: ...

    def explain(
        self,
        images: Images,
        method: str | Sequence[str] = "gradcam",
        target: Targets = None,
        top: int | None = None,
        batch_size: int = 32,
        options: MethodOptions | None = None,
        progress: Callable[[int, int], object] | None = None,
    ) -> Explanation | dict[str, Explanation]:
        """Explain why the model scores a class as it does, for each image.

        Args:
            images: A path, the bytes of an image file, a `BytesIO`, a PIL image, a uint8 array of shape (H, W, 3),
                (H, W, 4) or (H, W), or a list of these; or one float32 array of shape (N, Cin, H, W), which is taken as
                preprocessed.
            method: Name of a method, or a list of names. One plain run serves them all; multi-pass methods add theirs.
            target: None (the predicted class), a class index, or a label. A list of N of these gives one target for
                each image, and a nested list or (N, K) array gives K. A text of digits is a class index.
            top: Number of classes with the highest logits to explain, best first, instead of `target`.
            batch_size: Maximum number of images (or pairs of image and class) in one run of the graph.
            options: Options by method and name: {"smoothgrad": {"samples": 50, "seed": 1}}.
            progress: Function called as progress(done, total) with numbers of passes, while multi-pass methods run.

        Returns:
            An `Explanation`, or for a list of methods a dict of them by name.

        Raises:
            ArgumentError: If an argument is not valid; `MethodError` and `TargetError` are kinds of it.
            ImageError: If an image cannot be read or used.
            NonFiniteError: If the model produced NaN or infinity.
            ProviderError: If onnxruntime failed to run the graph.
        """
        methods = self.resolve_methods(method, options)
        creating = self._create_first_session(images, methods, batch_size)
        try:
            batch = self._batch(images)
            metadata = self._model.metadata
            targets = resolve_request(target, top, len(batch), metadata.class_count, metadata.labels)
            found = self._explain(batch, methods, targets, batch_size, progress)
        finally:
            if creating is not None:
                creating.result()
        return found[methods[0].name] if isinstance(method, str) else found

    def explain_resolved(
        self,
        images: Sequence[preprocessing.LoadedImage],
        methods: Sequence[MethodRequest],
        targets: TargetRequest,
        batch_size: int,
        progress: Callable[[int, int], object] | None = None,
    ) -> dict[str, Explanation]:
        """Explain images whose methods and targets are resolved already, as jobs do.

        Args:
            images: Loaded images.
            methods: What `resolve_methods` returned.
            targets: Targets of the images.
            batch_size: As in `explain`.
            progress: As in `explain`.

        Returns:
            An explanation for each method by its name.

        Raises:
            NonFiniteError: If the model produced NaN or infinity.
            ProviderError: If onnxruntime failed to run the graph.
        """
        return self._explain(self._batch(list(images)), methods, targets, batch_size, progress)

    def _batch(
        self, images: Images | Sequence[preprocessing.LoadedImage]
    ) -> preprocessing.ImageBatch | preprocessing.ArrayBatch:
        """Return images as a batch, which are not decoded yet."""
        from seewhy.images.preprocessing import image_batch  # imported late, see `_create_first_session`

        return image_batch(images, self.metadata, self._context.threads)

    def _create_first_session(
        self, images: Images, methods: Sequence[MethodRequest], batch_size: int
    ) -> Background[None] | None:
        """Start to create the first session in a thread, or return None if that saves no time.

        Creating it takes longer than importing the code that decodes images, and than decoding one.
        """
        # There may be nothing to decode, or the outputs may depend on more than the methods.
        if self._sessions.created or isinstance(images, np.ndarray) or self._sessions.maps_in_graph:
            return None

        def create() -> None:
            with suppress(Exception):  # the call fails in the same way when it needs the session
                rows = min(len(images), batch_size) if isinstance(images, (list, tuple)) else 1
                self._sessions.prepare(self._request(methods, 1, batch_size).outputs, rows)

        return Background(create, "seewhy-first-session")

    def _explain(
        self,
        batch: preprocessing.ImageBatch | preprocessing.ArrayBatch,
        methods: Sequence[MethodRequest],
        targets: TargetRequest,
        batch_size: int,
        progress: Callable[[int, int], object] | None,
    ) -> dict[str, Explanation]:
        if progress is not None and not callable(progress):
            raise ArgumentError(f"progress must be a function of two numbers, not {brief(progress)}")
        request = self._request(methods, targets.per_image, batch_size)
        builder = ExplanationBuilder(request, self.metadata, targets.nested)
        counter = PassCounter(len(batch), progress)
        for start in range(0, len(batch), request.batch_size):
            part = slice(start, start + request.batch_size)
            images, pixels = batch.load(part.start, part.stop, self._context.threads)
            indices = None if targets.indices is None else targets.indices[part]
            builder.add(explain_batch(self._runs, request, pixels, indices, start, counter), images)
        return builder.explanations()

    def _request(self, methods: Sequence[MethodRequest], per_image: int, batch_size: int) -> BatchRequest:
        """Return the request for each batch. Without options, it is kept for the next call with the same arguments."""
        batch_size = checks.positive_integer("batch_size", batch_size)
        key = (per_image, batch_size, *[one.method for one in methods])
        has_options = any(one.options for one in methods)  # their values may be of any type, so they are not compared
        known = None if has_options else self._requests.get(key)
        if known is None:
            starts_at_layer = repeat_reason(self._model) is None
            known = BatchRequest(
                tuple(methods), per_image, batch_size, self._context, self._sessions.maps_in_graph, starts_at_layer
            )
            if not has_options and len(self._requests) < _MAX_REQUESTS:
                self._requests[key] = known
        return known

    def resolve_methods(
        self, method: str | Sequence[str], options: MethodOptions | None = None
    ) -> tuple[MethodRequest, ...]:
        """Resolve names of methods and their options, as `explain` takes them.

        Args:
            method: Name of a method, or a list of names.
            options: Options by method and name; defaults are used for the others.

        Returns:
            Each method once and in order, with a value for each of its options.

        Raises:
            MethodError: If a method is unknown, the file lacks what it needs, or an option is unknown or wrong.
        """
        if options is not None or not isinstance(method, str):
            return resolve_methods(method, options, self._model.outputs, self._model.name, self.metadata)
        known = self._resolved.get(method)
        if known is None or METHODS.get(method) is not known[0].method:  # a method of this name was registered since
            known = resolve_methods(method, None, self._model.outputs, self._model.name, self.metadata)
            self._resolved[method] = known
        return known

    def predict(self, images: Images, batch_size: int = 32) -> Prediction:
        """Run the model without explaining anything.

        Args:
            images: As in `explain`.
            batch_size: Maximum number of images in one run of the graph.

        Returns:
            Logits, probabilities and classes of the N images.

        Raises:
            ArgumentError: If `batch_size` is not a positive integer.
            ImageError: If an image cannot be read or used.
            NonFiniteError: If the model produced NaN or infinity.
            ProviderError: If onnxruntime failed to run the graph.
        """
        batch_size = checks.positive_integer("batch_size", batch_size)
        batch = self._batch(images)
        views: list[preprocessing.ModelView] = []
        logits = []
        for start in range(0, len(batch), batch_size):
            loaded, pixels = batch.load(start, start + batch_size, self._context.threads)
            numbers = range(start, start + len(pixels))
            logits.append(self._runs(frozenset({LOGITS}), {IMAGES: pixels}, numbers)[LOGITS])
            views += loaded
        return Prediction(np.concatenate(logits), self.labels, self.metadata.score_kind, tuple(views))

    def preprocess(self, images: Images) -> Floats:
        """Decode, resize, crop and normalise images as the model expects them.

        Args:
            images: As in `explain`.

        Returns:
            Preprocessed pixels, float32 of shape (N, Cin, H, W). `explain` and `predict` take them, too.

        Raises:
            ImageError: If an image cannot be read or used, or the model file does not record how to preprocess images.
        """
        batch = self._batch(images)
        return batch.load(0, len(batch), self._context.threads)[1]

    def warm_up(self, method: str | Sequence[str] = "gradcam", classes: int = 1, batch_size: int = 1) -> None:
        """Create the sessions that a later call of `explain` needs, by explaining images of zeros.

        The first call of `explain` for a set of methods otherwise takes longer than later ones. A server calls this
        before it accepts requests.

        Args:
            method: Name of a method, or the list of names that later calls will give.
            classes: Number of classes for each image in later calls.
            batch_size: Number of images in later calls.

        Raises:
            ArgumentError: If an argument is not valid.
            ProviderError: If onnxruntime failed to run the graph.
        """
        methods = self.resolve_methods(method)
        shape = (checks.positive_integer("batch_size", batch_size), self.metadata.channels, *self.metadata.image_size)
        try:
            zeros = np.zeros(shape, np.float32)
        except (ValueError, MemoryError):
            raise ArgumentError(f"batch_size {batch_size} is too large: the images do not fit into memory") from None
        top = None if checks.positive_integer("classes", classes) == 1 else classes
        with suppress(NonFiniteError):  # images of zeros are unlike any image that the network was trained on
            self.explain(zeros, [one.name for one in methods], top=top, batch_size=batch_size)


def _validate_providers(providers: Any) -> Sequence[Provider] | None:
    """Return the providers if each is a name, or a pair of a name and a dict of options."""
    given = providers if isinstance(providers, (list, tuple)) else [] if providers is None else [providers]
    for one in given:
        pair = one if isinstance(one, tuple) and len(one) == 2 else (one, {})
        if not isinstance(pair[0], str) or not isinstance(pair[1], Mapping):
            raise ArgumentError(f"a provider must be a name or a pair (name, options), not {brief(one)}")
    return None if providers is None else given
