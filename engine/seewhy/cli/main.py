"""The command line: `seewhy explain`, `inspect` and `bench`, and the commands of plug-ins."""

from __future__ import annotations

import json
import os
import signal
import sys
import warnings
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

import click

from seewhy._shared.text import printable
from seewhy._version import __version__
from seewhy.cli import signals
from seewhy.cli.click_types import NonEmptyPath
from seewhy.errors import MissingExtraError, SeewhyError

_EXIT_ERROR = 2
_EXIT_PROBLEMS = 1
_PLUGINS = "seewhy.commands"
# Importing a plug-in takes seconds (torch), so the list of commands does not ask it for its help.
_PLUGIN_HELP = {
    "export": "Turn a PyTorch network into a model file (needs PyTorch).",
    "demo": "Export a real network and explain sample photographs (needs PyTorch).",
}
_EXTRAS = {"demo": "demo"}


class _Failure(click.ClickException):
    """One line on standard error, exit status 2."""

    exit_code = _EXIT_ERROR

    def show(self, file: Any = None) -> None:
        with suppress(OSError):  # standard error may be closed or full as well
            self._show(file)

    def _show(self, file: Any) -> None:
        click.echo(f"seewhy: error: {printable(self.message)}", err=True, file=file)


def _unwritable(error: OSError) -> _Failure:
    """Return the failure of a standard output that cannot be written."""
    with suppress(OSError):  # what Python still holds for it is written when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    hint = "; nothing reads it any more" if isinstance(error, BrokenPipeError) else ""
    return _Failure(f"standard output: {error.strerror or error}{hint}")


class _Group(click.Group):
    """Adds plug-ins' commands, loaded when they are called, and turns expected errors into one line."""

    def main(self, args: Any = None, *others: Any, **more: Any) -> Any:
        # Ray may end the process that uses it. Without `args`, the process belongs to this command alone.
        if args is None and "--ray" in sys.argv:
            from seewhy.ray import supervisor

            supervisor.run_in_child()
        return super().main(args, *others, **more)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except SeewhyError as error:
            raise _Failure(str(error)) from error
        except ImportError as error:
            if "SEEWHY_ISA" not in str(error):
                raise
            raise _Failure(str(error)) from error
        except KeyboardInterrupt as error:  # click would say "Aborted!", and exit as if some images had failed
            stopped = error if isinstance(error, signals.Stopped) else signals.Stopped(signal.SIGINT)
            click.echo(f"seewhy: {stopped}", err=True)
            ctx.exit(signals.EXIT_SIGNALLED + stopped.number)
        except MemoryError as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            has_batches = command is not None and any(option.name == "batch_size" for option in command.params)
            hint = "; try a smaller --batch-size" if has_batches else ""
            raise _Failure(f"not enough memory{hint}") from error
        except BrokenPipeError as error:
            raise _unwritable(error) from error
        except OSError as error:
            name = "" if error.filename is None else f"{error.filename}: "
            raise _Failure(f"{name}{error.strerror or error}") from error

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except OSError as error:  # --help and --version print while arguments are read
            raise _unwritable(error) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in _plugins():
            command = _load(_plugins()[cmd_name])
            signals.raise_from_now_on()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = {name: command.get_short_help_str(formatter.width) for name, command in self.commands.items()}
        rows = [(name, own.get(name) or _PLUGIN_HELP.get(name, "")) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_PLUGINS)}


def _load(point: EntryPoint) -> click.Command:
    """A plug-in's command; where it cannot be imported, one that says why."""
    try:
        command: click.Command = point.load()
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        reason = f"{missing} is not installed" if missing else printable(str(error))
        extra = _EXTRAS.get(point.name, "export")
        text = f'seewhy {point.name} cannot start: {reason}; run: pip install "seewhy[{extra}]"'
        return _unavailable(point.name, text)
    return command


def _unavailable(name: str, text: str) -> click.Command:
    def fail(**_: Any) -> None:
        raise MissingExtraError(text)

    return click.Command(
        name,
        callback=fail,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        add_help_option=False,
    )


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="seewhy", message="%(prog)s %(version)s")
def main() -> None:
    """Explain an image classifier's decisions with onnxruntime alone."""
    for stream in (sys.stdout, sys.stderr):
        # A label that the terminal's encoding lacks is printed as an escape.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Pillow warns of large pictures on several lines; ours are refused, or are not too large.
    warnings.filterwarnings("ignore", module="PIL")


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


@main.command(cls=_Explain)
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
    "--colormap", default="jet", show_default=True, help="jet, turbo, viridis, inferno, magma, plasma or grey."
)
@click.option("--alpha", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="The heatmap's share.")
@click.option(
    "--canvas",
    type=click.Choice(["model", "original"]),
    default="model",
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


@main.command()
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def inspect(model: Path, as_json: bool) -> None:
    """Say what the model file MODEL holds, and check that it is whole."""
    from seewhy.cli import model_report
    from seewhy.runtime.model_file import ModelFile

    signals.raise_from_now_on()
    read = ModelFile.inspect(model)
    if as_json:
        click.echo(json.dumps(model_report.facts(read), indent=2))
    else:
        click.echo(model_report.report(read))
    if read.damage is not None:
        raise _Failure(read.damage)


@main.command()
@click.argument("folder", metavar="OUT", type=NonEmptyPath(path_type=Path))
def verify(folder: Path) -> None:
    """Check the results in the output folder OUT of `seewhy explain` against its manifest.

    Every file that manifest.jsonl names must be there, with the size and the SHA-256 that were recorded. Files that
    look like results and that no line names are listed, too. To replace what is wrong, delete it and run the same
    `seewhy explain` command again.

    Exit status: 0; 1 if a result is missing, short or changed; 2 if OUT cannot be checked.
    """
    from seewhy.bulk.verify import Verification

    signals.raise_from_now_on()
    check = Verification(folder)
    for found in check:
        click.echo(printable(f"{found.path}: {found.what}"))
    unlisted = f", {check.unlisted} unlisted" if check.unlisted else ""
    click.echo(
        f"{check.done + check.failed} images in {printable(str(folder))}: {check.done} done, {check.failed} failed; "
        f"{check.files} files, {check.problems or 'no'} problem{'' if check.problems == 1 else 's'}{unlisted}"
    )
    sys.exit(_EXIT_PROBLEMS if check.problems else 0)


@main.command()
@click.argument("model", type=NonEmptyPath(path_type=Path))
@click.option("--method", "methods", multiple=True, help="Method; repeatable. Default: gradcam and guided-backprop.")
@click.option(
    "--batch", "batches", type=int, multiple=True, default=(1, 8, 32), show_default=True, help="Batch size; repeatable."
)
@click.option(
    "--threads",
    type=int,
    multiple=True,
    help="Threads, at most four for each core, or 16; repeatable. Default: one for each usable core.",
)
@click.option("--provider", "providers", multiple=True, help="onnxruntime provider, e.g. cuda or cpu; repeatable.")
@click.option("--seconds", type=float, default=2.0, show_default=True, help="Time for each row of the table.")
@click.option("--rounds", type=int, default=5, show_default=True, help="Turns that this time is split into.")
@click.option("--profile", is_flag=True, help="Also say which operators take the time.")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON.")
def bench(**chosen: Any) -> None:
    """Measure how quick the model file MODEL is on this machine, and which batch size and threads suit it."""
    from seewhy.cli import bench as bench_cli

    signals.raise_from_now_on()
    bench_cli.run(**chosen)
