"""The report's claims about methods, as comparisons of numbers over photographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seewhy.evaluation import statistics
from seewhy.evaluation.image_records import ImageRow


@dataclass(frozen=True)
class Claim:
    """A claim that one method has a larger value of a metric than another one."""

    text: str
    """The claim; `...` continues the one before."""
    metric: str
    larger: str
    smaller: str


NOISE = ("backprop", "guided-backprop")

CLAIMS = (
    Claim("Guided backprop hardly changes with the class, unlike CAM", "class-sensitivity", "guided-backprop", "cam"),
    Claim("... unlike Grad-CAM", "class-sensitivity", "guided-backprop", "gradcam"),
    Claim("CAM moves to the named object", "grid-pointing", "cam", "random"),
    Claim("Grad-CAM moves to the named object", "grid-pointing", "gradcam", "random"),
    Claim("Guided Grad-CAM moves to the named object", "grid-pointing", "guided-gradcam", "random"),
    Claim("... unlike guided backprop", "grid-pointing", "guided-gradcam", "guided-backprop"),
    Claim("Guided Grad-CAM is sharper than Grad-CAM", "sparseness", "guided-gradcam", "gradcam"),
    Claim("Guided backprop is less noisy than backprop: under noise it moves less", "stability", *NOISE),
    Claim("Guided backprop is less noisy than backprop: its map is less rough", "roughness", *NOISE),
    Claim("Guided backprop fails randomization, unlike backprop", "randomization", "guided-backprop", "backprop"),
    Claim("... unlike Grad-CAM", "randomization", "guided-backprop", "gradcam"),
)


def test_claims(rows: Sequence[ImageRow]) -> list[dict[str, float]]:
    """Return for each claim the mean difference, its interval and p, by a sign-flip test over photographs."""
    results = []
    for claim in CLAIMS:
        values = {
            method: {
                row.path: (row.value, row.cluster)
                for row in rows
                if (row.metric, row.method) == (claim.metric, method) and row.value is not None
            }
            for method in (claim.larger, claim.smaller)
        }
        paths = sorted(values[claim.larger].keys() & values[claim.smaller].keys())
        table = np.array([[values[method][path][0] for method in values] for path in paths])
        names = sorted({values[claim.larger][path][1] for path in paths})
        clusters = np.array([names.index(values[claim.larger][path][1]) for path in paths])
        (test,) = statistics.sign_flip_tests(table, clusters, 0)
        difference = table[:, :1] - table[:, 1:]
        low, high = statistics.bootstrap_intervals(difference, clusters, 0).ravel()
        results.append({"difference": test.difference, "low": low, "high": high, "p": test.p, "n": test.n})
    return results
