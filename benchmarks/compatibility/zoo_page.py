"""The page docs/reference/models.md, from the results of zoo.py."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from benchmarks.shared.markdown_tables import table as markdown_table

OUTPUTS = {
    "logits": "logits",
    "activations": "activations",
    "gradients": "gradients",
    "input_gradients": "input gradients",
    "guided_gradients": "guided gradients",
}
TOLERANCE, FACTOR, LARGEST = 1e-4, 4.0, 0.1
SOURCES = ("torchvision", "timm", "transformers")
"""Sources, each with a table of its own."""

HEAD = """# Models

Every classifier of torchvision and one small member of each timm family, both at their own image size, and every image
classifier of transformers that takes plain images, in a small configuration. All are exported from scratch, with random
weights that leave no branch switched off. `python benchmarks/compatibility/zoo.py` writes this page.

{summary}

Each cell of the last five columns is the relative L2 error of that output against PyTorch's autograd in float64. In
brackets is the error of PyTorch's own float32 against the same reference. Both are the larger of two values: on noise,
and on an image with flat areas. An error may be at most the larger of 1e-4 and four times PyTorch's own;
[semantics.md](../concepts/semantics.md#parity) explains why. A `†` marks an input for which rounding flipped a
rectifier, in PyTorch's float32 or in the file, so that another input of the same kind was used. *Rectifiers* are those
that guided backpropagation guides; smooth activations follow after a semicolon. Seconds are those of export and check
on one thread of a busy machine.

"""


def table(specs: list[str], results: dict[str, dict[str, Any]]) -> str:
    """Return the whole page."""
    parts = [HEAD.format(summary=_summary(specs, results))]
    for source in SOURCES:
        rows = [spec for spec in specs if spec.startswith(source + ":")]
        parts.append(f"## {source}\n\n" + _rows(rows, results))
    return "\n".join(parts)


def _summary(specs: list[str], results: dict[str, dict[str, Any]]) -> str:
    lines = []
    for source in SOURCES:
        known = [results.get(spec, {}) for spec in specs if spec.startswith(source + ":")]
        exported = [record for record in known if "parity" in record]
        good = sum(all(_agrees(e) for kinds in r["parity"].values() for e in kinds.values()) for r in exported)
        refused = sum("refused" in record for record in known)
        missing = len(known) - len(exported) - refused
        lines.append(
            f"- {source}: {good} of {len(known)} exported and within the limit"
            + (f", {len(exported) - good} outside it" if good < len(exported) else "")
            + (f", {refused} refused" if refused else "")
            + (f", {missing} not measured" if missing else "")
        )
    versions: dict[str, str] = {}
    for record in results.values():
        versions = {**versions, **record.get("versions", {})}
    lines.append(f"- versions: {', '.join(f'{name} {version}' for name, version in versions.items())}")
    return "\n".join(lines)


def _agrees(errors: dict[str, float | None]) -> bool:
    error, torch_error = errors["error"], errors["torch_float32"]
    return error is None or error <= min(LARGEST, max(TOLERANCE, FACTOR * (torch_error or 0)))


def _rows(specs: Iterable[str], results: dict[str, dict[str, Any]]) -> str:
    head = ["model", "target layer", "maps", "rectifiers", "MiB", "s", *OUTPUTS.values()]
    rows = []
    for spec in specs:
        record = results.get(spec, {"failed": "not measured"})
        name = spec.partition(":")[2]
        if "parity" not in record:
            reason = f"refused: {record['refused']}" if "refused" in record else record["failed"]
            rows.append([name, reason, *[""] * (len(head) - 2)])
            continue
        form = "" if record["form"] == "map" else f" {record['form']}"
        rows.append(
            [
                name,
                f"`{record['layer']}`",
                "×".join(str(size) for size in record["activations"]) + form,
                _rectifiers(record),
                f"{record['bytes'] / 2**20:.0f}",
                f"{record['seconds']:.0f}",
                *(_cell(record["parity"][output]) for output in OUTPUTS),
            ]
        )
    return markdown_table(head, rows)


def _rectifiers(record: dict[str, Any]) -> str:
    kinds = ", ".join(f"{count} {kind}" for kind, count in record["rectifiers"].items()) or "none"
    smooth = ", ".join(f"{count} {kind}" for kind, count in record["smooth"].items())
    return kinds + (f"; {smooth}" if smooth else "")


def _cell(kinds: dict[str, dict[str, float | None]]) -> str:
    """Return the errors on the kind of input for which the file's error is larger."""
    tested = [errors for errors in kinds.values() if errors["error"] is not None]
    if not tested:
        return "zero"
    worst = max(tested, key=lambda errors: errors["error"] or 0)
    repeated = " †" if any((errors["draw"] or 1) > 1 for errors in tested) else ""
    return f"{worst['error']:.0e} ({worst['torch_float32']:.0e}){repeated}"
