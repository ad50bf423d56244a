"""Measurements of SeeWhy; README.md says which script answers which question."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""The checkout's folder."""
RESULTS = ROOT / "benchmarks" / "results"
