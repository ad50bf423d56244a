"""Defaults of jobs. This module imports nothing, so that the command line can show them quickly."""

from __future__ import annotations

METHODS = ("gradcam",)
"""Methods of a job."""

SHEET_METHODS = {"side-by-side": ("backprop", "guided-backprop")}
"""Methods of a job by the contact sheet that it asks for, where these are others."""

BATCH_SIZE = 8
"""Number of images in one run of the graph.

With one thread a run, 32 took 4 to 9 % less time for each image (ResNet-50, EfficientNet-Lite0) and 2.6 times the
memory.
"""

SHARD_IMAGES = 1000
"""Number of images in a shard. A job that is interrupted repeats at most one shard."""
