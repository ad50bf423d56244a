"""Explanation of a batch of images by one method: arrays, figures and files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from seewhy._shared import checks
from seewhy._shared.arrays import Floats, Integers
from seewhy._shared.text import brief, printable, short
from seewhy.errors import ArgumentError
from seewhy.explainer.prediction import class_name, probabilities, score_text
from seewhy.images.preprocessing import ModelView
from seewhy.methods.base import RuleContext, full_size
from seewhy.methods.method import MethodRequest
from seewhy.storage import output_folder, result_files
from seewhy.storage.result_names import unique_names
from seewhy.visualization import overlays as render
from seewhy.visualization.drawing_options import DEFAULT_ALPHA, DEFAULT_CANVAS, DEFAULT_COLORMAP


class _OutOfRange(ArgumentError, IndexError):
    """An index beyond the last image, which Python's sequences report as an `IndexError`."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """The result of `Explainer.explain` for one method: N images, each explained for one class or for K classes.

    The axis [K] exists if K classes were asked for (a nested `target`, or `top`), and not otherwise. An explanation is
    a sequence of images: `len(explanation)` is N, and `explanation[i]` is the explanation of image i alone, with N = 1.
    """

    request: MethodRequest
    """The method and the values of its options."""
    logits: Floats
    """Scores before softmax or sigmoid, float32 of shape (N, classes)."""
    targets: Integers
    """Class indices that were explained, int64 of shape (N, [K])."""
    maps: Floats | None
    """Weighted sums of CAM methods before ReLU and upsampling, float32 of shape (N, [K], h, w); None for gradient
    methods."""
    input_attributions: Floats | None
    """Attributions of gradient methods, float32 of shape (N, [K], Cin, H, W); None for CAM methods, whose attributions
    are computed from the maps."""
    context: RuleContext
    """Size of the model's input, and number of threads."""
    class_labels: tuple[str, ...] | None
    """Labels of all classes of the model, or None if the model file holds none."""
    score_kind: str
    """Function that turns logits into probabilities: `softmax`, `sigmoid` or `none`."""
    images: tuple[ModelView, ...]
    """The N images as the model saw them."""
    completeness: Floats | None = None
    """Completeness error of integrated gradients, float32 of shape (N, [K]): |sum of the attributions - (y(x) -
    y(baseline))|, in logits. 0 is exact."""

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.request.name

    @property
    def options(self) -> Mapping[str, Any]:
        """Values of the method's options, defaults included; empty if it has none."""
        return self.request.options

    def __len__(self) -> int:
        """Return N, the number of images."""
        return len(self.logits)

    def __getitem__(self, index: int | slice) -> Explanation:
        """Return the explanation of one image, with N = 1, or of several images.

        Args:
            index: Index of an image, from -N to N - 1, or a slice.

        Returns:
            The explanation. Its arrays are views of the arrays of this one.

        Raises:
            ArgumentError: If there is no such image (an `IndexError`, too), or the index is not an integer or a slice.
        """
        if isinstance(index, slice):
            part = index
        elif checks.is_integer(index):
            if not -len(self) <= index < len(self):
                raise _OutOfRange(f"there is no image {index}: the explanation has {len(self)} images")
            part = slice(index, index + 1 or None)
        else:
            raise ArgumentError(f"the index of an image must be an integer or a slice, not {brief(index)}")
        return replace(
            self,
            logits=self.logits[part],
            targets=self.targets[part],
            maps=None if self.maps is None else self.maps[part],
            input_attributions=None if self.input_attributions is None else self.input_attributions[part],
            completeness=None if self.completeness is None else self.completeness[part],
            images=self.images[part],
        )

    def __iter__(self) -> Iterator[Explanation]:
        """Yield the explanation of each image."""
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        """Return one line for each image, at most five."""
        kind = "maps" if self.maps is not None else "input attributions"
        shape = "x".join(map(str, (self.maps if self.maps is not None else self.attributions).shape))
        lines = [f"<Explanation by {self.method}: {len(self)} image{'s' * (len(self) != 1)}, {kind} {shape}"]
        for i in range(min(len(self), 5)):
            classes = (
                f"{short(class_name(index, self.class_labels), 40)} ({self.score_text(i, index)})"
                for index in self.targets_of(i)[:3]
            )
            lines.append(f"  {short(printable(self.images[i].name), 60)}: {', '.join(classes)}")
        if len(self) > 5:
            lines.append(f"  ... and {len(self) - 5} more")
        return "\n".join(lines) + ">"

    # Computed when they are first asked for, because overlays and stored maps need none of these.

    @cached_property
    def probabilities(self) -> Floats | None:
        """Softmax or sigmoid of the logits, float32 of shape (N, classes) in [0, 1]; None if the score kind is none."""
        return probabilities(self.logits, self.score_kind)

    @cached_property
    def attributions(self) -> Floats:
        """Raw values, float32: (N, [K], H, W) for CAM methods, (N, [K], Cin, H, W) for gradient methods."""
        if self.input_attributions is not None:
            return self.input_attributions
        full = full_size(self._flat_maps(), self.request.method.rectified, self.context)
        return full.reshape(*self.targets.shape, *full.shape[1:])

    @cached_property
    def heatmaps(self) -> Floats:
        """Heatmaps, float32 of shape (N, [K], H, W) in [0, 1].

        They are the attributions, scaled by their minimum and maximum for each image and class. For gradient methods
        the maximum of |value| over the channels is scaled (Simonyan et al. 2013, section 3.1). A constant map is 0.
        """
        values = self.attributions
        flat = values.reshape(-1, *values.shape[self.targets.ndim :])
        heatmaps = self.request.method.heatmaps(flat, self.context)
        return heatmaps.reshape(*self.targets.shape, *heatmaps.shape[1:])

    @property
    def labels(self) -> list[str] | list[list[str]]:
        """Labels of the classes that were explained, in the shape of `targets`."""
        if self.targets.ndim == 1:
            return [class_name(int(index), self.class_labels) for index in self.targets]
        return [[class_name(int(index), self.class_labels) for index in row] for row in self.targets]

    def overlays(
        self, colormap: str = DEFAULT_COLORMAP, alpha: float = DEFAULT_ALPHA, canvas: str = DEFAULT_CANVAS
    ) -> list[Image.Image]:
        """Blend the heatmaps onto the images.

        Args:
            colormap: Name of a colormap; `seewhy.list_colormaps()` lists them.
            alpha: Opacity of the heatmap, from 0 (invisible) to 1 (opaque).
            canvas: `model` draws on what the model saw (resized and cropped). `original` draws on the whole image, and
                leaves pixels outside the crop as they are.

        Returns:
            RGB images: N or, if several classes are explained, N*K, with the K overlays of an image next to each other.

        Raises:
            ArgumentError: If the colormap or the canvas is unknown, or alpha is not between 0 and 1.
            ImageError: If the original image cannot be read any more.
        """
        render.validate_drawing_options(colormap, alpha, canvas)
        views = [view for view in self.images for _ in range(self._per_image)]
        if canvas == "model" and self.maps is not None:
            return render.overlays_of_maps(views, self._flat_maps(), self.request.method.rectified, colormap, alpha)
        heatmaps = self.heatmaps.reshape(-1, *self.heatmaps.shape[-2:])
        return render.overlays(views, heatmaps, colormap, alpha, canvas)

    def figures(
        self, colormap: str = DEFAULT_COLORMAP, alpha: float = DEFAULT_ALPHA, canvas: str = DEFAULT_CANVAS
    ) -> list[Image.Image]:
        """Return what `save` writes: overlays for CAM methods, RGB images of the signed values for gradient methods.

        The latter are scaled over the whole image, minimum to 0 and maximum to 255, and always show what the model saw.

        Args:
            colormap: As in `overlays`.
            alpha: As in `overlays`.
            canvas: As in `overlays`.

        Returns:
            N or, image by image, N*K RGB images.

        Raises:
            ArgumentError: As `overlays`.
            ImageError: As `overlays`.
        """
        render.validate_drawing_options(colormap, alpha, canvas)
        if self.request.method.is_map:
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
        """Write the figures as NAME.METHOD.png, or as NAME.METHOD.CLASS.png for K classes of each image.

        NAME is the file name of the image without its extension.

        Args:
            folder: Folder for the files; it is created if it does not exist.
            colormap: As in `overlays`.
            alpha: As in `overlays`.
            canvas: As in `overlays`.
            raw: Whether to write the arrays of each image as NAME.METHOD.npz, too.

        Returns:
            The files that were written, image by image.

        Raises:
            ArgumentError: As `overlays`.
            ImageError: As `overlays`.
            OutputError: If a file cannot be written, or would replace one of the images.
        """
        checks.flag("raw", raw)
        folder = checks.path("the folder", folder)
        names = unique_names([PurePath(Path(view.name).name) for view in self.images])
        # A PIL image, too, is called by the file that it came from.
        target = output_folder.Folder(folder, [view.name for view in self.images])
        figures = self.figures(colormap, alpha, canvas)
        written = []
        for i, name in enumerate(names):
            own = self.with_classes(i, figures[i * self._per_image : (i + 1) * self._per_image])
            arrays = self.arrays_of(i) if raw else None
            written += [file.path for file in result_files.save_figures(target, name, self.method, own, arrays)]
        return written

    def score_text(self, image: int, target: int) -> str:
        """Return the target's probability as text, or its logit if the model has no probabilities."""
        return score_text(self.logits[image], target, self.score_kind)

    def targets_of(self, image: int) -> list[int]:
        """Return the classes that were explained for one image, as a list of 1 or K."""
        return [int(index) for index in np.atleast_1d(self.targets[image])]

    def with_classes(self, image: int, figures: Sequence[Image.Image]) -> list[tuple[int | None, Image.Image]]:
        """Pair the figures of one image with their class indices, or with None if each image has a single class."""
        indices = self.targets_of(image) if self.targets.ndim == 2 else [None]
        return list(zip(indices, figures, strict=True))

    def arrays_of(self, image: int) -> dict[str, NDArray[Any]]:
        """Return what NAME.METHOD.npz holds for one image.

        These are `logits` (classes,), `target` () or (K,), `attributions`, `heatmap` and, for CAM methods, `maps`, each
        with the shape that this class gives it for one image. Integrated gradients add `completeness`. `options` holds
        the method's options as JSON text if it has any.
        """
        arrays: dict[str, NDArray[Any]] = {
            "logits": self.logits[image],
            "target": np.asarray(self.targets[image]),
            "attributions": self.attributions[image],
            "heatmap": self.heatmaps[image],
        }
        if self.maps is not None:
            arrays["maps"] = self.maps[image]
        if self.completeness is not None:
            arrays["completeness"] = np.asarray(self.completeness[image])
        if self.options:
            arrays["options"] = np.array(json.dumps(dict(self.options)))
        return arrays

    def _flat_maps(self) -> Floats:
        """Return the maps as (N*K,h,w)."""
        assert self.maps is not None
        return self.maps.reshape(-1, *self.maps.shape[-2:])

    @property
    def _per_image(self) -> int:
        return 1 if self.targets.ndim == 1 else int(self.targets.shape[1])
