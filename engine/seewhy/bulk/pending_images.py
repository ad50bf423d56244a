"""The images that a job has left to explain, and the names of their results."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import replace

from seewhy._shared.temp_tables import explained
from seewhy.inputs.image_inputs import ImageInput, Inputs
from seewhy.storage.manifest import Manifest
from seewhy.storage.manifest_lines import DONE
from seewhy.storage.result_names import ResultNames


def pending_images(
    inputs: Inputs,
    manifest: Manifest | None = None,
    stops: Callable[[], bool] = lambda: False,
    skipped: Callable[[str], object] = lambda status: None,
) -> Iterator[ImageInput]:
    """Yield the images without a line in the manifest, in order, each with the name of its results.

    Names of earlier results go to nobody else, and every image has the name that it would have had in the first
    attempt.

    Args:
        inputs: All images of the job.
        manifest: What earlier attempts have done; None where there were none.
        stops: Asked before each image, skipped ones included, whether to end here.
        skipped: Told the status of archives' members that have a line.

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
                names.skip(item.relative)
                continue
            name = names.take(item.relative)
            if status is None:
                yield replace(item, name=name)
    except sqlite3.OperationalError as error:
        raise explained(error) from None
