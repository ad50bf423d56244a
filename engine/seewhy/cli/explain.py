"""The command `seewhy explain`: its options. `explain_job.py` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from seewhy.bulk.job_defaults import BATCH_SIZE, METHODS, SHARD_IMAGES
from seewhy.cli import job_options as options
from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath, SuggestingChoice
from seewhy.cli.option_groups import Example, GroupedCommand
from seewhy.storage.format_names import FIGURE_FORMATS, QUALITY, SHARD_FORMATS
from seewhy.visualization import drawing_options as drawing

_GROUPS = {
    "Images and targets": ["--list", "--target", "--top"],
    "Methods": ["--method", "--option", "--plugin"],
    "Results": ["--output", "--format", "--quality", "--save-raw", "--full-size", "--shard-size"],
    "Figures": [
        *("--colormap", "--alpha", "--blend", "--canvas", "--scale"),
        *("--gradients", "--gradient-scaling", "--plain", "--sheet"),
    ],
    "Resume and failures": ["--retry-failed", "--changed", "--restart", "--fail-fast", "--max-failure-rate"],
    "Speed": ["--batch-size", "--threads", "--provider", "--fast-decode"],
    "Ray cluster": ["--ray", "--ray-address", "--ray-workers"],
}
_EXAMPLES = (
    Example("Explain every image in a folder", "seewhy explain model.onnx photos/ -o results"),
    Example(
        "Compare three methods for the label 'tabby'",
        "seewhy explain model.onnx cat.jpg -o out --method gradcam --method layercam --method backprop --target tabby",
    ),
    Example(
        "Store the maps of many images in Parquet files",
        "seewhy explain model.onnx archive.tar -o maps --format parquet --batch-size 16",
    ),
)


class _Explain(GroupedCommand):
    """A command whose help also lists the options of the built-in methods."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options of the methods, then the examples."""
        from seewhy.methods.built_in_options import BUILT_IN_OPTIONS

        rows = [
            (f"{method}.{option.name}={option.default}", option.meaning)
            for method, options in BUILT_IN_OPTIONS.items()
            for option in options
        ]
        with formatter.section("Values for --option, and their defaults"):
            formatter.write_dl(rows)
        super().format_epilog(ctx, formatter)


@click.command(cls=_Explain, groups=_GROUPS, examples=_EXAMPLES)
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.argument("images", type=click.Path(path_type=str), nargs=-1)
@options.lists
@click.option(
    "--target",
    "targets",
    metavar="CLASS",
    multiple=True,
    help="Explain this class index or label. Repeatable. By default the predicted class is explained.",
)
@click.option("--top", metavar="K", type=int, help="Explain the K classes with the highest logits.")
@click.option(
    "--method",
    "methods",
    metavar="METHOD",
    multiple=True,
    help="Explain with this method. Repeatable. `seewhy inspect MODEL` lists the methods that a model file can serve.  "
    f"[default: {METHODS[0]}]",
)
@click.option(
    "--option",
    "options",
    metavar="METHOD.NAME=VALUE",
    multiple=True,
    help="Set an option of a method, such as smoothgrad.samples=50. Repeatable. The values are listed below.",
)
@options.plugins
@options.output
@click.option(
    "--format",
    "format_",
    type=SuggestingChoice([*FIGURE_FORMATS, *SHARD_FORMATS]),
    default=FIGURE_FORMATS[0],
    show_default=True,
    help="Write figures (png, jpg, webp, svg), in folders like those of the images, or shards (npz, parquet), which "
    "hold the maps of many images.",
)
@click.option(
    "--quality",
    metavar="NUMBER",
    type=click.IntRange(1, 100),
    help=f"Set the compression quality for jpg and webp, from 1 to 100.  [default: {QUALITY}]",
)
@click.option(
    "--save-raw", "raw", is_flag=True, help="Write logits, attributions and heatmaps as .npz files beside the figures."
)
@click.option(
    "--full-size", is_flag=True, help="Store heatmaps of the input's size in shards instead of low-resolution maps."
)
@click.option(
    "--shard-size",
    "shard_images",
    metavar="IMAGES",
    type=click.IntRange(min=1),
    default=SHARD_IMAGES,
    show_default=True,
    help="Store at most this many images in one shard.",
)
@click.option(
    "--colormap",
    metavar="NAME",
    default=drawing.DEFAULT_COLORMAP,
    show_default=True,
    help=f"Color overlays with {', '.join(drawing.COLORMAPS[:-1])} or {drawing.COLORMAPS[-1]}.",
)
@click.option(
    "--alpha",
    metavar="NUMBER",
    type=click.FloatRange(0, 1),
    help="Set the opacity of overlays, from 0 to 1.  "
    f"[default: {', '.join(f'{alpha} for --blend {blend}' for blend, alpha in drawing.DEFAULT_ALPHAS.items())}]",
)
@click.option(
    "--blend",
    type=SuggestingChoice(drawing.BLENDS),
    default=drawing.DEFAULT_BLEND,
    show_default=True,
    help="Draw overlays with the same opacity everywhere, or with one that follows the heat.",
)
@click.option(
    "--canvas",
    type=SuggestingChoice(drawing.CANVASES),
    default=drawing.DEFAULT_CANVAS,
    show_default=True,
    help="Draw on what the model saw, or on the original image, with a frame around what the model saw.",
)
@click.option(
    "--scale",
    metavar="VALUE|first:N",
    help="Draw all images on one scale, so that weak maps look weak: from 0 to this value, or to the maximum of the "
    "first N images for each method. By default each figure has its own scale.",
)
@click.option(
    "--gradients",
    type=SuggestingChoice(drawing.GRADIENT_STYLES),
    default=drawing.DEFAULT_GRADIENT_STYLE,
    show_default=True,
    help="Draw gradients as signed RGB values, or the maximum of their absolute values over the channels as a heatmap "
    "or as an overlay.",
)
@click.option(
    "--gradient-scaling",
    type=SuggestingChoice(drawing.GRADIENT_SCALINGS),
    default=drawing.DEFAULT_GRADIENT_SCALING,
    show_default=True,
    help=f"Clip gradients symmetrically at the {100 * drawing.GRADIENT_QUANTILE:g} % quantile of their absolute "
    "values, or draw them from their minimum to their maximum.",
)
@click.option("--plain", is_flag=True, help="Write bare figures, without class, probability and scale below them.")
@click.option(
    "--sheet",
    type=SuggestingChoice(drawing.SHEETS),
    default=drawing.DEFAULT_SHEET,
    show_default=True,
    help="Write a contact sheet for images with several methods or classes (auto), or for every image (always). "
    "side-by-side puts it into one row, and shows backprop and guided-backprop if no method is given.",
)
@options.retry_failed
@options.restart
@options.changed
@options.fail_fast
@options.max_failure_rate
@click.option(
    "--batch-size",
    metavar="IMAGES",
    type=click.IntRange(min=1),
    default=BATCH_SIZE,
    show_default=True,
    help="Run at most this many images through the graph together.",
)
@options.threads
@options.providers
@click.option(
    "--fast-decode",
    is_flag=True,
    help="Decode JPEG files with less detail, which is faster and changes pixels slightly.",
)
@click.option(
    "--ray",
    "use_ray",
    is_flag=True,
    help="Explain on a Ray cluster whose machines all see the same files. Requires --format parquet. --threads then "
    "applies to each worker (default: 1), and --provider cuda gives each worker a GPU.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="Connect to this cluster. The default is RAY_ADDRESS, or the cluster on this machine, or a new one for this "
    "job alone.",
)
@click.option(
    "--ray-workers",
    metavar="NUMBER",
    type=click.IntRange(min=1),
    help="Start this many workers. The default is as many as the cluster has room for.",
)
@options.quiet
@options.no_verify
def explain(**chosen: Any) -> None:
    """Explain why the model in the file MODEL decided as it did for IMAGES.

    IMAGES are files, folders of files, patterns such as 'photos/**/*.jpg', and tar archives. Each image gets a figure
    NAME.METHOD.png, or NAME.METHOD.RANK-LABEL.png with several classes, and a contact sheet NAME.sheet.png if there are
    several methods or classes.

    The output folder also holds manifest.jsonl, with one line for each image, and run.json, which records how the
    results were made. If the job is interrupted, run the same command again: images that are done are skipped.

    The exit status is 0, or 1 if some images failed, or 2 if the job could not run.
    """
    from seewhy.cli import explain_job

    signals.raise_on_signals()
    sys.exit(explain_job.run(**chosen))
