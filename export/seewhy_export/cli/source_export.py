"""Export of a loaded source."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from seewhy_export.exporter import ExportReport, export
from seewhy_export.sources.source import Source


def export_source(
    source: Source,
    path: Path,
    spec: str,
    *,
    layer: str | None = None,
    outputs: tuple[str, ...] | None = None,
    guided_scope: tuple[str, ...] | None = None,
    verify: bool = True,
    head: str | int | None = None,
    on_phase: Callable[[str], None] | None = None,
) -> ExportReport:
    """Export a loaded source with its labels and preprocessing.

    Args:
        source: Network and what is needed to use it.
        path: Model file to write.
        spec: Text that records in the file where the network came from.
        layer: Module path of the target layer; None chooses one.
        outputs: Names of the outputs to write; None writes all that the network supports.
        guided_scope: Module path prefixes of guided backpropagation; None means everywhere.
        verify: True to compare the file with PyTorch.
        head: Output that holds the logits.
        on_phase: Function that is called with the name of each phase when it starts.

    Returns:
        What was written.

    Raises:
        ExportError: If the network cannot be exported or the file cannot be written.
    """
    return export(
        source.module,
        path,
        image_size=source.image_size,
        layer=layer,
        outputs=outputs,
        guided_scope=guided_scope,
        labels=source.labels,
        preprocessing=source.preprocessing,
        score=source.score,
        name=source.name,
        verify=verify,
        source=spec,
        head=head,
        channels=source.channels,
        on_phase=on_phase,
    )
