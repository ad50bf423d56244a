"""An image in a job: the task that passes through the stages, and the outcome that is recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from seewhy.errors import SeewhyError
from seewhy.explainer.explanation import Explanation
from seewhy.images.preprocessing import LoadedImage
from seewhy.inputs.image_inputs import ImageInput
from seewhy.storage import output_folder
from seewhy.storage.manifest_lines import Record
from seewhy.tables.result_rows import ResultRow


@dataclass(frozen=True)
class ImageTask:
    """An image to explain, with the results of the stages so far."""

    input: ImageInput
    result_name: PurePath = field(default_factory=PurePath)
    """Path of the image's results below the output folder, without extension."""
    image: LoadedImage | None = None
    """The image as the model sees it, from loading to explaining."""
    target: int | None = None
    """Index of the class that the list of images gives for this image."""
    results: Mapping[str, Explanation] = field(default_factory=dict)
    """Explanations by method for all images of the batch. They are freed when its last image is written."""
    index: int = 0
    """Number of this image in `results`."""
    error: SeewhyError | None = None
    """Why the image failed, or None. Later stages leave a failed task unchanged."""

    def own_results(self) -> dict[str, Explanation]:
        """Return the explanations of this image alone, by method."""
        return {name: result[self.index] for name, result in self.results.items()}

    def failed(self, error: SeewhyError) -> ImageTask:
        """Return the task of an image that failed, without the content that was read."""
        return ImageTask(replace(self.input, content=None), self.result_name, error=error)


@dataclass(frozen=True)
class ExplainedClass:
    """One class that was explained for one image."""

    label: str
    """Label of the class."""
    score: str
    """Probability or logit as text. The completeness error of integrated gradients follows, and the methods whose map
    has the same value everywhere."""
    figure: Path
    """Figure to open first: the contact sheet if there are several methods."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one image: the classes that were explained, or an error."""

    path: Path
    """Path of the image; TAR#MEMBER for a member of an archive."""
    explained: Sequence[ExplainedClass] = ()
    """One entry for each class; empty unless figures were written."""
    error: SeewhyError | None = None
    """Why the image failed, or None."""
    record: Record = field(default_factory=dict, repr=False)
    """Line of the manifest."""
    files: Sequence[output_folder.WrittenFile] = ()
    """Files that were written for this image alone."""
    rows: Sequence[ResultRow] = field(default=(), repr=False)
    """Rows of a shard."""
