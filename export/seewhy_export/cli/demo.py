"""The command `seewhy demo`."""

from __future__ import annotations

from pathlib import Path

import click

from seewhy.cli.click_types import NonEmptyPath
from seewhy.cli.option_groups import Example, GroupedCommand
from seewhy.errors import ExportError
from seewhy_export import demo
from seewhy_export.cli.phase_lines import PhaseLines
from seewhy_export.cli.report_text import report_text
from seewhy_export.cli.source_export import export_source


@click.command(
    "demo",
    cls=GroupedCommand,
    examples=[Example("Write the model file, the images and the figures to demo/", "seewhy demo")],
)
@click.option(
    "-o",
    "--output",
    default="demo",
    show_default=True,
    type=NonEmptyPath(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder for the model file, the sample images and the figures.",
)
def demo_command(output: Path) -> None:
    """Export a network with real weights and explain sample images with it."""
    source = demo.efficientnet_lite0()
    images = output / "images"
    try:
        demo.copy_sample_images(images)
    except OSError as error:
        raise ExportError(f"{output}: cannot be written: {error.strerror or error}") from error
    model = output / "efficientnet_lite0.onnx"
    figures = output / "figures"
    click.echo("Exporting EfficientNet-Lite0 with its ImageNet weights ...")
    with PhaseLines() as phases:
        report = export_source(source, model, "seewhy_export.demo:efficientnet_lite0", on_phase=phases)
    click.echo(report_text(report, source))
    click.echo("\nExplaining sample images without PyTorch ...")
    demo.explain(model, images, figures)
    click.echo(f"\nThe model file is {model}. The figures are in {figures}/; start with *.sheet.png.")
