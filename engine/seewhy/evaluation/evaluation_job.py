"""A resumable evaluation, whose results are recorded in the manifest of an output folder."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path, PurePath
from typing import Any

from seewhy._shared.extras import missing_extra
from seewhy.bulk.folder_job import FolderJob
from seewhy.bulk.image_stages import ImageStages
from seewhy.bulk.outcomes import ImageTask, Outcome
from seewhy.bulk.parallel_plan import plan_parallelism
from seewhy.bulk.thread_pipeline import Stage, run_pipeline
from seewhy.evaluation.evaluation_request import EvaluationRequest
from seewhy.evaluation.grid_partners import find_partners
from seewhy.evaluation.measuring import MeasuringStage
from seewhy.evaluation.result_writer import write_results
from seewhy.inputs.image_inputs import Inputs
from seewhy.runtime.providers import CPU
from seewhy.storage import output_folder, provenance
from seewhy.storage.manifest_lines import NAME as MANIFEST
from seewhy.storage.manifest_lines import Record, groups

_UNKNOWN_TOTAL = 1 << 30


class EvaluationJob(FolderJob):
    """A `FolderJob` that measures explanations instead of drawing them, and summarises all images at its end.

    On the CPU each image is measured on one core, with several images at the same time.
    """

    participle = "measured"

    def __init__(
        self, request: EvaluationRequest, inputs: Inputs, folder: str | os.PathLike[str], **controls: Any
    ) -> None:
        """Prepare the job; nothing is written yet.

        Args:
            request: Resolved settings, from `resolve_evaluation`.
            inputs: The images.
            folder: Folder for the results.
            **controls: Further arguments of `FolderJob`.
        """
        super().__init__(request.job, inputs, folder, **controls)
        self.evaluation = request

    def _explained(
        self, tasks: Iterator[ImageTask], folder: output_folder.Folder, left: int | None
    ) -> Generator[Outcome, None, None]:
        if self.evaluation.note is not None:
            self._notify(self.evaluation.note)
        explainer = self.request.explainer
        images = _UNKNOWN_TOTAL if left is None else left
        on_cpu = explainer.providers[0] == CPU
        plan = plan_parallelism(images, explainer.threads, 1, on_cpu=on_cpu, multi_pass=False)
        job = self.request
        if plan.threads_per_session is not None:
            job = replace(job, explainer=explainer.with_threads(plan.threads_per_session))
        # Before the pipeline starts, because the images are listed by one iteration at a time.
        needed = left != 0 and any(one.metric.uses_partners for one in self.evaluation.metrics)
        partners = find_partners(job, self._inputs, self._should_stop) if needed else []
        stage = MeasuringStage(replace(self.evaluation, job=job), partners)
        stages = [Stage(ImageStages(job, None, None).load), Stage(stage.measure, 1, plan.concurrent_batches)]
        yield from run_pipeline(tasks, stages, plan.threads, plan.window)

    def _result_facts(self) -> provenance.Facts:
        return {"evaluation": self.evaluation.facts()}

    def _conclude(self, folder: output_folder.Folder) -> None:
        """Write the results of all recorded images, unless none was measured."""
        if not self.done:
            return
        request, explainer = self.evaluation, self.request.explainer
        has_plots = find_spec("matplotlib") is not None
        write_results(
            folder,
            partial(self.records, folder.path, self.evaluation.folders_are_clusters),
            request.methods,
            request.metrics,
            [vars(one) for one in request.left_out],
            model={"name": explainer.metadata.model.name, "sha256": explainer.sha256},
            seed=request.seed,
            note=self.evaluation.note,
            is_complete=not self.stopped,
            parquet=find_spec("pyarrow") is not None,
            with_plots=has_plots,
        )
        if not has_plots:
            self._notify(str(missing_extra("plots are left out, because matplotlib is not installed", "plot")))

    @staticmethod
    def records(folder: Path, folders_are_clusters: bool = False) -> Iterator[Record]:
        """Yield the records of all images in a folder, each with the name of its cluster."""
        path = folder / MANIFEST
        with path.open("rb") as file:
            for group in groups(file, path):
                for _, record in group.lines:
                    name = record["path"]
                    yield {**record, "cluster": PurePath(name).parent.as_posix() if folders_are_clusters else name}
