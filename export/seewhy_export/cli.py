"""The commands `seewhy export` and `seewhy demo`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import click

from seewhy._shared.text import printable, safe_name
from seewhy.cli.click_types import NonEmptyPath
from seewhy.cli.option_groups import Example, GroupedCommand
from seewhy.contract import constants as contract
from seewhy.contract.constants import CHANNEL_ORDERS, INTERPOLATIONS, RESIZE_MODES, SCORES
from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export import demo
from seewhy_export.exporter import ExportReport, check_text, export
from seewhy_export.onnx_writer.model_file import data_path
from seewhy_export.sources.label_files import load_labels
from seewhy_export.sources.onnx_import.file_reading import referenced_files
from seewhy_export.sources.preprocessing_overrides import PreprocessingOverrides
from seewhy_export.sources.registry import Source, is_onnx, load_source
from seewhy_export.verification.parity import parity_table


def _not_empty(_context: click.Context, _option: click.Parameter, text: str) -> str:
    """Return the text if it is not empty."""
    if not text:
        raise click.BadParameter("must not be empty")
    return text


def _size(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[int, int] | None:
    """Return (height, width) from `512` or `480x640`."""
    if text is None:
        return None
    lengths = text.lower().split("x")
    if len(lengths) > 2 or not all(length.isascii() and length.isdigit() and len(length) < 7 for length in lengths):
        raise click.BadParameter(f"must be a side such as 512, or height x width such as 480x640, not {text!r}")
    height, width = int(lengths[0]), int(lengths[-1])
    if height == 0 or width == 0:
        raise click.BadParameter(f"height and width must be at least 1 pixel, not {text!r}")
    return height, width


def _numbers(_context: click.Context, _option: click.Parameter, text: str | None) -> tuple[float, ...] | None:
    """Return the numbers in `0.5`, or in one number per channel such as `0.485,0.456,0.406`."""
    if text is None:
        return None
    try:
        return tuple(float(number) for number in text.split(","))
    except ValueError:
        raise click.BadParameter(
            f"must be one number, or one number per channel separated by commas, not {text!r}"
        ) from None


def _seed(_context: click.Context, _option: click.Parameter, value: int) -> int:
    """Return the seed if `torch.manual_seed` accepts it."""
    if not -(2**63) <= value < 2**64:
        raise click.BadParameter(f"must be from -2**63 to 2**64 - 1, not {value}")
    return value


def _choice(values: Sequence[str]) -> click.Choice[str]:
    """Return the type of an option that takes one of these values in any case."""
    return click.Choice(values, case_sensitive=False)


_GROUPS = {
    "Source and weights": ["--weights", "--weights-key", "--classes", "--head", "--seed"],
    "Input and preprocessing": [
        *("--size", "--channels", "--resize", "--resize-size", "--interpolation", "--crop", "--mean", "--std"),
        "--channel-order",
    ],
    "Explanations": ["--layer", "--outputs", "--guided-scope"],
    "Output": ["--output", "--name", "--labels", "--score", "--verify"],
}

_EXAMPLES = [
    Example("Export ResNet-50 from torchvision with its pretrained weights", "seewhy export torchvision:resnet50"),
    Example(
        "Export your own network with a checkpoint, labels and normalisation",
        "seewhy export pets:network --weights best.pth --labels labels.txt --size 96 --mean 0.5 --std 0.25",
    ),
    Example(
        "Add explanations to an ONNX file",
        "seewhy export classifier.onnx --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225 -o explained.onnx",
    ),
    Example(
        "Export a 512x512 network that Grad-CAM explains at the end of its third stage",
        "seewhy export torchvision:resnet50 --size 512 --layer layer3 --outputs activations,gradients",
    ),
]


@click.command("export", cls=GroupedCommand, groups=_GROUPS, examples=_EXAMPLES)
@click.argument("source", callback=_not_empty)
@click.option(
    "-o",
    "--output",
    type=NonEmptyPath(path_type=Path),
    metavar="FILE",
    help="Model file to write. By default NAME.onnx in the current folder, or NAME.seewhy.onnx if SOURCE is an ONNX "
    "file.",
)
@click.option(
    "--weights",
    default="DEFAULT",
    show_default=True,
    callback=_not_empty,
    metavar="DEFAULT|none|FILE",
    help="Weights to load. DEFAULT loads the weights that belong to the source, and may download them. none uses "
    "random weights. FILE is a PyTorch checkpoint or a safetensors file.",
)
@click.option(
    "--weights-key",
    metavar="KEY",
    help="Set of weights to load from the checkpoint. Needed only if several sets fit; the error message lists them.",
)
@click.option(
    "--classes",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Number of classes for which to build a torchvision or timm network. By default the number that its own "
    "weights have.",
)
@click.option(
    "--head",
    metavar="NAME|INDEX",
    help="Output that holds the logits, if the network has several outputs: a name, or an index from 0. By default "
    "the only output. A PyTorch network may also call it logits.",
)
@click.option(
    "--seed",
    callback=_seed,
    type=int,
    default=0,
    show_default=True,
    metavar="INTEGER",
    help="Seed of the random weights of --weights none.",
)
@click.option(
    "--size",
    callback=_size,
    metavar="SIDE|HxW",
    help="Input size in pixels: one side of a square such as 512, or height and width such as 480x640. By default "
    "the size of the source.",
)
@click.option(
    "--channels",
    type=click.IntRange(min=1),
    metavar="COUNT",
    help="Number of image channels. Needed only if the source does not define it.",
)
@click.option(
    "--resize",
    type=_choice(RESIZE_MODES),
    help="How to resize images: shorter-side keeps the aspect ratio, squash changes it to that of the input, and "
    "none does not resize. By default the mode of the source.",
)
@click.option(
    "--resize-size",
    type=click.IntRange(min=1),
    metavar="PIXELS",
    help="Length after resizing, before the crop: of the shorter side, or of both sides of a square for squash.",
)
@click.option(
    "--interpolation",
    type=_choice(INTERPOLATIONS),
    help="Interpolation filter for resizing. By default the filter of the source.",
)
@click.option(
    "--crop/--no-crop",
    default=None,
    help="Crop the centre of the image to the input size after resizing. By default as the source does.",
)
@click.option(
    "--mean",
    callback=_numbers,
    metavar="NUMBER[,...]",
    help="Mean to subtract from pixels, which range from 0 to 1: one number, or one per channel.",
)
@click.option(
    "--std",
    callback=_numbers,
    metavar="NUMBER[,...]",
    help="Standard deviation by which to divide pixels after the mean is subtracted: one number, or one per channel.",
)
@click.option(
    "--channel-order",
    type=_choice(CHANNEL_ORDERS),
    help="Order of the colour channels that the network expects. By default the order of the source.",
)
@click.option(
    "--layer",
    metavar="MODULE",
    help="Module path of the target layer, such as layer4. By default the last feature map before pooling, or the "
    "first norm of the last block if the network has class tokens.",
)
@click.option(
    "--outputs",
    metavar="NAME[,...]",
    help=f"Outputs to write besides logits: any of {', '.join(contract.OUTPUTS[1:])}. By default all that the network "
    f"supports, except {' and '.join(contract.OPTIONAL_OUTPUTS)}.",
)
@click.option(
    "--guided-scope",
    multiple=True,
    metavar="PREFIX",
    help="Apply guided backpropagation only to rectifiers in modules with this path prefix. Repeatable. By default "
    "to all rectifiers.",
)
@click.option("--name", metavar="NAME", help="Name of the model in the file. By default the name of the source.")
@click.option(
    "--labels",
    type=NonEmptyPath(path_type=Path),
    metavar="FILE",
    help="File with the class labels: a text file with one label per line, or JSON. By default the labels of the "
    "source.",
)
@click.option(
    "--score",
    type=_choice(SCORES),
    help="Function that turns logits into probabilities. By default the function of the source, or else softmax.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Compare the outputs of the written file with PyTorch autograd in float64.",
)
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
    """Export an image classifier and its backward pass to one ONNX file.

    SOURCE is torchvision:NAME, timm:NAME, package.module:factory or FILE.onnx.

    The source may define labels, score and preprocessing. Each option replaces one of these values. If the source
    defines no preprocessing, then --mean and --std are required to record one, and the other values default to:
    squash, bilinear, no crop, RGB.

    Exit status: 0 if the file was written, 2 if not.
    """
    for what, text in {"SOURCE": source, "--name": name, "--layer": layer}.items():
        check_text(what, text or "")
    label_names = None if labels is None else load_labels(labels)
    head_choice = int(head) if head is not None and head.isascii() and head.isdigit() else head
    loaded = load_source(
        source,
        weights,
        size,
        seed,
        weights_key=weights_key,
        overrides=PreprocessingOverrides(resize, resize_size, interpolation, crop, mean, std, channel_order),
        channels=channels,
        class_count=classes,
        head=head_choice,
    )
    loaded = _with_metadata(loaded, label_names, score, name)
    path = output or Path(_default_file_name(loaded.name or "model", source))
    if is_onnx(source):
        _check_not_source(Path(source), path)
    try:
        report = _export(
            loaded,
            path,
            # Do not record the folders of this machine in a file that may be published.
            Path(source).name if is_onnx(source) else source,
            layer=None if layer is None else loaded.layer_names.get(layer, layer),
            outputs=None if outputs is None else tuple(filter(None, map(str.strip, outputs.split(",")))),
            guided_scope=tuple(loaded.layer_names.get(prefix, prefix) for prefix in guided_scope) or None,
            verify=verify,
            head=None if is_onnx(source) else head_choice,
        )
    except ExportError as error:
        if labels is not None and str(error).startswith(f"{len(label_names or ())} labels for "):
            raise ExportError(f"{labels}: {error}") from error
        raise
    _print_report(report, loaded.notes)


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
    _print_report(_export(source, model, "seewhy_export.demo:efficientnet_lite0"))
    click.echo("\nExplaining sample images without PyTorch ...")
    demo.explain(model, images, figures)
    click.echo(f"\nThe model file is {model}. The figures are in {figures}/; start with *.sheet.png.")


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
    """Export a loaded source."""
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
    )


def _with_metadata(source: Source, labels: tuple[str, ...] | None, score: str | None, name: str | None) -> Source:
    """Return the source with the user's labels, score and name in place of its own."""
    return replace(
        source, labels=labels or source.labels, score=score or source.score, name=source.name if name is None else name
    )


def _default_file_name(name: str, source: str) -> str:
    """Return the name of the file to write without --output. It never equals the ONNX file that was read."""
    if safe_name(name) != name:
        raise ExportArgumentError(f"{name!r} cannot be a file name; choose the file to write with -o")
    return f"{name}.seewhy.onnx" if is_onnx(source) else f"{name}.onnx"


def _check_not_source(source: Path, output: Path) -> None:
    """Refuse to overwrite the ONNX file that is being read, or its external weights."""
    if output.resolve() == source.resolve():
        raise ExportArgumentError(f"{output}: is the source itself; choose another file to write with -o")
    for file in (output, data_path(output)):
        if file.exists() and file.resolve() in referenced_files(source):
            raise ExportArgumentError(f"{file}: holds weights of {source}; choose another file to write with -o")


def _print_report(report: ExportReport, notes: Sequence[str] = ()) -> None:
    """Print what was exported."""
    rectifiers = report.rectifiers
    total = sum(rectifiers.kinds.values())
    kinds = ", ".join(f"{count} {kind}" for kind, count in rectifiers.kinds.items()) or "no rectifiers"
    if report.activations is not None:
        channels, height, width = report.activations
        form = "" if report.form == "map" else f", from {report.form}"
        click.echo(f"target layer: {report.layer} ({channels} maps of {height}x{width}{form})")
    click.echo(f"rectifiers:   {rectifiers.guided} of {total} guided ({kinds})")
    if total == 0:
        click.echo("              guided backprop equals plain backprop because all activations are smooth")
    click.echo(f"outputs:      {', '.join(report.outputs)}")
    for message in (*notes, *report.messages):
        click.echo(printable(f"note:         {message}"))
    if report.parity:
        click.echo(f"\n{parity_table(report.parity)}\n")
    else:
        click.echo("parity:       not checked")
    click.echo(f"{report.path}: {report.size / 1e6:.1f} MB, schema {contract.SCHEMA}, in {report.seconds:.0f} s")
