"""Find the images that a job still has to explain, and name their results."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator

from seewhy._shared.temp_tables import explained
from seewhy.bulk.outcomes import ImageTask
from seewhy.inputs.image_inputs import Inputs
from seewhy.storage.manifest import Manifest
from seewhy.storage.manifest_lines import DONE
from seewhy.storage.result_names import ResultNames


def pending_images(
    inputs: Inputs,
    manifest: Manifest | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    skipped: Callable[[str], object] = lambda status: None,
) -> Iterator[ImageTask]:
    """Yield a task for each image without a line in the manifest, in order, with the name of its results.

    The names of earlier results stay reserved. Every image gets the name that it would have had in the first attempt.

    Args:
        inputs: All images of the job.
        manifest: The manifest of earlier attempts, or None.
        should_stop: Function that returns whether to stop. It is called before each image, including skipped ones.
        skipped: Function called with the status of each archive member that has a line in the manifest.

    Yields:
        The tasks.

    Raises:
        OutputError: If the temporary folder has no room for the names.
    """
    try:
        names = ResultNames()
        if manifest is not None:
            names.reserve(manifest.names())
        names.expect(inputs.relative_paths())
        for image in inputs:
            if should_stop():
                return
            status = None if manifest is None else manifest.status(image.key, image.archive)
            if status is not None and image.archive is not None:
                skipped(status)
            if status == DONE:
                names.skip(image.relative_path)
                continue
            name = names.take(image.relative_path)
            if status is None:
                yield ImageTask(image, name)
    except sqlite3.OperationalError as error:
        raise explained(error) from None
