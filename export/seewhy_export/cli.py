"""The commands `seewhy export` and `seewhy demo`."""

from __future__ import annotations

from pathlib import Path

import click

from seewhy import contract
from seewhy.contract import RESIZE_MODES
from seewhy.errors import ExportError

from . import demo
from .exporter import SUPPORTED_OUTPUTS, ExportReport, export
from .sources import Source, load_source
from .verify import table


@click.command("export")
@click.argument("source")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="The file to write [NAME.onnx].")
@click.option("--weights", default="DEFAULT", show_default=True, metavar="DEFAULT|none|FILE", help="Weights to load.")
@click.option("--size", metavar="S|HxW", help="Input size in pixels, instead of the source's own.")
@click.option(
    "--resize", type=click.Choice(RESIZE_MODES), help="How photographs are resized, instead of the source's way."
)
@click.option("--layer", metavar="MODULE", help="Module path of the target layer [the last map before pooling].")
@click.option("--outputs", metavar="A,B,...", help=f"Outputs besides logits, of: {', '.join(SUPPORTED_OUTPUTS[1:])}.")
@click.option("--guided-scope", multiple=True, metavar="PREFIX", help="Guide only rectifiers in these modules.")
@click.option("--seed", default=0, show_default=True, help="Seed of random weights (--weights none).")
@click.option("--verify/--no-verify", default=True, help="Compare the file with PyTorch in float64.")
def export_command(
    source: str,
    output: Path | None,
    weights: str,
    size: str | None,
    resize: str | None,
    layer: str | None,
    outputs: str | None,
    guided_scope: tuple[str, ...],
    seed: int,
    verify: bool,
) -> None:
    """Write a classifier and its backward pass to one ONNX file.

    SOURCE is torchvision:NAME, timm:NAME or package.module:factory.
    """
    loaded = load_source(source, weights, _parse_size(size), resize, seed)
    path = output or Path(f"{loaded.name}.onnx")
    report = _export(
        loaded,
        path,
        source,
        layer=layer,
        outputs=None if outputs is None else tuple(name.strip() for name in outputs.split(",") if name.strip()),
        guided_scope=guided_scope or None,
        verify=verify,
    )
    _print(report)


@click.command("demo")
@click.option(
    "-o",
    "--output",
    default="demo",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder.",
)
def demo_command(output: Path) -> None:
    """Export a network with real weights, and explain photographs with it."""
    source = demo.efficientnet_lite0()
    photographs = output / "photographs"
    try:
        demo.copy_photographs(photographs)
    except OSError as error:
        raise ExportError(f"{output}: cannot be written: {error.strerror or error}") from error
    model = output / "efficientnet_lite0.onnx"
    click.echo("Exporting EfficientNet-Lite0 with its ImageNet weights ...")
    _print(_export(source, model, "seewhy_export.demo:efficientnet_lite0"))
    click.echo("\nExplaining photographs, without PyTorch ...")
    demo.explain(model, photographs, output / "pictures")
    click.echo(f"\nThe model is {model}, and the pictures are in {output / 'pictures'}/; look at *.sheet.png first.")


def _export(
    source: Source,
    path: Path,
    spec: str,
    layer: str | None = None,
    outputs: tuple[str, ...] | None = None,
    guided_scope: tuple[str, ...] | None = None,
    verify: bool = True,
) -> ExportReport:
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
    )


def _print(report: ExportReport) -> None:
    channels, height, width = report.activations
    rectifiers = report.rectifiers
    total = sum(rectifiers.kinds.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in rectifiers.kinds.items()) or "no rectifiers"
    click.echo(f"target layer: {report.layer} ({channels} maps of {height}x{width})")
    click.echo(f"rectifiers:   {rectifiers.guided} of {total} guided ({kinds})")
    if total == 0:
        click.echo("              guided backprop equals plain backprop: this network's activations are smooth")
    click.echo(f"outputs:      {', '.join(report.outputs)}")
    for message in report.messages:
        click.echo(f"note:         {message}")
    if report.parity:
        click.echo(f"\n{table(report.parity)}\n")
    else:
        click.echo("parity:       not checked")
    click.echo(f"{report.path}: {report.size / 1e6:.1f} MB, schema {contract.SCHEMA}, in {report.seconds:.0f} s")


def _parse_size(text: str | None) -> tuple[int, int] | None:
    """`512` or `480x640` (height x width)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise click.BadParameter(f"{text!r} is not a size; write 512 or 480x640 (height x width)", param_hint="--size")
    return int(parts[0]), int(parts[-1])
