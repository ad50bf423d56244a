"""Write docs/comparison.md from the stored results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks import ROOT
from benchmarks.comparison.claims import CLAIMS
from benchmarks.shared.markdown_tables import table
from seewhy.evaluation import statistics
from seewhy.evaluation.recommendation import SURVIVES_SHUFFLING
from seewhy.evaluation.wording import listed

PAGE = ROOT / "docs" / "comparison.md"
NAMES = {"lite0": "Lite0", "lite1": "Lite1", "lite2": "Lite2"}
SIGNIFICANT = statistics.SIGNIFICANCE


def write(results: Mapping[str, Any]) -> None:
    """Write the page."""
    networks = results["networks"]
    first = next(iter(networks.values()))["summary"]
    photographs = len(results["photographs"])
    corrected = statistics.holm([one["p"] for network in networks.values() for one in network["claims"]])
    p_values = iter(corrected)
    outcomes = {name: [{**one, "p": next(p_values)} for one in network["claims"]] for name, network in networks.items()}
    PAGE.write_text(
        _TEXT.format(
            photographs=photographs,
            images=first["images"]["measured"],
            crops=results["crops"],
            claims=_claims(outcomes),
            verdicts=_verdicts(outcomes),
            metrics="\n".join(_metric(name, networks) for name in first["definitions"]),
            randomization=_randomization(networks),
            names=", ".join(one.rpartition(".")[0].replace("_", " ") for one in results["photographs"]),
            versions=", ".join(f"{name} {version}" for name, version in results["versions"].items()),
            tests=len(corrected),
        ),
        encoding="utf-8",
    )


def _holds(outcome: Mapping[str, float]) -> bool:
    return outcome["difference"] > 0 and outcome["p"] <= SIGNIFICANT


def _claims(outcomes: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the table of all claims."""
    rows = []
    for number, claim in enumerate(CLAIMS):
        cells = []
        for found in outcomes.values():
            one = found[number]
            is_clear = one["p"] <= SIGNIFICANT
            verdict = "holds" if _holds(one) else "**reversed**" if is_clear else "**not shown**"
            cells.append(f"{one['difference']:+.2f} ({one['low']:+.2f} to {one['high']:+.2f}), {verdict}")
        rows.append([claim.text, f"{claim.metric}: {claim.larger} − {claim.smaller}", *cells])
    return table(["claim", "difference of", *(NAMES[name] for name in outcomes)], rows)


def _verdicts(outcomes: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    """Return the claims that do not hold for all networks, as sentences."""
    lines = []
    for number, claim in enumerate(CLAIMS):
        failing = [NAMES[name] for name, found in outcomes.items() if not _holds(found[number])]
        if failing:
            whole = claim.text
            if whole.startswith("... "):
                start = next(one.text for one in reversed(CLAIMS[:number]) if not one.text.startswith("..."))
                whole = f"{start.partition(', ')[0]}, {whole.removeprefix('... ')}"
            lines.append(f"- “{whole}” ({claim.metric}) is not shown for {listed(failing)}.")
    if not lines:
        return "All of them hold for all networks."
    return "\n".join(["What is not shown for every network:", "", *lines])


def _metric(name: str, networks: Mapping[str, Any]) -> str:
    """Return the table of one metric for all networks."""
    summaries = {key: network["summary"] for key, network in networks.items()}
    definition = next(iter(summaries.values()))["definitions"][name]
    rows = []
    titles = {one["name"]: one["title"] for one in next(iter(summaries.values()))["methods"]}
    for method, title in titles.items():
        cells = [_interval(summary["metrics"][name].get(method)) for summary in summaries.values()]
        rows.append([title, *cells])
    direction = {"higher": "higher is better", "lower": "lower is better"}.get(definition["direction"], "")
    return f"### {definition['title']}\n\n`{name}`, {direction}. {_capitalised(definition['reference'])}.\n\n" + table(
        ["method", *(NAMES[key] for key in summaries)], rows
    )


def _interval(found: Mapping[str, Any] | None) -> str:
    if found is None:
        return "does not apply"
    if found["mean"] is None:
        return "not measurable"
    unmeasured = f", {found['unmeasured']} not measurable" if found["unmeasured"] else ""
    mean, low, high = (f"{round(found[key], 3) + 0.0:.3f}" for key in ("mean", "low", "high"))
    return f"{mean} ({low} to {high}){unmeasured}"


def _capitalised(text: str) -> str:
    return text[:1].upper() + text[1:]


def _randomization(networks: Mapping[str, Any]) -> str:
    """Return a line for each network: methods by the similarity of their maps to those of shuffled weights."""
    return "\n".join(_randomization_lines(networks))


def _randomization_lines(networks: Mapping[str, Any]) -> Iterator[str]:
    for key, network in networks.items():
        summary = network["summary"]
        found = summary["metrics"]["randomization"]
        rows = [one for one in summary["methods"] if not one["reference"] and found[one["name"]]["low"] is not None]
        above = [one for one in rows if found[one["name"]]["low"] > SURVIVES_SHUFFLING]
        below = [one for one in rows if found[one["name"]]["high"] < SURVIVES_SHUFFLING]
        between = [one for one in rows if one not in above and one not in below]
        groups = {"above": above, "below": below, "on neither side of": between}
        texts = [f"{text} {SURVIVES_SHUFFLING} for {_titles(each)}" for text, each in groups.items() if each]
        yield f"- {NAMES[key]}: {'; '.join(texts)}."


def _titles(rows: Sequence[Mapping[str, Any]]) -> str:
    return listed([one["title"] for one in rows])


_TEXT = """\
# Methods compared by numbers

The report that this project grew from compares backprop, guided backprop, CAM, Grad-CAM and Guided Grad-CAM by looking
at pictures. Here its claims are numbers. `make comparison` writes this page: it evaluates the methods on
EfficientNet-Lite0, Lite1 and Lite2 with their ImageNet weights, on {photographs} photographs of scikit-image and
{crops} crops of each ({images} images). [Evaluate methods](how-to/evaluate-methods.md) describes the metrics and how to
do the same for your own model.

![Maps of five methods for two classes of a grid of four photographs](images/comparison.jpg)

*Four photographs in one image. Each row explains another class. Guided backprop shows the same edges in both rows,
Grad-CAM moves to the named object, and Guided Grad-CAM shows the edges of that object. The caption of each map gives
the share of its positive values that lies in the object's quarter; chance is 25 %.*

## The report's claims

Each claim is a difference between two methods, averaged over the images, with a 95 % interval. It holds if the
difference is positive and a sign-flip test over the photographs says so after Holm's correction for all {tests} tests
of this table (p at most 0.05).

{claims}
{verdicts}

Which methods survive randomization? If all parameters are shuffled stage by stage, from the output down, a method that
explains the network must change its maps. The interval of the mean rank correlation with the original map is:

{randomization}

## All numbers

Means over the images with 95 % intervals. “Random” shuffles the values of the first method over the pixels, and
“Centre” is a Gaussian at the centre of the image; both know nothing of the network.

{metrics}
## What this sample cannot tell

- {photographs} photographs are few: {names}. Some show an object that ImageNet names, others a texture or the sky.
  Crops of a photograph are not independent, so intervals and tests count each photograph as one.
- The three networks are one family. They have ReLU6 rectifiers, global average pooling and one linear layer, for which
  CAM and Grad-CAM differ only by a constant factor and the ReLU.
- In a grid, each photograph has a quarter of its usual size, and the class is the one that the model predicts for the
  photograph alone.
- Explanations are of the predicted class, right or wrong.

Measured with {versions}.
"""
