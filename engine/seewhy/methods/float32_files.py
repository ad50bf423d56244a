"""Refusals for quantised files, which name the float32 file that can serve instead."""

from __future__ import annotations

from seewhy._shared.text import short
from seewhy.contract.quantization import Quantization


def use_float32_file(quantization: Quantization) -> str:
    """Return the advice to use the float32 file, as words that follow "; "."""
    return f"use the float32 file {short(quantization.float32_file)} (SHA-256 {quantization.float32_sha256[:12]}...)"


def cannot_shuffle(quantization: Quantization) -> str:
    """Return why the parameters of a quantised file cannot be shuffled: scales and ranges fit its own values only."""
    return f"the parameters of a quantised file cannot be shuffled; {use_float32_file(quantization)}"
