"""Defaults of evaluations. This module imports nothing, so that the command line can show them quickly."""

from __future__ import annotations

METHODS = ("backprop", "guided-backprop", "cam", "gradcam", "guided-gradcam", "layercam")
"""Methods of an evaluation, as far as the model file can serve them."""

ALL = "all"
"""Name that stands for all metrics."""
