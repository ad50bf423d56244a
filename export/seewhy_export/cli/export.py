"""The command `seewhy export`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from seewhy._shared.text import safe_name
from seewhy.cli.click_types import NonEmptyPath
from seewhy.cli.option_groups import Example, GroupedCommand
from seewhy.contract import constants as contract
from seewhy.contract.constants import CHANNEL_ORDERS, INTERPOLATIONS, RESIZE_MODES, SCORES
from seewhy.errors import ExportArgumentError, ExportError
from seewhy_export.cli import option_values
from seewhy_export.cli.option_values import IMAGENET
from seewhy_export.cli.phase_lines import PhaseLines
from seewhy_export.cli.report_text import layer_table, report_text
from seewhy_export.cli.source_export import export_source
from seewhy_export.exporter import check_text
from seewhy_export.onnx_writer.model_file import data_path
from seewhy_export.sources.label_files import load_labels
from seewhy_export.sources.onnx_import.file_reading import referenced_files
from seewhy_export.sources.preprocessing_overrides import UNDEFINED, PreprocessingOverrides
from seewhy_export.sources.registry import Source, is_onnx, load_source, recorded_source
from seewhy_export.target_layer import listing

_GROUPS = {
    "Source and weights": ["--weights", "--weights-key", "--classes", "--head", "--seed"],
    "Input and preprocessing": [
        *("--size", "--channels", "--resize", "--resize-size", "--interpolation", "--crop", "--mean", "--std"),
        *("--channel-order", "--no-preprocessing"),
    ],
    "Explanations": ["--layer", "--list-layers", "--outputs", "--guided-scope"],
    "Output": ["--output", "--name", "--labels", "--score", "--verify", "--verbose"],
}

_EXAMPLES = [
    Example("Export ResNet-50 from torchvision with its pretrained weights", "seewhy export torchvision:resnet50"),
    Example(
        "Export the network that the function network in pets.py returns, with a checkpoint, labels and normalisation",
        "seewhy export pets:network --weights best.pth --labels labels.txt --size 96 --mean 0.5 --std 0.25",
    ),
    Example(
        "Add explanations to an ONNX file",
        "seewhy export classifier.onnx --mean imagenet -o explained.onnx",
    ),
    Example("List the layers that Grad-CAM can explain", "seewhy export torchvision:resnet50 --list-layers"),
    Example(
        "Export a 512x512 network that Grad-CAM explains at the end of its third stage",
        "seewhy export torchvision:resnet50 --size 512 --layer layer3 --outputs activations,gradients",
    ),
]


@click.command("export", cls=GroupedCommand, groups=_GROUPS, examples=_EXAMPLES)
@click.argument("source", callback=option_values.not_empty)
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
    callback=option_values.not_empty,
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
    help="Number of classes for which to build a network of torchvision, timm or transformers. By default the number "
    "that its own weights have.",
)
@click.option(
    "--head",
    metavar="NAME|INDEX",
    help="Output that holds the logits, if the network has several outputs: a name, or an index from 0. By default "
    "the only output. A PyTorch network may also call it logits.",
)
@click.option(
    "--seed",
    callback=option_values.seed,
    type=int,
    default=0,
    show_default=True,
    metavar="INTEGER",
    help="Seed of the random weights of --weights none.",
)
@click.option(
    "--size",
    callback=option_values.size,
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
    type=option_values.choice(RESIZE_MODES),
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
    type=option_values.choice(INTERPOLATIONS),
    help="Interpolation filter for resizing. By default the filter of the source.",
)
@click.option(
    "--crop/--no-crop",
    default=None,
    help="Crop the centre of the image to the input size after resizing. By default as the source does.",
)
@click.option(
    "--mean",
    callback=option_values.numbers,
    metavar="NUMBER[,...]|imagenet",
    help="Mean to subtract from pixels, which range from 0 to 1: one number, or one per channel. imagenet stands for "
    "the values of ImageNet, and sets --std too if that is not given.",
)
@click.option(
    "--std",
    callback=option_values.numbers,
    metavar="NUMBER[,...]|imagenet",
    help="Standard deviation by which to divide pixels after the mean is subtracted: one number, or one per channel.",
)
@click.option(
    "--channel-order",
    type=option_values.choice(CHANNEL_ORDERS),
    help="Order of the colour channels that the network expects. By default the order of the source.",
)
@click.option(
    "--no-preprocessing",
    is_flag=True,
    help="Record no preprocessing. The file then explains only arrays that are already preprocessed.",
)
@click.option(
    "--layer",
    metavar="MODULE",
    help="Module path of the target layer, such as layer4. By default the last feature map before pooling, or the "
    "first norm of the last block if the network has class tokens.",
)
@click.option(
    "--list-layers",
    is_flag=True,
    help="List the layers that --layer can name, with the shapes of their outputs and the default, and write no file.",
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
    type=option_values.choice(SCORES),
    help="Function that turns logits into probabilities. By default the function of the source, or else softmax.",
)
@click.option(
    "--verify/--no-verify",
    default=True,
    show_default=True,
    help="Compare the outputs of the written file with PyTorch autograd in float64.",
)
@click.option("-v", "--verbose", is_flag=True, help="List the errors of all outputs against PyTorch.")
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
    no_preprocessing: bool,
    list_layers: bool,
    seed: int,
    verify: bool,
    verbose: bool,
) -> None:
    """Export an image classifier and its backward pass to one ONNX file.

    SOURCE is torchvision:NAME, timm:NAME, transformers:ID_OR_FOLDER, package.module:factory or FILE.onnx.

    The source may define labels, score and preprocessing. Each option replaces one of these values. If the source
    defines no preprocessing, then --mean and --std are required, or --no-preprocessing. The other values default to:
    squash, bilinear, no crop, RGB.

    Exit status: 0 if the file was written, 2 if not.
    """
    for what, text in {"SOURCE": source, "--name": name, "--layer": layer}.items():
        check_text(what, text or "")
    label_names = None if labels is None else load_labels(labels)
    head_choice = int(head) if head is not None and head.isascii() and head.isdigit() else head
    if mean is IMAGENET.mean and std is None:
        std = IMAGENET.std
    overrides = PreprocessingOverrides(resize, resize_size, interpolation, crop, mean, std, channel_order)
    if no_preprocessing and overrides.any_given:
        raise ExportArgumentError("--no-preprocessing excludes the options that define a preprocessing; leave them out")
    with PhaseLines() as phases:
        phases(f"loading {source}")
        loaded = load_source(
            source,
            weights,
            size,
            seed,
            weights_key=weights_key,
            overrides=overrides,
            channels=channels,
            class_count=classes,
            head=head_choice,
        )
        head_choice = None if is_onnx(source) else head_choice
        if list_layers:
            phases("tracing the network")
            layers = listing.list_layers(loaded.module, loaded.image_size, loaded.channels, head_choice)
            text = layer_table(layers)
        else:
            loaded = _with_metadata(loaded, label_names, score, name)
            path = output or Path(_default_file_name(loaded.name or "model", source))
            if is_onnx(source):
                _check_not_source(Path(source), path)
            if no_preprocessing:
                loaded = replace(loaded, preprocessing=None)
            elif loaded.preprocessing is None:
                raise ExportArgumentError(f"{source}: {UNDEFINED}")
            try:
                report = export_source(
                    loaded,
                    path,
                    recorded_source(source),
                    layer=None if layer is None else loaded.layer_names.get(layer, layer),
                    outputs=None if outputs is None else tuple(filter(None, map(str.strip, outputs.split(",")))),
                    guided_scope=tuple(loaded.layer_names.get(prefix, prefix) for prefix in guided_scope) or None,
                    verify=verify,
                    head=head_choice,
                    on_phase=phases,
                )
            except ExportError as error:
                if labels is not None and str(error).startswith(f"{len(label_names or ())} labels for "):
                    raise ExportError(f"{labels}: {error}") from error
                raise
            text = report_text(report, loaded, verbose)
    click.echo(text)


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
