"""Helpers for tests of resumed jobs: change the files of an output folder, and run the job again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from seewhy import Explainer, OutputError
from seewhy.bulk.folder_job import FolderJob, JobSummary
from seewhy.bulk.job_request import resolve_job
from seewhy.bulk.verify import Verification
from seewhy.inputs.image_inputs import Inputs
from support.jobs import broken_jobs
from support.jobs.broken_jobs import contents


def copied(whole: Path, out: Path) -> Path:
    """Copy an output folder to `out` and return the path of the manifest in the copy."""
    shutil.copytree(whole, out)
    return out / "manifest.jsonl"


def refused(out: Path, words: str, do: Callable[[], object]) -> None:
    """Assert that `do` raises a one-line OutputError that matches `words`, and changes nothing in `out`."""
    before = contents(out)
    with pytest.raises(OutputError, match=words) as caught:
        do()
    assert "\n" not in str(caught.value)
    assert contents(out) == before


def resume(
    explainer: Explainer, images: Path, out: Path, form: str, changed: bool = False
) -> tuple[JobSummary, list[str]]:
    """Run the job again and return its summary and its notices about the folder."""
    notices: list[str] = []
    request = resolve_job(explainer, broken_jobs.settings(form))
    job = FolderJob(request, Inputs([images], out), out, changed=changed, notice=notices.append)
    for _ in job:
        pass
    return job.summary(), notices


def sort_manifest(out: Path) -> None:
    """Sort the lines of the manifest by image path, the order in which an uninterrupted job writes them."""
    manifest = out / "manifest.jsonl"
    manifest_lines = manifest.read_bytes().splitlines(keepends=True)
    manifest.write_bytes(b"".join(sorted(manifest_lines, key=lambda line: json.loads(line)["path"])))


def empty(path: Path) -> None:
    """Delete the content of a file."""
    path.write_bytes(b"")


def cut(path: Path) -> None:
    """Delete the last byte of a file."""
    path.write_bytes(path.read_bytes()[:-1])


def replace_by_a_folder(path: Path) -> None:
    """Replace a file with an empty folder of the same name."""
    path.unlink()
    path.mkdir()


def replace_by_a_link(path: Path) -> None:
    """Rename a file and replace it with a link to its new name."""
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def problems(out: Path) -> int:
    """Return the number of problems that `seewhy verify` finds in an output folder."""
    check = Verification(out)
    for _ in check:
        pass
    return check.problems
