"""Start the command line: `seewhy`, and `python -m seewhy`."""

from seewhy.cli import signals


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    # Handle signals before the command line is imported, because the import takes a while.
    signals.exit_on_signals()
    from seewhy.cli.main import main as command

    try:
        command(prog_name="seewhy")
    finally:
        signals.ignore_signals()


if __name__ == "__main__":
    main()
