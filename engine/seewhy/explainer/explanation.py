"""Explanation of a batch of images by one method: arrays, figures and files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from PIL import Image

from seewhy._shared.arrays import Floats, Integers, sigmoid, softmax
from seewhy.images.preprocessing import ModelView
from seewhy.methods.base import RuleContext, full_size
from seewhy.methods.registry import METHODS
from seewhy.storage import output_folder, result_files
from seewhy.storage.result_names import unique_names
from seewhy.visualization import overlays as render
from seewhy.visualization.drawing_options import DEFAULT_ALPHA, DEFAULT_CANVAS, DEFAULT_COLORMAP

_PROBABILITIES: dict[str, Callable[[Floats], Floats] | None] = {"softmax": softmax, "sigmoid": sigmoid, "none": None}


@dataclass(frozen=True, eq=False)
class Explanation:
    """The result of `Explainer.explain`, for N images and, with K classes each, for N*K pairs.

    [K] below is there where K classes were asked for (a nested `target`, or `top`), and absent otherwise.
    """

    method: str
    logits: Floats
    """(N,classes): scores before softmax or sigmoid."""
    targets: Integers
    """(N,[K]): the classes explained."""
    maps: Floats | None
    """(N,[K],h,w): CAM methods' weighted sums, before ReLU and upsampling; None for gradient methods."""
    input_attributions: Floats | None = field(repr=False)
    """The attributions of gradient methods; None for CAM methods, whose attributions are made of the maps."""
    context: RuleContext = field(repr=False)
    """Of the attributions."""
    class_labels: tuple[str, ...] | None = field(repr=False)
    """The labels of all the model's classes, where the file holds them."""
    score_kind: str = field(repr=False)
    """What makes probabilities of the logits: `softmax`, `sigmoid` or `none`."""
    images: tuple[ModelView, ...] = field(repr=False)
    """The N images as the model saw them."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The method's options, those left at their defaults included; empty where it has none."""
    completeness: Floats | None = None
    """(N,[K]), for integrated gradients: |sum of the attributions - (y(x) - y(baseline))|, in logits; 0 is exact."""

    # Made when they are first asked for: whoever draws overlays or stores maps needs none of these.

    @cached_property
    def probabilities(self) -> Floats | None:
        """(N,classes) in [0,1]: softmax or sigmoid of the logits; None where the scores have no such meaning."""
        make = _PROBABILITIES[self.score_kind]
        return None if make is None else make(self.logits)

    @cached_property
    def attributions(self) -> Floats:
        """Raw values: (N,[K],H,W) for CAM methods, (N,[K],Cin,H,W) for gradient methods."""
        if self.input_attributions is not None:
            return self.input_attributions
        full = full_size(self._flat_maps(), METHODS[self.method].rectified, self.context)
        return full.reshape(*self.targets.shape, *full.shape[1:])

    @cached_property
    def heatmaps(self) -> Floats:
        """(N,[K],H,W) in [0,1]: min-max of the attributions; for gradient methods, of max |value| over channels."""
        values = self.attributions
        flat = values.reshape(-1, *values.shape[self.targets.ndim :])
        heatmaps = METHODS[self.method].heatmaps(flat, self.context)
        return heatmaps.reshape(*self.targets.shape, *heatmaps.shape[1:])

    @property
    def labels(self) -> list[str] | list[list[str]]:
        """Names of the classes explained, in the shape of `targets`."""
        if self.targets.ndim == 1:
            return [self._name(index) for index in self.targets]
        return [[self._name(index) for index in row] for row in self.targets]

    def overlays(
        self, colormap: str = DEFAULT_COLORMAP, alpha: float = DEFAULT_ALPHA, canvas: str = DEFAULT_CANVAS
    ) -> list[Image.Image]:
        """Return the heatmaps laid over the photographs, N or (image by image) N*K RGB images.

        Args:
            colormap: Name of a colormap; `seewhy.list_colormaps()` lists them.
            alpha: the heatmap's share in each pixel, 0 to 1.
            canvas: `model` draws what the model saw (resized and cropped); `original` draws on the whole photograph,
                and leaves pixels outside the crop as they are.

        Raises:
            ArgumentError: an unknown colour map or canvas, or an alpha outside [0,1].
            ImageError: the original photograph can no longer be read.
        """
        photos = [photo for photo in self.images for _ in range(self._each)]
        if canvas == "model" and self.maps is not None:
            return render.overlays_of_maps(photos, self._flat_maps(), METHODS[self.method].rectified, colormap, alpha)
        heatmaps = self.heatmaps.reshape(-1, *self.heatmaps.shape[-2:])
        return render.overlays(photos, heatmaps, colormap, alpha, canvas)

    def figures(
        self, colormap: str = DEFAULT_COLORMAP, alpha: float = DEFAULT_ALPHA, canvas: str = DEFAULT_CANVAS
    ) -> list[Image.Image]:
        """Return what `save` writes: overlays for CAM methods, 8-bit RGB pictures of the signed values for the others.

        The latter are scaled over the whole image, minimum to 0 and maximum to 255. Arguments and errors as in
        `overlays`; gradient pictures always show what the model saw.
        """
        if METHODS[self.method].is_map:
            return self.overlays(colormap, alpha, canvas)
        return render.gradient_figures(self.attributions.reshape(-1, *self.attributions.shape[-3:]))

    def save(
        self,
        folder: str | os.PathLike[str],
        colormap: str = DEFAULT_COLORMAP,
        alpha: float = DEFAULT_ALPHA,
        canvas: str = DEFAULT_CANVAS,
        raw: bool = False,
    ) -> list[Path]:
        """Write NAME.METHOD.png for each image, with K classes NAME.METHOD.CLASS.png; with `raw` NAME.METHOD.npz too.

        NAME is the photograph's file name without its extension. Arguments and errors as in `overlays`.

        Returns:
            The files written, image by image.

        Raises:
            OutputError: a file cannot be written, or would replace one of the photographs.
        """
        names = unique_names([PurePath(Path(photo.name).name) for photo in self.images])
        # A PIL image, too, is called by the file that it came from.
        target = output_folder.Folder(folder, [photo.name for photo in self.images])
        pictures = self.figures(colormap, alpha, canvas)
        written = []
        for i, name in enumerate(names):
            own = self.with_classes(i, pictures[i * self._each : (i + 1) * self._each])
            arrays = self.arrays_of(i) if raw else None
            written += [file.path for file in result_files.save_figures(target, name, self.method, own, arrays)]
        return written

    def only(self, image: int) -> Explanation:
        """The explanation of one image alone; its arrays are views with N = 1."""
        part = slice(image, image + 1)
        return replace(
            self,
            logits=self.logits[part],
            targets=self.targets[part],
            maps=None if self.maps is None else self.maps[part],
            input_attributions=None if self.input_attributions is None else self.input_attributions[part],
            completeness=None if self.completeness is None else self.completeness[part],
            images=self.images[part],
        )

    def score_text(self, image: int, target: int) -> str:
        """The target's probability in words, or its logit where the model has no probabilities."""
        if self.probabilities is None:
            return f"logit {self.logits[image, target]:.2f}"
        return f"{100 * self.probabilities[image, target]:.1f} %"

    def targets_of(self, image: int) -> Sequence[int]:
        """The classes explained for one image, as a list of 1 or K."""
        return [int(index) for index in np.atleast_1d(self.targets[image])]

    def with_classes(self, image: int, pictures: Sequence[Image.Image]) -> list[tuple[int | None, Image.Image]]:
        """Pair the pictures of one image with their class indices, or with None where each image has a single class."""
        indices = self.targets_of(image) if self.targets.ndim == 2 else [None]
        return list(zip(indices, pictures, strict=True))

    def arrays_of(self, image: int) -> dict[str, Any]:
        """Return what NAME.METHOD.npz holds for one image.

        These are `logits` (classes,), `target` () or (K,), `attributions`, `heatmap` and, for CAM methods, `maps`, with
        the shapes that this class gives them for one image; for integrated gradients `completeness` too. `options` are
        the method's as JSON text, where it has any.
        """
        arrays: dict[str, Any] = {
            "logits": self.logits[image],
            "target": np.asarray(self.targets[image]),
            "attributions": self.attributions[image],
            "heatmap": self.heatmaps[image],
        }
        if self.maps is not None:
            arrays["maps"] = self.maps[image]
        if self.completeness is not None:
            arrays["completeness"] = self.completeness[image]
        if self.options:
            arrays["options"] = np.array(json.dumps(dict(self.options)))
        return arrays

    def _flat_maps(self) -> Floats:
        """(N*K,h,w)"""
        assert self.maps is not None
        return self.maps.reshape(-1, *self.maps.shape[-2:])

    @property
    def _each(self) -> int:
        return 1 if self.targets.ndim == 1 else int(self.targets.shape[1])

    def _name(self, index: int) -> str:
        return class_name(int(index), self.class_labels)


def class_name(index: int, labels: Sequence[str] | None) -> str:
    """The label of a class, or `class INDEX` where the model file holds no labels."""
    return f"class {index}" if labels is None else labels[index]
