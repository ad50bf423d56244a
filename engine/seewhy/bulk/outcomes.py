"""Image on its way through a job, and its outcome."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from seewhy.errors import SeewhyError
from seewhy.explainer.explanation import Explanation
from seewhy.images.preprocessing import LoadedImage
from seewhy.inputs.image_inputs import ImageInput
from seewhy.storage import output_folder
from seewhy.storage.manifest_lines import Record
from seewhy.tables.result_rows import ResultRow


@dataclass(frozen=True)
class ExplainedClass:
    """One class explained for one image."""

    label: str
    score: str
    """Its probability or logit in words, and how far integrated gradients are from adding up, where they were asked."""
    figure: Path
    """The picture to look at first: the contact sheet where there is one."""


@dataclass(frozen=True)
class Outcome:
    """Outcome of one image: answers, or an error."""

    path: Path
    """Path of the image; TAR#MEMBER for a member of an archive."""
    explained: Sequence[ExplainedClass] = ()
    """One answer for each class; empty unless pictures were written."""
    error: SeewhyError | None = None
    record: Record = field(default_factory=dict, repr=False)
    """Line of the manifest."""
    files: Sequence[output_folder.WrittenFile] = ()
    """Files that were written for this image alone."""
    rows: Sequence[ResultRow] = field(default=(), repr=False)
    """Rows of a shard."""


@dataclass(frozen=True)
class ImageTask:
    """An image on its way."""

    input: ImageInput
    photograph: LoadedImage | None = None
    target: int | None = None
    """The class that a list asks for."""
    results: Mapping[str, Explanation] = field(default_factory=dict)
    """Explanations by method, for all images of its batch; they are freed when its last image is written."""
    row: int = 0
    """Row of this image in `results`."""
    error: SeewhyError | None = None
    """What is wrong with it; it passes the other steps as it is."""

    def failed(self, error: SeewhyError) -> ImageTask:
        # What was read of it is of no more use.
        return ImageTask(replace(self.input, content=None), error=error)
