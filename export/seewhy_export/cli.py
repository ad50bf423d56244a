"""The commands `seewhy export` and `seewhy demo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from seewhy._shared.text import printable, safe_name
from seewhy.cli.click_types import NonEmptyPath
from seewhy.contract import constants as contract
from seewhy.contract.constants import CHANNEL_ORDERS, INTERPOLATIONS, RESIZE_MODES, SCORES
from seewhy.errors import ExportError
from seewhy_export import demo
from seewhy_export.exporter import ExportReport, check_text, export
from seewhy_export.onnx_writer.model_file import data_path
from seewhy_export.sources.label_files import load_labels
from seewhy_export.sources.onnx_import.file_reading import files_of
from seewhy_export.sources.preprocessing_overrides import Overrides
from seewhy_export.sources.registry import Source, is_onnx, load_source
from seewhy_export.verification.parity import parity_table


class _Command(click.Command):
    """Says what is wrong with an option in one line, like every other error."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.UsageError as error:
            raise ExportError(" ".join(error.format_message().split())) from error


def _not_empty(_context: click.Context, _option: click.Parameter, text: str) -> str:
    if not text:
        raise click.BadParameter("is empty")
    return text


def _size(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """`512` or `480x640` (height x width)."""
    if text is None:
        return None
    parts = text.lower().split("x")
    if len(parts) > 2 or not all(part.isascii() and part.isdigit() and 0 < len(part) < 7 for part in parts):
        raise click.BadParameter(f"{text!r} is not a size; write 512 or 480x640 (height x width)")
    if "0" in {part.lstrip("0") or "0" for part in parts}:
        raise click.BadParameter(f"{text!r} has no pixels")
    return int(parts[0]), int(parts[-1])


def _numbers(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """`0.5`, or one a channel: `0.485,0.456,0.406`."""
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a number, or one a channel with commas between") from None


def _seed(_context: click.Context, _option: click.Parameter, value: int) -> int:
    if not -(2**63) <= value < 2**64:  # torch.manual_seed takes no others
        raise click.BadParameter(f"{value} has more than 64 bits")
    return value


def _choice(values: Sequence[str]) -> click.Choice[str]:
    return click.Choice(values, case_sensitive=False)


@click.command("export", cls=_Command)
@click.argument("source", callback=_not_empty)
@click.option("-o", "--output", type=NonEmptyPath(path_type=Path), help="The file to write [NAME.onnx].")
@click.option(
    "--weights",
    default="DEFAULT",
    show_default=True,
    callback=_not_empty,
    metavar="DEFAULT|none|FILE",
    help="Weights to load.",
)
@click.option("--weights-key", metavar="KEY", help="Which weights of the file to load, where several fit.")
@click.option("--classes", type=click.IntRange(min=1), help="Make a torchvision or timm network for this many.")
@click.option("--channels", type=click.IntRange(min=1), help="Of the images, where the source does not say.")
@click.option("--size", callback=_size, metavar="S|HxW", help="Input size in pixels, instead of the source's own.")
@click.option("--head", metavar="NAME|INDEX", help="Which output holds the logits, where there are several.")
@click.option("--layer", metavar="MODULE", help="Module path of the target layer [the last map before pooling].")
@click.option("--outputs", metavar="A,B,...", help=f"Outputs besides logits, of: {', '.join(contract.OUTPUTS[1:])}.")
@click.option("--guided-scope", multiple=True, metavar="PREFIX", help="Guide only rectifiers in these modules.")
@click.option("--labels", type=NonEmptyPath(path_type=Path), metavar="FILE", help="Class names: a line each, or JSON.")
@click.option("--score", type=_choice(SCORES), help="What makes probabilities of the logits [softmax].")
@click.option("--name", help="The model's name in the file.")
@click.option("--resize", type=_choice(RESIZE_MODES), help="How photographs are resized, instead of the source's way.")
@click.option("--resize-size", type=click.IntRange(min=1), metavar="S", help="The shorter side after resizing.")
@click.option("--interpolation", type=_choice(INTERPOLATIONS), help="The filter that resizes.")
@click.option("--crop/--no-crop", default=None, help="Centre crop after resizing.")
@click.option("--mean", callback=_numbers, metavar="M,M,M", help="Subtracted from pixels from 0 to 1.")
@click.option("--std", callback=_numbers, metavar="S,S,S", help="Divided by after that.")
@click.option("--channel-order", type=_choice(CHANNEL_ORDERS), help="What the network takes.")
@click.option("--seed", callback=_seed, default=0, show_default=True, help="Seed of random weights (--weights none).")
@click.option("--verify/--no-verify", default=True, help="Compare the file with PyTorch in float64.")
def export_command(
    source: str,
    output: Path | None,
    weights: str,
    weights_key: str | None,
    classes: int | None,
    channels: int | None,
    size: tuple[int, int] | None,
    head: str | None,
    layer: str | None,
    outputs: str | None,
    guided_scope: tuple[str, ...],
    labels: Path | None,
    score: str | None,
    name: str | None,
    resize: str | None,
    resize_size: int | None,
    interpolation: str | None,
    crop: bool | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    channel_order: str | None,
    seed: int,
    verify: bool,
) -> None:
    """Write a classifier and its backward pass to one ONNX file.

    SOURCE is torchvision:NAME, timm:NAME, package.module:factory or FILE.onnx.

    What a source says of labels, score and preprocessing holds, and each option replaces its part. Where a source
    says nothing of preprocessing, --mean and --std are needed, and the rest is: squash, bilinear, no crop, RGB.
    """
    for what, text in {"SOURCE": source, "--name": name, "--layer": layer}.items():
        check_text(what, text or "")
    names = None if labels is None else load_labels(labels)
    chosen = int(head) if head is not None and head.isascii() and head.isdigit() else head
    loaded = load_source(
        source,
        weights,
        size,
        seed,
        weights_key=weights_key,
        overrides=Overrides(resize, resize_size, interpolation, crop, mean, std, channel_order),
        channels=channels,
        classes=classes,
        head=chosen,
    )
    loaded = _described(loaded, names, score, name)
    path = output or Path(_file_name(loaded.name or "model", source))
    if is_onnx(source):
        _keep_source(Path(source), path)
    try:
        report = _export(
            loaded,
            path,
            # The folders of this machine are nobody else's business.
            Path(source).name if is_onnx(source) else source,
            layer=None if layer is None else loaded.layer_names.get(layer, layer),
            outputs=None if outputs is None else tuple(part.strip() for part in outputs.split(",") if part.strip()),
            guided_scope=tuple(loaded.layer_names.get(prefix, prefix) for prefix in guided_scope) or None,
            verify=verify,
            head=None if is_onnx(source) else chosen,
        )
    except ExportError as error:
        if labels is not None and str(error).startswith(f"{len(names or ())} labels for "):
            raise ExportError(f"{labels}: {error}") from error
        raise
    _print(report, loaded.notes)


@click.command("demo", cls=_Command)
@click.option(
    "-o",
    "--output",
    default="demo",
    show_default=True,
    type=NonEmptyPath(file_okay=False, path_type=Path),
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
    head: str | int | None = None,
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
        output=head,
        channels=source.channels,
    )


def _described(source: Source, labels: tuple[str, ...] | None, score: str | None, name: str | None) -> Source:
    """The source with what the user says of it."""
    return replace(
        source, labels=labels or source.labels, score=score or source.score, name=source.name if name is None else name
    )


def _file_name(name: str, source: str) -> str:
    """The file to write where the user names none; never the ONNX file that was read."""
    if safe_name(name) != name:
        raise ExportError(f"{name!r} cannot name a file; give one with -o")
    return f"{name}.seewhy.onnx" if is_onnx(source) else f"{name}.onnx"


def _keep_source(source: Path, output: Path) -> None:
    """Refuse to write over an ONNX file that is being read, or over weights that lie beside it."""
    if output.resolve() == source.resolve():
        raise ExportError(f"{output}: the source itself; give another name with -o")
    for file in (output, data_path(output)):
        if file.exists() and file.resolve() in files_of(source):
            raise ExportError(f"{file}: holds weights of {source}; give another name with -o")


def _print(report: ExportReport, notes: Sequence[str] = ()) -> None:
    rectifiers = report.rectifiers
    total = sum(rectifiers.kinds.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in rectifiers.kinds.items()) or "no rectifiers"
    if report.activations is not None:
        channels, height, width = report.activations
        of = "" if report.form == "map" else f", from {report.form}"
        click.echo(f"target layer: {report.layer} ({channels} maps of {height}x{width}{of})")
    click.echo(f"rectifiers:   {rectifiers.guided} of {total} guided ({kinds})")
    if total == 0:
        click.echo("              guided backprop equals plain backprop: this network's activations are smooth")
    click.echo(f"outputs:      {', '.join(report.outputs)}")
    for message in (*notes, *report.messages):
        click.echo(printable(f"note:         {message}"))
    if report.parity:
        click.echo(f"\n{parity_table(report.parity)}\n")
    else:
        click.echo("parity:       not checked")
    click.echo(f"{report.path}: {report.size / 1e6:.1f} MB, schema {contract.SCHEMA}, in {report.seconds:.0f} s")
