"""Text of what an export wrote, and of the layers that a network has."""

from __future__ import annotations

from collections.abc import Sequence

from seewhy._shared.text import printable
from seewhy_export._shared.messages import size_text
from seewhy_export.exporter import ExportReport
from seewhy_export.sources.source import Source
from seewhy_export.target_layer.listing import LayerInfo
from seewhy_export.verification.parity import largest_error, parity_table


def report_text(report: ExportReport, source: Source, verbose: bool = False) -> str:
    """Describe an export in lines of text.

    Args:
        report: Result of the export.
        source: Network that was exported, with its preprocessing.
        verbose: True to list the errors of all outputs.

    Returns:
        The lines, safe to print on a terminal.
    """
    lines = [_input(source)]
    if report.activations is not None:
        channels, height, width = report.activations
        form = "" if report.form == "map" else f", from {report.form}"
        lines.append(f"target layer: {report.layer} ({channels} maps of {height}x{width}{form})")
    rectifiers = report.rectifiers
    total = sum(rectifiers.kinds.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in rectifiers.kinds.items()) or "no rectifiers"
    lines.append(f"rectifiers:   {rectifiers.guided} of {total} guided ({kinds})")
    if total == 0:
        lines.append("              guided backprop equals plain backprop because all activations are smooth")
    lines.append(f"outputs:      {', '.join(report.outputs)}")
    lines += [f"note:         {message}" for message in (*source.notes, *report.messages)]
    lines.append(f"verified:     {_verification(report, verbose)}")
    if verbose and report.parity:
        lines += ["", *parity_table(report.parity).splitlines(), ""]
    lines.append(f"{report.path}: {size_text(report.size)} in {report.seconds:.0f} s")
    return "\n".join(map(printable, lines))


def _input(source: Source) -> str:
    """Return the line about the size and the preprocessing of images."""
    height, width = source.image_size
    how = source.preprocessing
    if how is None:
        return f"input:        {height}x{width} pixels, arrays that are already preprocessed"
    mean, std = (",".join(f"{value:.4g}" for value in values) for values in (how.mean, how.std))
    resize = how.resize if how.size is None else f"{how.resize} {how.size}"
    crop = ", centre crop" if how.crop else ""
    return f"input:        {height}x{width} pixels, resize {resize} ({how.interpolation}){crop}, mean {mean}, std {std}"


def _verification(report: ExportReport, verbose: bool) -> str:
    """Return the result of the comparison with PyTorch in one line."""
    if not report.parity:
        return "no; the comparison with PyTorch was switched off"
    hint = "" if verbose else "; -v lists all errors"
    return f"OK against PyTorch (largest relative error {largest_error(report.parity):.0e}{hint})"


def layer_table(layers: Sequence[LayerInfo]) -> str:
    """Format layers as a text table with one line per layer.

    Args:
        layers: The layers, in the order of the network.

    Returns:
        The lines, safe to print on a terminal.
    """
    rows = [("layer", "type", "output", "")]
    rows += [
        (layer.name, layer.type, f"({', '.join(map(str, ('N', *layer.shape)))})", "default" if layer.is_default else "")
        for layer in layers
    ]
    widths = [max(len(printable(row[column])) for row in rows) for column in range(3)]
    return "\n".join(
        "  ".join([*(printable(cell).ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        for row in rows
    )
