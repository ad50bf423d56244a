"""Stage of an evaluation that explains one image by all methods and measures the explanations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewhy._shared.text import short
from seewhy.bulk.image_stages import failed_outcome
from seewhy.bulk.outcomes import ImageTask, Outcome
from seewhy.errors import ImageError, NonFiniteError
from seewhy.evaluation.evaluation_request import EvaluationRequest
from seewhy.evaluation.grid_partners import Partner, choose_partners
from seewhy.explainer.explanation import Explanation
from seewhy.images.preprocessing import LoadedImage, normalise
from seewhy.inputs.region_files import region_mask
from seewhy.metrics import attribution_files
from seewhy.metrics.base import NotMeasurable
from seewhy.metrics.evaluated_image import EvaluatedExplanation, EvaluatedImage
from seewhy.metrics.measurement import measure_metric
from seewhy.metrics.metric import MetricRequest
from seewhy.metrics.references import REFERENCES
from seewhy.tables.result_rows import success_record

_LONGEST_REASON = 500


@dataclass(frozen=True)
class MeasuringStage:
    """Explains and measures images. Threads call it concurrently."""

    request: EvaluationRequest
    partners: Sequence[Partner]
    """Images of other classes for grids."""

    def measure(self, tasks: Sequence[ImageTask]) -> list[Outcome]:
        """Measure each image.

        Args:
            tasks: Loaded images, or those that failed.

        Returns:
            An outcome for each, whose record holds the values of all metrics by metric and method.

        Raises:
            SeewhyError: If an error concerns all images, such as attributions of the wrong size.
        """
        return [self._measure(task) for task in tasks]

    def _measure(self, task: ImageTask) -> Outcome:
        if task.error is not None or task.image is None:
            assert task.error is not None
            return failed_outcome(task, task.error)
        job = self.request.job
        try:
            results = job.explainer.explain_resolved(
                [task.image], job.methods, job.batch_targets([task.target]), job.settings.batch_size
            )
            image = self._evaluated(task, task.image, results)
        except NonFiniteError as error:
            return failed_outcome(task, NonFiniteError(f"{task.input.path}: {error}"))
        values: dict[str, dict[str, Any]] = {}
        for metric in self.request.metrics:
            values[metric.name] = {
                method.name: self._value(metric, EvaluatedExplanation(image, method))
                for method in self.request.methods
                if self.request.applies(metric.name, method.name)
            }
        record = {**success_record(task.input, results, 0), "metrics": values}
        return Outcome(Path(task.input.path), record=record)

    def _evaluated(self, task: ImageTask, loaded: LoadedImage, results: dict[str, Explanation]) -> EvaluatedImage:
        request = self.request
        first = next(iter(results.values()))
        target = int(first.targets[0])
        name = task.result_name.as_posix()
        pixels = normalise([loaded], request.job.explainer.metadata, 1)[0]
        attributions = {name: one.attributions[0] for name, one in results.items()}
        missing: dict[str, str] = {}
        for method in request.methods:
            if method.has_files:
                assert request.attributions is not None
                try:
                    found = attribution_files.read(request.attributions, method.name, name, pixels.shape)
                except NotMeasurable as reason:
                    missing[method.name] = str(reason)
                else:
                    attributions[method.name] = found
        regions, without_regions = None, None
        if request.regions is not None:
            try:
                regions = region_mask(request.regions.of(task.input.path), loaded, target, request.region_classes)
            except ImageError as error:  # they are for an image of another size
                without_regions = str(error)
        image = EvaluatedImage(
            request.job.explainer,
            request.methods,
            name,
            loaded.view,
            pixels,
            target,
            first.logits[0],
            attributions,
            request.seed,
            regions,
            lambda count: choose_partners(self.partners, task.input.path, target, count, image.rng("partners")),
            missing,
            without_regions,
        )
        for reference in (method.name for method in request.methods if method.is_reference):
            try:
                attributions[reference] = REFERENCES[reference].map(image.pattern, image.rng(reference))
            except NotMeasurable as reason:
                missing[reference] = str(reason)
        return image

    def _value(self, metric: MetricRequest, explanation: EvaluatedExplanation) -> dict[str, Any]:
        """Return the value of a metric for the record of the image, or the reason why there is none."""
        try:
            missing = explanation.image.missing.get(explanation.method.name)
            if missing is not None:
                raise NotMeasurable(missing)
            found = measure_metric(metric, explanation)
        except NotMeasurable as reason:
            return {"value": None, "reason": short(str(reason), _LONGEST_REASON)}
        curve = {} if found.curve is None else {"curve": [float(value) for value in found.curve]}
        return {"value": found.value, **curve, **({"details": dict(found.details)} if found.details else {})}
