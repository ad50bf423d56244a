"""The command `seewhy`: built-in and plug-in commands, and the handling of errors and signals."""

from __future__ import annotations

import os
import signal
import sys
import warnings
from contextlib import suppress
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import click

from seewhy._shared.extras import missing_extra
from seewhy._shared.suggestions import did_you_mean
from seewhy._shared.text import brief, printable
from seewhy._version import __version__
from seewhy.cli import signals
from seewhy.cli.bench import bench
from seewhy.cli.cut import cut
from seewhy.cli.evaluate import evaluate
from seewhy.cli.explain import explain
from seewhy.cli.inspect import inspect
from seewhy.cli.option_groups import usage_message
from seewhy.cli.quantize import quantize
from seewhy.cli.verify import verify
from seewhy.errors import MissingExtraError, SeewhyError

_EXIT_ERROR = 2
_PLUGINS = "seewhy.commands"
# Importing a plug-in takes seconds because of torch, so the list of commands uses these texts.
_PLUGIN_HELP = {
    "export": "Export a PyTorch network to a model file (needs PyTorch).",
    "demo": "Export a real network and explain sample images (needs PyTorch).",
}
_EXTRAS = {"demo": "demo"}


class _Failure(click.ClickException):
    """An error that is printed as one line on standard error, with exit status 2."""

    exit_code = _EXIT_ERROR

    def show(self, file: Any = None) -> None:
        with suppress(OSError):  # standard error may be closed or full, too
            self._show(file)

    def _show(self, file: Any) -> None:
        click.echo(f"seewhy: error: {printable(self.message)}", err=True, file=file)


def _output_failure(error: OSError) -> _Failure:
    """Return the error about a standard output that cannot be written."""
    with suppress(OSError):  # Python flushes its buffer when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    hint = "; the process that reads it has ended" if isinstance(error, BrokenPipeError) else ""
    return _Failure(f"standard output: {error.strerror or error}{hint}")


class _Group(click.Group):
    """Command group that loads plug-in commands when they are called, and prints expected errors as one line."""

    def main(self, args: Any = None, *others: Any, **more: Any) -> Any:
        # Ray may end the process that uses it, so the job runs in a child. If `args` is given, a program called this
        # function, and its process is left alone.
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
        except KeyboardInterrupt as error:  # click would exit with status 1, which means that some images failed
            stopped = error if isinstance(error, signals.Stopped) else signals.Stopped(signal.SIGINT)
            click.echo(f"seewhy: {stopped}", err=True)
            ctx.exit(signals.EXIT_SIGNALLED + stopped.number)
        except MemoryError as error:
            command = self.commands.get(ctx.invoked_subcommand or "")
            has_batches = command is not None and any(option.name == "batch_size" for option in command.params)
            hint = "; try a smaller --batch-size" if has_batches else ""
            raise _Failure(f"not enough memory{hint}") from error
        except BrokenPipeError as error:
            raise _output_failure(error) from error
        except OSError as error:
            name = "" if error.filename is None else f"{error.filename}: "
            raise _Failure(f"{name}{error.strerror or error}") from error

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.NoSuchOption as error:
            options = self.params if error.ctx is None else self.get_params(error.ctx)
            raise _Failure(usage_message(error, options)) from error
        except OSError as error:  # --help and --version print while the arguments are parsed
            raise _output_failure(error) from error

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *_plugins()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        command = super().get_command(ctx, cmd_name)
        if command is None and cmd_name in _plugins():
            command = _load(_plugins()[cmd_name])
            signals.raise_on_signals()
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            known = self.list_commands(ctx)
            hint = did_you_mean(args[0], known) or f" Known commands: {', '.join(known)}"
            raise SeewhyError(f"Unknown command {brief(args[0])}.{hint}") from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        own = {name: command.get_short_help_str(formatter.width) for name, command in self.commands.items()}
        rows = [(name, own.get(name) or _PLUGIN_HELP.get(name, "")) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)


def _plugins() -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=_PLUGINS)}


def _load(point: EntryPoint) -> click.Command:
    """Return the command of a plug-in, or one that reports why the plug-in cannot be imported."""
    try:
        command: click.Command = point.load()
    except ImportError as error:
        missing = error.name if isinstance(error, ModuleNotFoundError) else None
        reason = f"{missing} is not installed" if missing else printable(str(error))
        extra = _EXTRAS.get(point.name, "export")
        return _failing_command(point.name, missing_extra(f"seewhy {point.name} cannot start: {reason}", extra))
    return command


def _failing_command(name: str, error: MissingExtraError) -> click.Command:
    def fail(**_: Any) -> None:
        raise error

    return click.Command(
        name,
        callback=fail,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True, "help_option_names": []},
        add_help_option=False,
    )


@click.group(
    cls=_Group,
    commands=[explain, evaluate, inspect, verify, bench, cut, quantize],
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, prog_name="seewhy", message="%(prog)s %(version)s")
def main() -> None:
    """Explain the decisions of image classifiers with onnxruntime, without PyTorch."""
    for stream in (sys.stdout, sys.stderr):
        # Characters that the terminal's encoding lacks are printed as escapes.
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    # Pillow warns about large images on several lines. Images that are too large are refused anyway.
    warnings.filterwarnings("ignore", module="PIL")
