"""The command `seewhy evaluate`: its options. `evaluate_job.py` does the work."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from seewhy._shared.text import printable
from seewhy.cli import job_options as options
from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath, SuggestingChoice
from seewhy.cli.option_groups import Example, GroupedCommand
from seewhy.evaluation.evaluation_defaults import METHODS

_GROUPS = {
    "Images and targets": ["--list", "--target", "--cluster-folders"],
    "Methods": ["--method", "--attributions", "--reduction"],
    "Metrics": ["--metric", "--list-metrics", "--regions", "--option", "--plugin", "--seed"],
    "Results": ["--output"],
    "Resume and failures": ["--retry-failed", "--changed", "--restart", "--fail-fast", "--max-failure-rate"],
    "Speed": ["--threads", "--provider"],
}
_EXAMPLES = (
    Example("Compare the usual methods on a folder of images", "seewhy evaluate model.onnx photos/ -o evaluation"),
    Example(
        "Measure two methods by deletion with black pixels",
        "seewhy evaluate model.onnx photos/ -o out --method gradcam --method layercam --metric deletion "
        "--option deletion.baseline=black",
    ),
    Example(
        "Measure how well maps point at annotated objects",
        "seewhy evaluate model.onnx photos/ -o out --metric pointing --metric energy-pointing --regions boxes.csv",
    ),
)


def _list_metrics(context: click.Context, option: click.Parameter, is_given: bool) -> None:
    """Print the metrics and end, if the option is given."""
    if is_given:
        from seewhy.metrics import listing

        for line in listing.text():
            click.echo(printable(line))
        context.exit()


@click.command(cls=GroupedCommand, groups=_GROUPS, examples=_EXAMPLES)
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.argument("images", type=click.Path(path_type=str), nargs=-1)
@options.lists
@click.option(
    "--target", metavar="CLASS", help="Explain this class index or label. By default the predicted class is explained."
)
@click.option(
    "--cluster-folders",
    "folders_are_clusters",
    is_flag=True,
    help="Count the images of one folder as one cluster in the statistics, such as crops of one photograph.",
)
@click.option(
    "--method",
    "methods",
    metavar="METHOD",
    multiple=True,
    help=f"Evaluate this method. Repeatable. By default {', '.join(METHODS[:-1])} and {METHODS[-1]}, as far as the "
    "model file can serve them.",
)
@click.option(
    "--attributions",
    metavar="FOLDER",
    type=NonEmptyPath(path_type=str),
    help="Also evaluate maps of other tools: FOLDER/METHOD/NAME.npz with an array 'attribution', float32 of shape "
    "(H, W) or (C, H, W) of the model's input size.",
)
@click.option(
    "--reduction",
    type=SuggestingChoice(["sum", "max-abs"]),
    help="Reduce all attributions with channels to one value a pixel in this way, instead of each method's own.",
)
@click.option(
    "--metric",
    "metrics",
    metavar="METRIC",
    multiple=True,
    help="Measure this. Repeatable; 'all' stands for all metrics. By default all that need few passes.",
)
@click.option(
    "--list-metrics",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_list_metrics,
    help="List all metrics with their ranges, sources and options, and exit.",
)
@click.option(
    "--regions",
    metavar="FILE",
    type=NonEmptyPath(path_type=str),
    help="Read boxes or masks of objects from a .csv file with columns path, x0, y0, x1, y1 and optionally label, or "
    "from a COCO .json file.",
)
@click.option(
    "--option",
    "options",
    metavar="NAME.OPTION=VALUE",
    multiple=True,
    help="Set an option of a metric or method, such as deletion.baseline=black. Repeatable. "
    "--list-metrics lists those of metrics.",
)
@options.plugins
@click.option(
    "--seed", metavar="NUMBER", type=int, default=0, show_default=True, help="Draw all random numbers from this seed."
)
@options.output
@options.retry_failed
@options.restart
@options.changed
@options.fail_fast
@options.max_failure_rate
@options.threads
@options.providers
@options.no_verify
def evaluate(**chosen: Any) -> None:
    """Measure which explanation of the model in the file MODEL to trust, on IMAGES.

    IMAGES are files, folders of files, patterns such as 'photos/**/*.jpg', and tar archives. Each method is measured on
    each image, beside two references that know nothing of the model. The result is a table and a recommendation.

    The output folder holds summary.json, per-image.csv and plots; manifest.jsonl, with one line for each image; and
    run.json. If the job is interrupted, run the same command again: images that are done are skipped.

    The exit status is 0, or 1 if some images failed, or 2 if the job could not run.
    """
    from seewhy.cli import evaluate_job

    signals.raise_on_signals()
    sys.exit(evaluate_job.run(**chosen))
