"""Recommendation in words, from the summary of an evaluation.

Each sentence says only what the numbers show: a difference is claimed if its corrected test finds it (see
`clear_differences.py`), and a limit counts as exceeded if the whole 95 % interval of the mean is beyond it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seewhy.evaluation.clear_differences import FEWEST_IMAGES, MetricResult, metric_results, rows
from seewhy.evaluation.statistics import fewest_clusters
from seewhy.evaluation.wording import by_value, either, listed, times
from seewhy.metrics.base import NEITHER

SAME_MAPS = 0.9
"""Limit of `class-sensitivity`, a rank correlation, above which a method hardly changes with the class. The maps for
two classes then share at least four fifths (0.9 squared) of the variance of their ranks."""
SURVIVES_SHUFFLING = 0.5
"""Limit of `randomization`, a similarity, above which a method fails. Gradients have similarities near 0 when the
weights are shuffled, and a method that ignores the weights has 1."""
NOTABLE_COST = 1.5
"""Ratio of costs from which the more expensive method is said to be so."""
NOTABLE_SHARE = 0.1
"""Share of images without a value from which the recommendation says that a mean describes the others only."""
_SAME_MAPS, _SURVIVES_SHUFFLING = ("class-sensitivity", SAME_MAPS), ("randomization", SURVIVES_SHUFFLING)
_MOST_CANDIDATES = 3

_SUPERLATIVES = {
    "faithfulness": ("is the most faithful method for this model", "is the most faithful overall"),
    "localisation": ("locates the explained class best", "locates the explained class best overall"),
}
"""Groups of metrics that say which method to use: predicate of a single best method, and that of none if they
disagree."""

_COMPARATIVES = {
    "class sensitivity": ("changes more with the class", "change more with the class"),
    "complexity": ("is more concentrated", "are more concentrated"),
    "faithfulness": ("is more faithful", "are more faithful"),
    "localisation": ("locates the explained class better", "locate the explained class better"),
    "randomization": ("depends more on the weights", "depend more on the weights"),
    "robustness": ("is more stable", "are more stable"),
}
"""Predicates of a comparison by group, for one method and for several."""
_OTHER_COMPARATIVE = ("has better values", "have better values")

_BETTER = "clearly better than"
_NOT_BETTER = f"not {_BETTER}"
_REFERENCES = {"random": "shuffled values (random)", "centre": "a centred Gaussian (centre)"}


@dataclass(frozen=True)
class _Results:
    """A summary with what all sentences need."""

    summary: Mapping[str, Any]
    metrics: Mapping[str, MetricResult]
    titles: Mapping[str, str]
    """Titles of methods and references."""
    methods: Sequence[str]
    """Names of the methods without the references."""

    def names(self, methods: Iterable[str], join: Callable[[Sequence[str]], str] = listed) -> str:
        return join([self.titles[one] for one in methods])

    def compared(self, methods: Sequence[str], relation: str) -> str:
        """Return the names of methods, or `All methods`, with a predicate such as `clearly better than`."""
        everyone = len(methods) == len(self.methods) > 2
        if everyone and relation == _NOT_BETTER:
            return f"No method is {_BETTER}"
        return f"{'All methods' if everyone else self.names(methods)} {'is' if len(methods) == 1 else 'are'} {relation}"

    def group(self, name: str) -> list[MetricResult]:
        """Return the metrics of a group that have a better direction and values of at least two methods."""
        return [
            one
            for one in self.metrics.values()
            if one.group == name and self.is_ranking(one) and len(self.measured(one)) > 1
        ]

    def is_ranking(self, metric: MetricResult) -> bool:
        """Return True if a direction of the metric is better."""
        return bool(self.summary["definitions"][metric.name]["direction"] != NEITHER)

    def complete(self, group: str) -> list[MetricResult]:
        """Return the metrics of a group that have values of all methods."""
        return [one for one in self.group(group) if len(self.measured(one)) == len(self.methods)]

    def partial(self, group: str) -> list[MetricResult]:
        """Return the other metrics of a group."""
        return [one for one in self.group(group) if len(self.measured(one)) < len(self.methods)]

    def measured(self, metric: MetricResult) -> list[str]:
        return [one for one in self.methods if one in metric.means]


def recommend(summary: Mapping[str, Any]) -> list[str]:
    """Return what an evaluation shows, as sentences.

    Args:
        summary: The summary; see `summary.py`.

    Returns:
        The sentences.
    """
    titles = {**rows(summary, references=False), **rows(summary, references=True)}
    results = _Results(summary, metric_results(summary), titles, list(rows(summary, references=False)))
    few = _too_few(results)
    if few is not None:
        return [few]
    parts = (_powerless, _best, _against_references, _unfit, _trade_offs, _unmeasured)
    return [sentence for part in parts for sentence in part(results)]


def _too_few(results: _Results) -> str | None:
    """Return a sentence if there are too few images for any claim."""
    images = results.summary["images"]
    measured, clusters = images["measured"], images["clusters"]
    if not measured:
        return "No image was measured, so there is nothing to recommend."
    needed = _needed(results)
    if clusters >= FEWEST_IMAGES and (not needed or clusters >= min(needed.values())):
        return None
    if clusters == measured:
        counted = f"Only {measured} image{' was' if measured == 1 else 's were'} measured"
    else:
        counted = f"The {measured} measured images form only {clusters} cluster{'s' * (clusters != 1)}"
    kind = "images" if clusters == measured else "independent images"
    most = max([FEWEST_IMAGES, *needed.values()])
    return f"{counted}, too few for claims about the methods. Evaluate at least {most} {kind}."


def _needed(results: _Results) -> dict[str, int]:
    """Return the number of clusters from which a difference can be clear, by metric."""
    comparisons = results.summary["comparisons"]
    return {name: max(FEWEST_IMAGES, fewest_clusters(len(pairs))) for name, pairs in comparisons.items() if pairs}


def _powerless(results: _Results) -> list[str]:
    """Say by which metrics so few images cannot show a difference between so many methods."""
    clusters = results.summary["images"]["clusters"]
    found = {name: needed for name, needed in _needed(results).items() if needed > clusters}
    if not found:
        return []
    return [
        f"{clusters} images are too few for a clear difference between so many methods by {listed(list(found))}. "
        f"Evaluate at least {max(found.values())} images."
    ]


def _best(results: _Results) -> list[str]:
    """Say which method is the best by the metrics that rank methods, or that none is."""
    if len(results.methods) < 2:
        return ["Only one method was measured, so it can be compared with the reference rows alone."]
    sentences = []
    for group, (best, overall) in _SUPERLATIVES.items():
        complete, partial = results.complete(group), results.partial(group)
        by_winner = by_value((one.name, one.winner(results.methods)) for one in complete)
        open_metrics = by_winner.pop(None, [])
        leads = [one for one in results.methods if all(one in each.leaders(results.methods) for each in complete)]
        (first, *others) = by_winner or [None]
        if first is not None and not others and first in leads:
            rest = f", and no method is clearly better by {listed(open_metrics)}" if open_metrics else ""
            sentences.append(f"{results.titles[first]} {best} ({listed(by_winner[first])}){rest}.")
        else:
            sentences += _outcomes(results, complete)
            if len(by_winner) > 1:
                sentences.append(f"These metrics disagree: no method {overall}.")
        sentences += _outcomes(results, partial)
    if not any(results.group(group) for group in _SUPERLATIVES):
        sentences.append("No metric of faithfulness or localisation compares the methods, so none is recommended.")
    return sentences


def _outcomes(results: _Results, metrics: Sequence[MetricResult]) -> list[str]:
    """Say what each metric shows; metrics that show the same share a sentence."""
    outcomes = by_value(
        (one.name, (one.winner(results.methods), one.leaders(results.methods), len(results.measured(one))))
        for one in metrics
    )
    return [
        f"By {listed(names)}, {_outcome(results, winner, leaders, count)}."
        for (winner, leaders, count), names in outcomes.items()
    ]


def _outcome(results: _Results, winner: str | None, leaders: Sequence[str], count: int) -> str:
    """Return what metrics show that were measured for so many methods."""
    among = "" if count == len(results.methods) else f" of the {count} methods that have values"
    if winner is not None:
        return f"{results.titles[winner]} is clearly the best{among or ' method'}"
    if not leaders:
        return "the methods cannot be ranked, because they have values for different images"
    if len(leaders) == 1:
        title = results.titles[leaders[0]]
        return f"no method is clearly better than {title}, which is not clearly better than all others"
    if len(leaders) == count:
        which = f"the {count} methods" if count > 4 and not among else results.names(leaders)
        return f"there is no clear difference between {which}"
    return (
        f"no method is clearly better than {results.names(leaders, either)}, and there is no clear difference between "
        f"{'the two' if len(leaders) == 2 else 'these'}"
    )


def _against_references(results: _Results) -> list[str]:
    """Say which methods are not clearly better than a reference, by the metrics that rank methods."""
    sentences = []
    for reference in rows(results.summary, references=True):
        text = _REFERENCES.get(reference, results.titles[reference])
        ranking = [
            one
            for one in results.metrics.values()
            if one.group in _SUPERLATIVES and results.is_ranking(one) and reference in one.means
        ]
        found = by_value(
            (one.name, (method, _relation(one, method, reference)))
            for one in ranking
            for method in results.methods
            if method in one.means
        )
        same = by_value((method, (relation, tuple(names))) for (method, relation), names in found.items())
        sentences += [
            f"{results.compared(methods, relation)} {text} by {listed(names)}."
            for (relation, names), methods in same.items()
            if relation != _BETTER or len(results.methods) == 1
        ]
    return sentences


def _relation(metric: MetricResult, method: str, reference: str) -> str:
    """Return the predicate that compares a method with a reference."""
    if (method, reference) in metric.better:
        return _BETTER
    return "clearly worse than" if (reference, method) in metric.better else _NOT_BETTER


def _unfit(results: _Results) -> list[str]:
    """Say which methods hardly depend on the class or on the weights."""
    same, survive = _above(results, *_SAME_MAPS), _above(results, *_SURVIVES_SHUFFLING)
    both = [one for one in same if one in survive]
    parts = (
        (both, "hardly change{s} with the class and fail{s} randomization: do not use {it} to judge the model."),
        (
            [one for one in same if one not in both],
            "hardly change{s} with the class: do not use {it} to see why the model chose one class and not another.",
        ),
        ([one for one in survive if one not in both], "fail{s} randomization: do not use {it} to judge the model."),
    )
    return [
        f"{results.names(methods)} "
        + text.format(s="s" if len(methods) == 1 else "", it="it" if len(methods) == 1 else "them")
        for methods, text in parts
        if methods
    ]


def _above(results: _Results, metric: str, limit: float) -> list[str]:
    """Return the methods whose interval is above a limit, if they have enough values."""
    found = results.summary["metrics"].get(metric, {})
    enough = [one for one in results.methods if one in found and found[one]["n"] >= FEWEST_IMAGES]
    return [one for one in enough if found[one]["low"] is not None and found[one]["low"] > limit]


def _trade_offs(results: _Results) -> list[str]:
    """Say in which other respects methods, unless they are unfit, are better than those that rank first."""
    group, candidates = _candidates(results)
    unfit = {*_above(results, *_SAME_MAPS), *_above(results, *_SURVIVES_SHUFFLING)}
    sentences = []
    for candidate in candidates:
        others = results.methods if len(candidates) == 1 else candidates
        rivals = [one for one in others if one != candidate and one not in unfit]
        for name in dict.fromkeys(one.group for one in results.metrics.values()):
            if name == "cost":
                sentences += _costs(results, candidate, rivals)
            elif name != group:
                sentences += _better_at(results, name, candidate, rivals)
    return sentences


def _candidates(results: _Results) -> tuple[str | None, list[str]]:
    """Return the first group that ranks all methods, and the methods that lead by all its metrics, if they are few."""
    for group in _SUPERLATIVES:
        complete = results.complete(group)
        if complete:
            leading = [set(one.leaders(results.methods)) for one in complete]
            found = [one for one in results.methods if all(one in each for each in leading)]
            return group, found if len(found) <= _MOST_CANDIDATES else []
    return None, []


def _better_at(results: _Results, group: str, candidate: str, rivals: Collection[str]) -> list[str]:
    """Say which rivals are clearly better by metrics of a group, and worse by none of them."""
    metrics = results.group(group)
    found = by_value(
        (rival, tuple(one.name for one in metrics if (rival, candidate) in one.better))
        for rival in rivals
        if not any((candidate, rival) in one.better for one in metrics)
    )
    one, several = _COMPARATIVES.get(group, _OTHER_COMPARATIVE)
    return [
        f"{results.names(methods)} {one if len(methods) == 1 else several} than {results.titles[candidate]} "
        f"({listed(names)})."
        for names, methods in found.items()
        if names
    ]


def _costs(results: _Results, candidate: str, rivals: Collection[str]) -> list[str]:
    """Say how many times as much a method costs as the cheapest rival."""
    sentences = []
    for one in results.group("cost"):
        cheaper = [rival for rival in rivals if (rival, candidate) in one.better and one.means[rival] > 0]
        if cheaper:
            cheapest = min(cheaper, key=lambda rival: one.means[rival])
            ratio = one.means[candidate] / one.means[cheapest]
            if ratio >= NOTABLE_COST:
                names = results.titles[candidate], results.titles[cheapest]
                sentences.append(f"{names[0]} costs {times(ratio)} as much as {names[1]} ({one.name}).")
    return sentences


def _unmeasured(results: _Results) -> list[str]:
    """Say which methods lack values for many images."""
    total = results.summary["images"]["measured"]
    by_metric = by_value(
        (method, (metric, count))
        for metric, by_method in results.summary["metrics"].items()
        for method in results.methods
        if method in by_method and (count := by_method[method]["unmeasured"]) >= NOTABLE_SHARE * total
    )
    found = by_value((metric, (tuple(methods), count)) for (metric, count), methods in by_metric.items())
    sentences = []
    for (methods, count), metrics in found.items():
        lost = f"{count} of {total} images" if count < total else "every image"
        one = len(methods) == len(metrics) == 1
        rest = f", so the mean{'' if one else 's'} describe{'s' if one else ''} the other images only"
        # Equal counts may be those of different images.
        each = "lacks" if len(methods) == 1 else "each lack"
        subject = f"{results.names(methods)} {each}"
        if len(methods) == len(results.methods) > 2:
            subject = "Each method lacks"
        text = f"{subject} a value of {listed(metrics)} for {lost}"
        sentences.append(f"{text}{rest if count < total else ''}.")
    return sentences
