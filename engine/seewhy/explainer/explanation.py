"""Explanation of a batch of images by one method: arrays, figures and files."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from seewhy._core import heatmaps, max_abs, minmax
from seewhy._shared import checks
from seewhy._shared.arrays import Floats, Integers
from seewhy._shared.text import brief, printable, short
from seewhy.errors import ArgumentError
from seewhy.explainer.explanation_display import ExplanationDisplay
from seewhy.explainer.prediction import class_name, probabilities, score_text
from seewhy.methods.base import RuleContext, full_size
from seewhy.methods.method import MethodRequest
from seewhy.visualization import drawing_options as defaults

# Fonts, colormaps and encoders take longer to import than a small model takes to run, and many programs need only the
# arrays. Therefore the functions that draw and write import them.
if TYPE_CHECKING:
    from PIL import Image

    from seewhy.images.preprocessing import ModelView
    from seewhy.visualization.captions import Caption
    from seewhy.visualization.drawings import Drawing
    from seewhy.visualization.figure_style import FigureStyle
    from seewhy.visualization.page import Page


class _OutOfRange(ArgumentError, IndexError):
    """An index beyond the last image, which Python's sequences report as an `IndexError`."""


@dataclass(frozen=True, eq=False, repr=False)
class Explanation(ExplanationDisplay):
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
    model_name: str = ""
    """Name of the model, for captions."""
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
        return dict(self.request.options)  # a copy, because other explanations share the request

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
        found = replace(
            self,
            logits=self.logits[part],
            targets=self.targets[part],
            maps=None if self.maps is None else self.maps[part],
            input_attributions=None if self.input_attributions is None else self.input_attributions[part],
            completeness=None if self.completeness is None else self.completeness[part],
            images=self.images[part],
        )
        computed = vars(self).get("probabilities")
        if computed is not None:
            vars(found)["probabilities"] = computed[part]
        return found

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
        context, gradients = self.context, self.input_attributions
        if gradients is None:
            rectified = self.request.method.rectified
            flat = heatmaps(self._flat_maps(), rectified, context.height, context.width, context.threads)
        else:
            flat = minmax(max_abs(gradients.reshape(-1, *gradients.shape[-3:]), context.threads), context.threads)
        return flat.reshape(*self.targets.shape, *flat.shape[1:])

    @property
    def labels(self) -> list[str] | list[list[str]]:
        """Labels of the classes that were explained, in the shape of `targets`."""
        if self.targets.ndim == 1:
            return [class_name(int(index), self.class_labels) for index in self.targets]
        return [[class_name(int(index), self.class_labels) for index in row] for row in self.targets]

    def overlays(
        self,
        colormap: str = defaults.DEFAULT_COLORMAP,
        alpha: float | None = None,
        canvas: str = defaults.DEFAULT_CANVAS,
        blend: str = defaults.DEFAULT_BLEND,
        scale: float | None = None,
    ) -> list[Image.Image]:
        """Blend the heatmaps onto the images, without captions.

        Args:
            colormap: Name of a colormap; `seewhy.list_colormaps()` lists them.
            alpha: Opacity of the heatmap, from 0 (invisible) to 1 (opaque). None is 0.5, or 0.8 if `blend` is `heat`.
            canvas: `model` draws on what the model saw (resized and cropped). `original` draws on the whole image, and
                leaves pixels outside the crop as they are.
            blend: `constant` gives the heatmap the same opacity everywhere. With `heat`, the opacity is alpha times the
                heat, so that the image stays as it is where the heat is 0.
            scale: Value with the hottest colour in all overlays, so that weak maps look weak. None scales each heatmap
                by its own minimum and maximum.

        Returns:
            RGB images: N or, if several classes are explained, N*K, with the K overlays of an image next to each other.

        Raises:
            ArgumentError: If a name is unknown, alpha is not between 0 and 1, or the scale is not a positive number.
            ImageError: If the original image cannot be read any more.
        """
        from seewhy.visualization import overlays as render
        from seewhy.visualization.figure_style import FigureStyle

        style = FigureStyle(colormap, alpha, canvas, blend, scale=scale)
        views = self._views()
        if style.scale is not None:
            if self.maps is None:
                style = replace(style, gradients="overlay")
            return [drawing.image for drawing in self.draw(style)]
        if canvas == "model" and blend == "constant" and self.maps is not None:
            rectified = self.request.method.rectified
            return render.overlays_of_maps(views, self._flat_maps(), rectified, colormap, style.opacity)
        return render.overlays_in_style(views, self.heatmaps.reshape(-1, *self.heatmaps.shape[-2:]), style)

    def figures(
        self,
        colormap: str = defaults.DEFAULT_COLORMAP,
        alpha: float | None = None,
        canvas: str = defaults.DEFAULT_CANVAS,
        blend: str = defaults.DEFAULT_BLEND,
        scale: float | None = None,
        gradients: str = defaults.DEFAULT_GRADIENT_STYLE,
        gradient_scaling: str = defaults.DEFAULT_GRADIENT_SCALING,
        plain: bool = False,
    ) -> list[Image.Image]:
        """Return what `save` writes: overlays for CAM methods, images of the values for gradient methods.

        A caption below each figure names the class, its probability, the method and the model, and shows the values of
        the colours. The options change figures only, never the attributions and heatmaps.

        Args:
            colormap: As in `overlays`.
            alpha: As in `overlays`.
            canvas: As in `overlays`. Gradients that are drawn as `rgb` or `heatmap` always show what the model saw.
            blend: As in `overlays`.
            scale: As in `overlays`; for signed gradients, the value of white, and its negative that of black.
            gradients: `rgb` draws the signed values of gradient methods. `heatmap` draws the maximum of |value| over
                the channels, and `overlay` blends that onto the image.
            gradient_scaling: `robust` makes 0 mid grey and clips at the 98 % quantile of |value|. `minmax` draws the
                minimum of the whole image as 0 and its maximum as 255.
            plain: Whether to leave out the captions.

        Returns:
            N or, image by image, N*K RGB images.

        Raises:
            ArgumentError: As `overlays`, or if gradients with neither 1 nor 3 channels are to be drawn as RGB.
            ImageError: As `overlays`.
        """
        from seewhy.visualization.figure_style import FigureStyle

        style = FigureStyle(colormap, alpha, canvas, blend, gradients, gradient_scaling, scale, plain)
        self._warn_about_fonts(style)
        return [page.image() for page in self._pages(style)]

    def save(
        self,
        folder: str | os.PathLike[str],
        colormap: str = defaults.DEFAULT_COLORMAP,
        alpha: float | None = None,
        canvas: str = defaults.DEFAULT_CANVAS,
        raw: bool = False,
        blend: str = defaults.DEFAULT_BLEND,
        scale: float | None = None,
        gradients: str = defaults.DEFAULT_GRADIENT_STYLE,
        gradient_scaling: str = defaults.DEFAULT_GRADIENT_SCALING,
        plain: bool = False,
    ) -> list[Path]:
        """Write the figures as NAME.METHOD.png, or as NAME.METHOD.RANK-LABEL.png for K classes of each image.

        NAME is the file name of the image without its extension, and RANK counts the classes from 1.

        Args:
            folder: Folder for the files; it is created if it does not exist.
            colormap: As in `figures`.
            alpha: As in `figures`.
            canvas: As in `figures`.
            raw: Whether to write the arrays of each image as NAME.METHOD.npz, too.
            blend: As in `figures`.
            scale: As in `figures`.
            gradients: As in `figures`.
            gradient_scaling: As in `figures`.
            plain: As in `figures`.

        Returns:
            The files that were written, image by image.

        Raises:
            ArgumentError: As `figures`.
            ImageError: As `figures`.
            OutputError: If a file cannot be written, or would replace one of the images.
        """
        from seewhy.storage import output_folder, result_files
        from seewhy.storage.result_names import unique_names
        from seewhy.visualization.figure_style import FigureStyle

        checks.flag("raw", raw)
        folder = checks.path("the folder", folder)
        style = FigureStyle(colormap, alpha, canvas, blend, gradients, gradient_scaling, scale, plain)
        self._warn_about_fonts(style)
        names = unique_names([PurePath(Path(view.name).name) for view in self.images])
        # A PIL image, too, is called by the file that it came from.
        target = output_folder.Folder(folder, [view.name for view in self.images])
        written = []
        for one, name in zip(self, names, strict=True):
            figures = list(zip(one.class_names(0), [page.image() for page in one._pages(style)], strict=True))
            arrays = one.arrays_of(0) if raw else None
            written += [file.path for file in result_files.save_figures(target, name, self.method, figures, arrays)]
        return written

    def draw(self, style: FigureStyle) -> Iterator[Drawing]:
        """Draw each image and class, in the order of `figures`, without captions.

        Args:
            style: The style.

        Yields:
            The drawings.

        Raises:
            ArgumentError: As `figures`.
            ImageError: As `figures`.
        """
        from seewhy.visualization import drawings

        values = self.maps if self.input_attributions is None else self.input_attributions
        assert values is not None
        flat = values.reshape(-1, *values.shape[self.targets.ndim :])
        for view, one in zip(self._views(), flat, strict=True):
            if self.maps is None:
                yield drawings.draw_gradient(view, one, style)
            else:
                (full,) = full_size(one[None], self.request.method.rectified, self.context)
                yield drawings.draw_map(view, full, style)

    def caption(self, image: int, target: int) -> Caption:
        """Return the texts of the caption for one image and class."""
        from seewhy.visualization.captions import Caption
        from seewhy.visualization.fonts import readable_label

        label = readable_label(class_name(target, self.class_labels), target)
        source = " · ".join(part for part in (self.request.method.title, self.model_name) if part)
        return Caption(label, self.score_text(image, target), source)

    def _warn_about_fonts(self, style: FigureStyle) -> None:
        from seewhy.visualization.fonts import missing_note

        labels = {class_name(int(index), self.class_labels) for index in self.targets.flat}
        note = None if style.plain else missing_note(sorted(labels))
        if note is not None:
            warnings.warn(note, stacklevel=3)

    def _pages(self, style: FigureStyle) -> Iterator[Page]:
        """Yield the figures, image by image."""
        from seewhy.visualization.captions import bare, captioned

        each = ((i, target) for i in range(len(self)) for target in self.targets_of(i))
        for (i, target), drawing in zip(each, self.draw(style), strict=True):
            yield bare(drawing) if style.plain else captioned(drawing, self.caption(i, target))

    def score_text(self, image: int, target: int) -> str:
        """Return the target's probability as text, or its logit if the model has no probabilities."""
        shares = None if self.probabilities is None else self.probabilities[image]
        return score_text(self.logits[image], shares, target)

    def targets_of(self, image: int) -> list[int]:
        """Return the classes that were explained for one image, as a list of 1 or K."""
        return [int(index) for index in np.atleast_1d(self.targets[image])]

    def class_names(self, image: int) -> list[str | None]:
        """Return the part of file names that tells the classes of one image apart: [None] for a single class."""
        if self.targets.ndim == 1:
            return [None]
        from seewhy.storage.result_names import class_suffix

        labels = self.class_labels
        ranked = enumerate(self.targets_of(image), 1)
        return [class_suffix(rank, None if labels is None else labels[index], index) for rank, index in ranked]

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

    def _views(self) -> list[ModelView]:
        """Return the image of each of the N*K maps."""
        return [view for view in self.images for _ in range(self._per_image)]

    def _flat_maps(self) -> Floats:
        """Return the maps as (N*K,h,w)."""
        assert self.maps is not None
        return self.maps.reshape(-1, *self.maps.shape[-2:])

    @property
    def _per_image(self) -> int:
        return 1 if self.targets.ndim == 1 else int(self.targets.shape[1])
