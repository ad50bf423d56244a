"""The images that a job has left to explain, and the names of their results."""

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
    stops: Callable[[], bool] = lambda: False,
    skipped: Callable[[str], object] = lambda status: None,
) -> Iterator[ImageTask]:
    """Yield a task for each image without a line in the manifest, in order, with the name of its results.

    Names of earlier results are not given out again, and every image gets the name that it would have had in the first
    attempt.

    Args:
        inputs: All images of the job.
        manifest: What earlier attempts recorded; None if there were none.
        stops: Function that returns whether to end here; called before each image, skipped ones included.
        skipped: Function called with the status of each archive member that has a line.

    Raises:
        OutputError: If the temporary folder has no room for the names.
    """
    try:
        names = ResultNames()
        if manifest is not None:
            names.reserve(manifest.names())
        names.expect(inputs.relative_paths())
        for item in inputs:
            if stops():
                return
            status = None if manifest is None else manifest.status(item.key)
            if status is not None and item.archive is not None:
                skipped(status)
            if status == DONE:
                names.skip(item.relative_path)
                continue
            name = names.take(item.relative_path)
            if status is None:
                yield ImageTask(item, name)
    except sqlite3.OperationalError as error:
        raise explained(error) from None
