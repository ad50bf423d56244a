"""The commands `seewhy export` and `seewhy demo`, one file a command."""

from seewhy_export.cli.demo import demo_command
from seewhy_export.cli.export import export_command

__all__ = ["demo_command", "export_command"]
