"""Text about a quantised file: its precision, its drift from float32, and the trade of layers kept in float32."""

from __future__ import annotations

import textwrap

from seewhy._shared.text import printable
from seewhy.contract.quantization import CONFIDENT, Drift, Quantization, Trade

_WIDTH = 22
"""Width of the column of names in the table of drift, in characters."""
_LINE = 80
"""Longest line, in characters."""


def wrapped(start: str, text: str) -> list[str]:
    """Return a text as lines of at most 80 characters. The first begins with `start`, and long words stay whole."""
    indent = " " * len(start)
    return textwrap.wrap(
        printable(text),
        _LINE,
        initial_indent=start,
        subsequent_indent=indent or "  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def precision(quantization: Quantization) -> str:
    """Return types, number of layers and calibration as one line."""
    layers = quantization.int8_layers
    return (
        f"{layers} layer{'s' * (layers != 1)} with {quantization.weight_type} weights and "
        f"{quantization.activation_type} activations, {len(quantization.kept_float)} kept in float32; "
        f"{quantization.calibration}, from {_images(quantization.calibration_images)}"
    )


def drift_table(quantization: Quantization) -> list[str]:
    """Return the lines of the table of drift, and of the table of trades if there is one."""
    drift = quantization.drift
    rows = [
        ("correlation of maps", _correlations(drift)),
        ("same predicted class", _agreement(drift)),
        ("logits", f"relative L2 error {drift.logits_error:.1e}"),
        *(("" if i else "time of Grad-CAM", line) for i, line in enumerate(_speeds(drift))),
    ]
    lines = wrapped("", f"Drift from {quantization.float32_file}, measured on {_images(drift.images)}:")
    for name, value in rows:
        lines += wrapped(f"  {name:<{_WIDTH}} ", value)
    if quantization.trades:
        lines += ["", *_trades(quantization.trades, len(quantization.kept_float))]
    return lines


def _images(count: int) -> str:
    return f"{count} image{'s' * (count != 1)}"


def _correlations(drift: Drift) -> str:
    left_out = f"; {_images(drift.constant_maps)} with a constant map left out" if drift.constant_maps else ""
    if drift.correlation_median is None:
        return "unknown, because every image has a constant map"
    return (
        f"median {drift.correlation_median:.4f}, 5th percentile {drift.correlation_p5:.4f}, worst "
        f"{drift.correlation_worst:.4f}{left_out}"
    )


def _agreement(drift: Drift) -> str:
    confident = drift.top1_agreement_confident
    more = (
        ""
        if confident is None
        else f"; {_percent(confident)} of the {drift.confident_images} with a probability above {CONFIDENT:g}"
    )
    return f"{_percent(drift.top1_agreement)} of the images{more}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _speeds(drift: Drift) -> list[str]:
    flags = "unknown CPU" if drift.cpu_flags is None else f"CPU with {', '.join(drift.cpu_flags) or 'no known flags'}"
    machine = f"{drift.threads} thread{'s' * (drift.threads != 1)}, {flags}"
    lines = [
        f"{one.int8_ms:.1f} ms an image, float32 {one.float32_ms:.1f} ms "
        f"({one.float32_ms / one.int8_ms:.2f}x), batch size {one.batch_size}"
        for one in drift.speed
    ]
    return [*lines, f"on {machine}"] if lines else ["not measured"]


def _trades(trades: tuple[Trade, ...], chosen: int) -> list[str]:
    lines = [
        "Layers kept in float32, on the calibration images (speed: of one image,",
        "relative to float32):",
        f"  {'layers':>6} {'median':>8} {'5th percentile':>15} {'speed':>8}",
    ]
    for one in trades:
        median, p5, speed = (
            "unknown" if value is None else f"{value:.{digits}f}"
            for value, digits in ((one.correlation_median, 4), (one.correlation_p5, 4), (one.speedup, 2))
        )
        mark = "  (this file)" if one.kept_float == chosen else ""
        lines.append(f"  {one.kept_float:>6} {median:>8} {p5:>15} {speed:>6} x{mark}")
    return lines
