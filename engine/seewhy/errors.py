"""The errors that SeeWhy raises on purpose.

Each message is one line: what was wrong, with the value and the file, and what to do. The command line prints the
message alone and exits with status 2; anything that is not a `SeewhyError` is a bug.
"""

from __future__ import annotations


class SeewhyError(Exception):
    """Base of every error that bad use or bad input can cause."""


class ModelFileError(SeewhyError):
    """A model file is missing, damaged, not ONNX, or not one that the exporter wrote."""


class ImageError(SeewhyError):
    """An image is missing, damaged, too large, or of a shape or dtype that the model does not take."""


class TargetError(SeewhyError):
    """A target class is out of range, unknown, or given for the wrong number of images."""


class MethodError(SeewhyError):
    """A method is unknown, or the model file lacks what it needs."""


class ProviderError(SeewhyError):
    """An onnxruntime execution provider is not there, or could not be used."""


class OutputError(SeewhyError):
    """A result cannot be written, or the model produced numbers that are not finite."""


class ExportError(SeewhyError):
    """A network cannot be exported: its source, target layer, operators or parity stand in the way."""


class MissingExtraError(SeewhyError):
    """A command needs an optional dependency that is not installed."""


class ClusterError(SeewhyError):
    """A Ray cluster cannot be reached, lacks what is asked for, or lost its workers too often."""
