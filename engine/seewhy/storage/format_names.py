"""Formats of results. This module imports nothing, so that the command line can list them quickly."""

from __future__ import annotations

PIXEL_FORMATS = ("png", "jpg", "webp")
"""Formats of figures that hold pixels alone."""
FIGURE_FORMATS = (*PIXEL_FORMATS, "svg")
"""Formats of figures: each image has files of its own."""
SHARD_FORMATS = ("npz", "parquet")
"""Formats of shards: many images share a file."""
QUALITY = 90
"""Default compression quality of jpg and webp."""
