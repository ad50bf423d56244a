"""Tests of the error classes: how they derive from each other, and that `seewhy` exports each of them."""

from __future__ import annotations

import inspect

import pytest

import seewhy
from seewhy import errors

CLASSES = [value for _, value in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize("error", CLASSES)
def test_every_error_is_a_seewhy_error_and_exported(error: type[Exception]) -> None:
    assert issubclass(error, seewhy.SeewhyError)
    assert getattr(seewhy, error.__name__) is error
    assert error.__name__ in seewhy.__all__


def test_bad_arguments_are_value_errors() -> None:
    bad_argument = {error.__name__ for error in CLASSES if issubclass(error, ValueError)}
    assert bad_argument == {"ArgumentError", "ExportArgumentError", "TargetError", "MethodError", "MetricError"}
    assert issubclass(seewhy.TargetError, seewhy.ArgumentError)
    assert issubclass(seewhy.MethodError, seewhy.ArgumentError)


def test_other_errors_derive_from_the_base_alone() -> None:
    others = [error for error in CLASSES if not issubclass(error, ValueError) and error is not seewhy.SeewhyError]
    assert all(error.__bases__ == (seewhy.SeewhyError,) for error in others)
