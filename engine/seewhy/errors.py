"""Errors that SeeWhy raises on purpose.

Each message is one line that says what is wrong, names the value or the file, and says what to do. The command line
prints the message without a traceback and exits with status 2. Any other exception is a bug.
"""

from __future__ import annotations


class SeewhyError(Exception):
    """Base class of all errors that SeeWhy raises on purpose."""


class ArgumentError(SeewhyError, ValueError):
    """A bad argument: a value that is out of range, of the wrong type, or an unknown name."""


class TargetError(ArgumentError):
    """A target class that is out of range or unknown, or targets for the wrong number of images."""


class MethodError(ArgumentError):
    """A method or method option that is unknown or bad, or a method whose outputs the model file lacks."""


class MetricError(ArgumentError):
    """A metric or metric option that is unknown or bad, or metrics none of which apply to the methods."""


class ModelFileError(SeewhyError):
    """A model file that is missing, damaged, not ONNX, or not written by the exporter."""


class ImageError(SeewhyError):
    """An image that cannot be read, is too large, or has a shape or dtype that the model does not take."""


class ProviderError(SeewhyError):
    """An onnxruntime execution provider that is not available or failed."""


class NonFiniteError(SeewhyError):
    """NaN or infinity in the numbers that the model or a method computed."""


class OutputError(SeewhyError):
    """A result file or output folder that cannot be written or read."""


class ExportError(SeewhyError):
    """A network that cannot be exported, because of its source, target layer, operators or parity."""


class ExportArgumentError(ExportError, ArgumentError):
    """A bad argument of an export: an unknown source, layer, output or option, or a value that is out of range."""


class MissingExtraError(SeewhyError):
    """An optional dependency that is not installed."""


class ClusterError(SeewhyError):
    """A Ray cluster that cannot be reached, lacks the requested resources, or lost its workers too often."""
