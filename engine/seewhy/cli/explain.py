"""The command `seewhy explain`: its options. `explain_job.py` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath
from seewhy.visualization import drawing_options as drawing


class _Explain(click.Command):
    """Lists the methods' options below its own."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        from seewhy.methods.registry import METHODS

        rows = [
            (f"{method.name}.{option.name}={option.default}", option.meaning)
            for method in METHODS.values()
            for option in method.options
        ]
        with formatter.section("Options of methods, and their defaults"):
            formatter.write_dl(rows)


@click.command(cls=_Explain)
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.argument("images", type=click.Path(path_type=str), nargs=-1)
@click.option(
    "-o", "--output", "folder", type=NonEmptyPath(path_type=Path), required=True, help="Folder for the results."
)
@click.option(
    "--list",
    "lists",
    type=click.Path(path_type=str),
    multiple=True,
    help="File of one path a line, or .csv with the columns path, target, id (the last two if need be); - is standard "
    "input. Repeatable.",
)
@click.option("--method", "methods", multiple=True, default=("gradcam",), show_default=True, help="Method; repeatable.")
@click.option(
    "--target", "targets", multiple=True, help="Class index or label; repeatable. Default: the predicted one."
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="METHOD.NAME=VALUE",
    help="Option of a method, e.g. smoothgrad.samples=50; repeatable. See below.",
)
@click.option("--top", type=int, help="Explain this many of the highest classes.")
@click.option(
    "--format",
    "format_",
    type=click.Choice(["png", "jpg", "webp", "npz", "parquet"]),
    default="png",
    show_default=True,
    help="png, jpg, webp: pictures, in folders like the input's. npz, parquet: maps, many images in a file.",
)
@click.option("--quality", type=click.IntRange(1, 100), help="Of jpg and webp pictures.  [default: 90]")
@click.option(
    "--save-raw", "raw", is_flag=True, help="Beside pictures, write logits, attributions and heatmap as .npz."
)
@click.option(
    "--colormap", default=drawing.DEFAULT_COLORMAP, show_default=True, help=f"One of {', '.join(drawing.COLORMAPS)}."
)
@click.option(
    "--alpha",
    type=click.FloatRange(0, 1),
    default=drawing.DEFAULT_ALPHA,
    show_default=True,
    help="Opacity of the heatmap, from 0 (invisible) to 1 (opaque).",
)
@click.option(
    "--canvas",
    type=click.Choice(drawing.CANVASES),
    default=drawing.DEFAULT_CANVAS,
    show_default=True,
    help="Draw overlays on what the model saw, or on the whole photograph.",
)
@click.option("--full-size", is_flag=True, help="In npz and parquet, heatmaps of the input's size, not small maps.")
@click.option(
    "--shard-size",
    "shard_images",
    type=click.IntRange(min=1),
    default=1000,
    show_default=True,
    help="Images in a shard.",
)
@click.option("--fast-decode", is_flag=True, help="Decode JPEGs with less detail: quicker, and other pixels.")
@click.option("--restart", is_flag=True, help="Forget what earlier runs into the output folder have done.")
@click.option(
    "--changed", is_flag=True, help="Explain images again whose files have changed since an earlier run read them."
)
@click.option("--fail-fast", is_flag=True, help="Stop at the first image that fails.")
@click.option(
    "--max-failure-rate", type=click.FloatRange(0, 1), help="Stop when a larger share of 100 images or more has failed."
)
@click.option("-q", "--quiet", is_flag=True, help="No line for each image.")
@click.option("--provider", "providers", multiple=True, help="onnxruntime provider, e.g. cuda or cpu; repeatable.")
@click.option(
    "--threads",
    type=click.IntRange(min=1),
    help="Threads, at most four for each core, or 16. Default: one for each core.",
)
@click.option("--batch-size", type=click.IntRange(min=1), default=8, show_default=True, help="Images in one run.")
@click.option("--no-verify", is_flag=True, help="Do not check the model file's SHA-256.")
@click.option(
    "--ray",
    "use_ray",
    is_flag=True,
    help="Explain on a Ray cluster whose machines all see the same files; with --format parquet. --threads is then for "
    "each worker (default: 1), and --provider cuda gives each a GPU.",
)
@click.option(
    "--ray-address",
    metavar="ADDRESS",
    help="Of the cluster. Default: RAY_ADDRESS, or the one on this machine, or one for this run alone.",
)
@click.option(
    "--ray-workers", type=click.IntRange(min=1), help="Workers. Default: as many as the cluster has room for."
)
def explain(**chosen: Any) -> None:
    """Explain IMAGES with the model file MODEL: files, folders of them, patterns like 'photos/**/*.jpg', tar archives.

    Writes NAME.METHOD.png for each image, and NAME.sheet.png where several methods are given; with --format, other
    pictures or files of maps. manifest.jsonl in the output folder says what became of each image, and run.json how.
    The same command again goes on where the last one stopped.

    Exit status: 0, or 1 where some images failed, or 2 where nothing could be done.
    """
    from seewhy.cli import explain_job

    signals.raise_from_now_on()
    sys.exit(explain_job.run(**chosen))
