"""Prediction of the model for a batch of images: logits, probabilities and classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from seewhy._shared.arrays import Float, Floats, Integers, sigmoid, softmax
from seewhy._shared.text import printable, short
from seewhy.targets.class_targets import top_classes, validate_top

if TYPE_CHECKING:
    from seewhy.images.preprocessing import ModelView

_PROBABILITIES: dict[str, Callable[[NDArray[Any]], NDArray[Any]] | None] = {
    "softmax": softmax,
    "sigmoid": sigmoid,
    "none": None,
}


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """The result of `Explainer.predict` for N images."""

    logits: Floats
    """Scores before softmax or sigmoid, float32 of shape (N, classes)."""
    class_labels: tuple[str, ...] | None
    """Labels of all classes of the model, or None if the model file holds none."""
    score_kind: str
    """Function that turns logits into probabilities: `softmax`, `sigmoid` or `none`."""
    images: tuple[ModelView, ...]
    """The N images as the model saw them."""

    @cached_property
    def probabilities(self) -> Floats | None:
        """Softmax or sigmoid of the logits, float32 of shape (N, classes) in [0, 1]; None if the score kind is none."""
        return probabilities(self.logits, self.score_kind)

    @property
    def classes(self) -> Integers:
        """Index of the class with the highest logit for each image, int64 of shape (N,)."""
        return self.top(1)[:, 0]

    @property
    def labels(self) -> list[str]:
        """Label of the class with the highest logit for each image."""
        return [class_name(int(index), self.class_labels) for index in self.classes]

    def top(self, count: int = 5) -> Integers:
        """Return the classes with the highest logits, best first.

        Args:
            count: K, the number of classes to return for each image.

        Returns:
            Class indices, int64 of shape (N, K). Of equal logits, the lower index comes first.

        Raises:
            TargetError: If `count` is not an integer from 1 to the number of classes.
        """
        return top_classes(self.logits, validate_top(count, self.logits.shape[1]))

    def __len__(self) -> int:
        """Return N, the number of images."""
        return len(self.logits)

    def __repr__(self) -> str:
        """Return one line for each image, at most five."""
        lines = [f"<Prediction: {len(self)} image{'s' * (len(self) != 1)}, {self.logits.shape[1]} classes"]
        for i, index in enumerate(self.classes.tolist()[:5]):
            name = short(class_name(index, self.class_labels), 60)
            shares = None if self.probabilities is None else self.probabilities[i]
            score = score_text(self.logits[i], shares, index)
            lines.append(f"  {short(printable(self.images[i].name), 60)}: {name} ({score})")
        if len(self) > 5:
            lines.append(f"  ... and {len(self) - 5} more")
        return "\n".join(lines) + ">"


def probabilities(logits: NDArray[Float], score_kind: str) -> NDArray[Float] | None:
    """Return probabilities of logits (N, classes), or None if the score kind is `none`."""
    convert = _PROBABILITIES[score_kind]
    return None if convert is None else convert(logits)


def score_text(logits: Floats, shares: Floats | None, target: int) -> str:
    """Return the probability of a class of one image as text, or its logit if there are no probabilities.

    Probabilities that would be rounded to 0 or 1 become `< 0.1 %` and `> 99.9 %`.

    Args:
        logits: Logits of the image, float32 of shape (classes,).
        shares: Probabilities of the image, float32 of shape (classes,); None if there are none.
        target: Index of the class.

    Returns:
        The text.
    """
    return f"logit {logits[target]:.2f}" if shares is None else percent_text(float(shares[target]))


def percent_text(share: float) -> str:
    """Return a share from 0 to 1 as a percentage with one decimal, such as `63.1 %`."""
    if share < 0.001:
        return "< 0.1 %"
    return "> 99.9 %" if 0.999 < share < 1 else f"{100 * share:.1f} %"


def class_name(index: int, labels: Sequence[str] | None) -> str:
    """Return the label of a class, or `class INDEX` if the model file holds no labels."""
    return f"class {index}" if labels is None else labels[index]
