"""Start the command line: `seewhy`, and `python -m seewhy`."""

from seewhy.cli import signals


def main() -> None:
    """Run the command that the arguments name, and exit with its status."""
    # The command line is imported only now, because importing it takes a while in which a signal may come.
    signals.exit_at_once()
    from seewhy.cli.main import main as command

    try:
        command(prog_name="seewhy")
    finally:
        signals.ignore_from_now_on()


if __name__ == "__main__":
    main()
