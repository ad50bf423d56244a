"""Benchmarks of SeeWhy; README.md lists the scripts and what each one measures."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
"""Root folder of the checkout."""
RESULTS = ROOT / "benchmarks" / "results"
