"""Tests of `seewhy._shared.suggestions`."""

from __future__ import annotations

import pytest

from seewhy._shared.suggestions import closest_name, did_you_mean

METHODS = ("backprop", "gradcam", "guided-gradcam", "gradcam++")


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gradcm", "gradcam"), ("GradCAM", "gradcam"), ("guided_gradcam", "guided-gradcam"), ("lime", None), ("", None)],
)
def test_closest_name(name: str, expected: str | None) -> None:
    assert closest_name(name, METHODS) == expected


def test_a_suggestion_is_written_as_the_known_name_is() -> None:
    assert did_you_mean("resnet_18", ["ResNet18", "VGG"]) == " Did you mean 'ResNet18'?"
    assert did_you_mean("resnet_18", []) == ""
