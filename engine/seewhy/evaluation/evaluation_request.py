"""Settings of an evaluation, resolved against a model file before the first image is read."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from seewhy._shared import checks
from seewhy._shared.suggestions import did_you_mean
from seewhy._shared.text import brief, short
from seewhy.bulk.job_request import JobRequest, resolve_job
from seewhy.bulk.settings import Settings
from seewhy.errors import ArgumentError, MethodError, MetricError, TargetError
from seewhy.evaluation.evaluation_defaults import ALL, METHODS
from seewhy.evaluation.wording import listed
from seewhy.explainer.explainer import Explainer
from seewhy.inputs.region_files import Regions, classes_of_labels
from seewhy.methods.method import REDUCTIONS, MethodRequest
from seewhy.methods.plugins import load_plugin
from seewhy.methods.registry import list_methods
from seewhy.metrics import attribution_files
from seewhy.metrics.base import EvaluatedMethod, Scope
from seewhy.metrics.measurement import unsuitable_reason
from seewhy.metrics.metric import MetricRequest
from seewhy.metrics.references import REFERENCES
from seewhy.metrics.registry import METRICS, list_metrics, origins, resolve_metrics
from seewhy.metrics.scores import resolve_conventions

_MOST_LABELS = 5


@dataclass(frozen=True)
class EvaluationSettings:
    """Settings of an evaluation; see `seewhy.evaluate`."""

    methods: Sequence[str] = ()
    metrics: Sequence[str] = ()
    target: int | str | None = None
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    plugins: Sequence[str | os.PathLike[str]] = ()
    attributions: str | os.PathLike[str] | None = None
    regions: str | os.PathLike[str] | None = None
    reduction: str | None = None
    folders_are_clusters: bool = False
    seed: int = 0


@dataclass(frozen=True)
class LeftOut:
    """A metric that does not apply to a method."""

    metric: str
    method: str | None
    """Name of the method; None if the metric applies to none of them."""
    reason: str


@dataclass(frozen=True)
class EvaluationRequest:
    """Resolved settings: the work to do for every image of an evaluation."""

    job: JobRequest
    """Model, methods of the model file, and targets."""
    methods: tuple[EvaluatedMethod, ...]
    """Rows of the results: methods of the file, maps of other tools, references."""
    metrics: tuple[MetricRequest, ...]
    """Metrics that apply to at least one method."""
    left_out: tuple[LeftOut, ...]
    """Metrics that do not apply, and why."""
    attributions: str | None
    """Folder with maps of other tools, or None."""
    attributions_digest: str | None
    """Hash of the names, sizes and times of the files in that folder, or None."""
    regions: Regions | None
    """Boxes or masks of objects, or None."""
    region_classes: Mapping[str, Collection[int]] | None
    """Classes of the model by label of the regions; None if no label names a class."""
    folders_are_clusters: bool
    """True if the images of one folder count as one cluster in the statistics."""
    seed: int

    @property
    def note(self) -> str | None:
        """Text about labels of regions that name no class of the model, or None."""
        if self.regions is None or not self.regions.labels:
            return None
        if self.region_classes is None:
            return "no label of the regions is a class of the model, so all regions of an image count"
        unknown = sorted(label for label, classes in self.region_classes.items() if not classes)
        if not unknown:
            return None
        named = listed([short(label, 40) for label in unknown[:_MOST_LABELS]])
        more = f" (and {len(unknown) - _MOST_LABELS} more)" if len(unknown) > _MOST_LABELS else ""
        return f"labels of regions that are no class of the model, so that their regions never count: {named}{more}"

    def applies(self, metric: str, method: str) -> bool:
        """Return whether a metric applies to a method."""
        return not any(one.metric == metric and one.method in (None, method) for one in self.left_out)

    def facts(self) -> dict[str, Any]:
        """Return everything that determines the numbers, besides the facts of the job, for `run.json`."""
        return {
            "metrics": {one.name: dict(one.options) for one in self.metrics},
            "methods": [one.name for one in self.methods],
            "reductions": {one.name: one.reduction for one in self.methods if not one.is_map},
            "left_out": [[one.metric, one.method] for one in self.left_out],
            "attributions": self.attributions_digest,
            "regions": None if self.regions is None else self.regions.sha256,
            "folders_are_clusters": self.folders_are_clusters,
            "seed": self.seed,
            "plugins": {one.name: dict(origins[one.name]) for one in self.metrics if one.name in origins},
        }


def resolve_evaluation(explainer: Explainer, settings: EvaluationSettings) -> EvaluationRequest:
    """Resolve settings against a model file, so that mistakes are found before the first image is read.

    Args:
        explainer: Explainer of the model file.
        settings: Settings of the evaluation. Their plugins are loaded.

    Returns:
        The work to do for every image.

    Raises:
        ArgumentError: If a setting is not valid, or does not fit another one or the model file. `MethodError` and
            `MetricError` are kinds of it.
        ImageError: If the model does not take images, or its file does not record how to preprocess them.
        OutputError: If a plugin, the folder of attributions or the file of regions cannot be read.
    """
    for path in settings.plugins:
        load_plugin(path)
    list_metrics()  # registers the metrics of installed packages
    if settings.reduction is not None:
        checks.one_of("reduction", settings.reduction, REDUCTIONS)
    if not checks.is_integer(settings.seed) or not 0 <= settings.seed < 2**63:
        raise ArgumentError(f"seed must be an integer from 0 to 2**63 - 1, not {brief(settings.seed)}")
    if isinstance(settings.target, (list, tuple)):
        raise TargetError(f"an evaluation explains one class of each image, not {brief(settings.target)}")
    if not isinstance(settings.options, Mapping):
        raise ArgumentError(f"options must be a dict of methods and metrics, not {brief(settings.options)}")
    known = [*list_methods(), *METRICS]
    for name in settings.options:
        if name not in known:
            raise MetricError(
                f"options are given for {brief(name)}, which is neither a method nor a metric."
                f"{did_you_mean(name, known)}"
            )
    options = {name: value for name, value in settings.options.items() if name not in METRICS}
    if not isinstance(settings.methods, (list, tuple)):
        raise MethodError(f"methods must be a name or a list of names, not {brief(settings.methods)}")
    folder = None if settings.attributions is None else checks.path("attributions", settings.attributions)
    files = [] if folder is None else attribution_files.list_methods(folder)
    names = [name for name in settings.methods if name not in files]
    # Predictions need a method of the model file, even if only maps of other tools are evaluated.
    only_files = bool(settings.methods) and not names
    files = [name for name in files if name in settings.methods] or files
    targets = () if settings.target is None else (settings.target,)
    chosen = names or _default_methods(explainer)[: 1 if only_files else None]
    job = resolve_job(explainer, Settings(chosen, targets, options=options, plain=True, sheet="never"))
    regions = None if settings.regions is None else Regions(checks.path("regions", settings.regions))
    methods = _rows(() if only_files else job.methods, files, settings.reduction)
    scope = Scope(explainer.metadata, regions is not None)
    metrics, left_out = _metrics(settings, methods, scope)
    return EvaluationRequest(
        job,
        methods,
        metrics,
        left_out,
        folder,
        None if folder is None else attribution_files.digest(folder, files),
        regions,
        None
        if regions is None
        else classes_of_labels(regions.labels, explainer.metadata.class_count, explainer.labels),
        checks.flag("folders_are_clusters", settings.folders_are_clusters),
        int(settings.seed),
    )


def _default_methods(explainer: Explainer) -> tuple[str, ...]:
    """Return the default methods that the file can serve, or else all of a single run."""
    known = explainer.methods
    single = [one.name for one in explainer.resolve_methods(list(known)) if one.method.multi_pass is None]
    return tuple(name for name in METHODS if name in known) or tuple(single)


def _rows(
    requests: Sequence[MethodRequest], files: Sequence[str], reduction: str | None
) -> tuple[EvaluatedMethod, ...]:
    """Return the rows of the results."""
    own = [
        EvaluatedMethod(one.name, one.method.title, one.method.is_map, reduction or one.method.reduction, one)
        for one in requests
    ]
    others = [EvaluatedMethod(name, name, False, reduction or "sum") for name in files]
    references = [EvaluatedMethod(name, one.title, True, "sum", is_reference=True) for name, one in REFERENCES.items()]
    return (*own, *others, *references)


def _metrics(
    settings: EvaluationSettings, methods: Sequence[EvaluatedMethod], scope: Scope
) -> tuple[tuple[MetricRequest, ...], tuple[LeftOut, ...]]:
    """Return the metrics that apply, and those that do not apply to all or some of the methods."""
    if not isinstance(settings.metrics, (list, tuple)):
        raise MetricError(f"metrics must be a name or a list of names, not {brief(settings.metrics)}")
    named = [name for name in settings.metrics if name != ALL]
    if named:
        resolve_metrics(named)  # report unknown names, even beside `all`
    names = list(METRICS) if ALL in settings.metrics else named
    left_out = []
    if not names:
        names = [name for name, metric in METRICS.items() if metric.is_default]
        costly = [name for name, metric in METRICS.items() if not metric.is_default]
        left_out = [LeftOut(name, None, f"costly; measured if it is named, or with {ALL}") for name in costly]
    given = {name: value for name, value in settings.options.items() if name in METRICS}
    requests = []
    for one in resolve_metrics(names, given):
        request = replace(one, options=resolve_conventions(one.options, scope.metadata))
        found = [(row, unsuitable_reason(request, row, scope)) for row in methods]
        reasons = [(row, reason) for row, reason in found if reason is not None]
        own = [(row, reason) for row, reason in reasons if not row.is_reference]
        if len(own) == sum(not row.is_reference for row in methods):
            left_out.append(LeftOut(one.name, None, _joined(own)))
            continue
        requests.append(request)
        left_out += [LeftOut(one.name, row.name, reason) for row, reason in reasons]
    if not requests:
        raise MetricError(
            "none of the metrics applies: " + "; ".join(f"{one.metric}: {one.reason}" for one in left_out)
        )
    return tuple(requests), tuple(left_out)


def _joined(reasons: Sequence[tuple[EvaluatedMethod, str]]) -> str:
    """Return the reasons of all methods as text, with the names of the methods if there are several reasons."""
    methods: dict[str, list[str]] = {}
    for row, reason in reasons:
        methods.setdefault(reason, []).append(row.name)
    if len(methods) == 1:
        return next(iter(methods))
    return "; ".join(f"{reason} ({', '.join(names)})" for reason, names in methods.items())
