"""An image whose explanations are measured: what metrics read, and the runs that they can ask for."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from seewhy._core import max_abs, minmax
from seewhy._shared.arrays import Bytes, Floats, Integers
from seewhy.contract.metadata import Metadata
from seewhy.errors import NonFiniteError
from seewhy.explainer.explainer import Explainer
from seewhy.explainer.prediction import probabilities
from seewhy.metrics.base import PROBABILITY, EvaluatedMethod, Key, NotMeasurable
from seewhy.metrics.references import REFERENCES

Attributions: TypeAlias = Mapping[str, Floats]
"""Attributions of n images by method: (n, H, W) for maps, else (n, Cin, H, W)."""

_Made = TypeVar("_Made")

BATCH_SIZE = 32
"""Maximum number of images in one run of the graph."""


@dataclass(frozen=True, eq=False)
class EvaluatedImage:
    """One image with its target class, and the attributions of all methods for it."""

    explainer: Explainer
    methods: Sequence[EvaluatedMethod]
    name: str
    """Path of the image's results without extension, from which its random numbers are drawn."""
    view: Bytes
    """The model's view of the image, uint8 of shape (H, W, C)."""
    pixels: Floats
    """The preprocessed image, float32 of shape (Cin, H, W)."""
    target: int
    """Class whose score is explained."""
    logits: Floats
    """Logits of the image, float32 of shape (classes,)."""
    attributions: Attributions
    """Attributions of each method for this image and class, without the axis n."""
    seed: int = 0
    regions: NDArray[np.bool_] | None = None
    """True at the pixels of objects of the target class, of shape (H, W); None if the image has no such objects."""
    partners: Callable[[int], Sequence[tuple[Bytes, int]]] | None = None
    """Function that returns views and classes of this many other images, whose classes all differ."""
    missing: Mapping[str, str] = field(default_factory=dict)
    """Why there are no attributions, by the names of the methods that have none for this image."""
    without_regions: str | None = None
    """Why there are no regions, or None."""
    _explained: dict[Key, Attributions] = field(default_factory=dict, init=False, repr=False)
    _maps: dict[str, Floats] = field(default_factory=dict, init=False, repr=False)
    _cached: dict[Key, Any] = field(default_factory=dict, init=False, repr=False)

    @property
    def metadata(self) -> Metadata:
        """Metadata of the model file."""
        return self.explainer.metadata

    def rng(self, *names: object) -> np.random.Generator:
        """Return a generator of random numbers that depends on the seed, the image and `names` alone."""
        text = "\0".join(map(str, (self.name, *names)))
        return np.random.default_rng([self.seed, zlib.crc32(text.encode())])

    def cached(self, key: Key, make: Callable[[], _Made]) -> _Made:
        """Return the value that `make` returned for this key, which is computed once for all methods and metrics."""
        if key not in self._cached:
            self._cached[key] = make()
        value: _Made = self._cached[key]
        return value

    def explained(
        self,
        key: Key,
        pixels: Callable[[], Floats],
        targets: int | Sequence[int] | None = None,
        explainer: Explainer | None = None,
    ) -> Attributions:
        """Explain changed images or other classes by all methods that can, once for each key.

        Args:
            key: Name of the images and classes. The attributions are kept under this name for other methods and
                metrics, until the image is done.
            pixels: Function that returns preprocessed images, float32 of shape (n, Cin, H, W).
            targets: Class to explain for all or for each; None is the target of this image.
            explainer: Explainer to use instead of that of the evaluation.

        Returns:
            Attributions by method, of shape (n, H, W) or (n, Cin, H, W).

        Raises:
            NotMeasurable: If the model gives NaN or infinity for a changed image.
        """
        if key not in self._explained:
            classes = self.target if targets is None else targets
            try:
                self._explained[key] = self._explain(key, pixels(), classes, explainer or self.explainer)
            except NonFiniteError as error:
                raise NotMeasurable(str(error)) from error
        return self._explained[key]

    def _explain(self, key: Key, pixels: Floats, targets: int | Sequence[int], explainer: Explainer) -> Attributions:
        requests = [one.request for one in self.methods if one.request is not None]
        found: dict[str, Floats] = {}
        if requests:
            each = np.broadcast_to(np.asarray(targets, np.int64), (len(pixels),))
            names, options = [one.name for one in requests], {one.name: one.options for one in requests}
            results = explainer.explain(pixels, names, each, batch_size=BATCH_SIZE, options=options)
            found = {name: result.attributions for name, result in results.items()}
        for one in self.methods:
            if one.is_reference:
                rows = [REFERENCES[one.name].map(self.pattern, self.rng(one.name, key, i)) for i in range(len(pixels))]
                found[one.name] = np.stack(rows)
        return found

    @property
    def pattern(self) -> Floats:
        """Map of the first method whose map varies, or else of the first that has one. `random` shuffles its values.

        Raises:
            NotMeasurable: If no method has a map for this image.
        """
        maps = [self.map_of(one) for one in self.methods if not one.is_reference and one.name in self.attributions]
        if not maps:
            raise NotMeasurable("no method has a map for this image")
        return next((one for one in maps if one.min() < one.max()), maps[0])

    def map_of(self, method: EvaluatedMethod) -> Floats:
        """Return a method's map for this image, float32 of shape (H, W)."""
        if method.name not in self._maps:
            self._maps[method.name] = reduce_channels(self.attributions[method.name], method.reduction)
        return self._maps[method.name]

    def logits_at(self, pixels: Floats) -> Floats:
        """Run the model on changed images.

        Args:
            pixels: Preprocessed images, float32 of shape (n, Cin, H, W).

        Returns:
            Logits, float32 of shape (n, classes).

        Raises:
            NotMeasurable: If the model gives NaN or infinity.
        """
        try:
            return self.explainer.predict(np.ascontiguousarray(pixels, np.float32), BATCH_SIZE).logits
        except NonFiniteError as error:
            raise NotMeasurable(str(error)) from error

    def scores(self, logits: Floats, kind: str) -> NDArray[np.float64]:
        """Return the target's probability or logit, float64 of shape (n,), for logits of shape (n, classes)."""
        if kind != PROBABILITY:
            return logits[:, self.target].astype(np.float64)
        # In float64, a probability that is nearly 1 still differs from 1.
        shares = probabilities(logits.astype(np.float64), self.metadata.score_kind)
        if shares is None:
            raise NotMeasurable("the model gives logits without probabilities")
        return shares[:, self.target]

    def normalised(self, value: float) -> Floats:
        """Return the preprocessed value of each channel for a pixel value.

        Args:
            value: Pixel value from 0 to 1.

        Returns:
            Preprocessed values, float32 of shape (Cin, 1, 1).

        Raises:
            NotMeasurable: If the model file does not record how pixels are normalised.
        """
        how = self.metadata.preprocessing
        if how is None:
            raise NotMeasurable("the model file does not record how pixels are normalised")
        mean, std = (np.array(values, np.float32)[:, None, None] for values in (how.mean, how.std))
        result: Floats = (np.float32(value) - mean) / std
        return result


@dataclass(frozen=True, eq=False)
class EvaluatedExplanation:
    """The explanation of one image by one method, as a metric reads it."""

    image: EvaluatedImage
    method: EvaluatedMethod

    @property
    def attribution(self) -> Floats:
        """Raw attributions, float32 of shape (H, W) for maps, else (Cin, H, W)."""
        return _finite(self.image.attributions[self.method.name])

    @property
    def map(self) -> Floats:
        """One value for each pixel, float32 of shape (H, W).

        Attributions with channels are reduced as the method says. The map may be constant.

        Raises:
            NotMeasurable: If the map holds NaN or infinity.
        """
        return _finite(self.image.map_of(self.method))

    @property
    def varied_map(self) -> Floats:
        """The map; raises `NotMeasurable` if it is constant, because then it ranks no pixel above another."""
        if self.map.min() == self.map.max():
            raise NotMeasurable("the map is constant")
        return self.map

    @property
    def heatmap(self) -> Floats:
        """The map, scaled to [0, 1] by its minimum and maximum; raises `NotMeasurable` if it is constant."""
        scaled: Floats = minmax(self.varied_map[None], 1)[0]
        return scaled

    def ranking(self) -> Integers:
        """Return the flat indices of all pixels by descending value of the map; equal ones stay in row-major order."""
        key = ("ranking", self.method.name)
        return self.image.cached(key, lambda: np.argsort(-self.varied_map.ravel(), kind="stable"))

    def maps_of(self, attributions: Attributions) -> Floats:
        """Return this method's maps (n, H, W) among the attributions that `EvaluatedImage.explained` returned."""
        values = attributions[self.method.name]
        return np.stack([reduce_channels(one, self.method.reduction) for one in values])


def _finite(values: Floats) -> Floats:
    if not np.isfinite(values).all():
        raise NotMeasurable("the map holds NaN or infinity")
    return values


def reduce_channels(attribution: Floats, reduction: str) -> Floats:
    """Reduce attributions (Cin, H, W) to a map (H, W); a map stays as it is.

    Args:
        attribution: Attributions, float32.
        reduction: `sum` adds the channels; `max-abs` takes the maximum of |value| over them (Simonyan et al. 2013,
            section 3.1).

    Returns:
        The map, float32 of shape (H, W).
    """
    if attribution.ndim == 2:
        return attribution
    if reduction == "max-abs":
        strongest: Floats = max_abs(attribution[None], 1)[0]
        return strongest
    total: Floats = attribution.sum(axis=0, dtype=np.float64).astype(np.float32)
    return total


def positive_part(values: Floats) -> NDArray[np.float64]:
    """Return the positive part of a map, float64; raises `NotMeasurable` if it is zero everywhere."""
    positive = np.maximum(values.astype(np.float64), 0)
    if not positive.any():
        raise NotMeasurable("the map has no positive values")
    return positive
