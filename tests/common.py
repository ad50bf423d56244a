"""What several test modules take: pixels and files of the tiny model, the measure of error, and the command line."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
from click.testing import CliRunner, Result

from seewhy.cli.main import main
from seewhy.contract import checksum


def pixels(count: int = 3, seed: int = 7) -> np.ndarray:
    """(count,3,12,16) preprocessed pixels."""
    return np.random.default_rng(seed).standard_normal((count, 3, 12, 16)).astype(np.float32)


def relative_error(found: np.ndarray, expected: np.ndarray) -> float:
    """|found - expected| / |expected|, both as one vector."""
    assert found.shape == expected.shape
    assert np.linalg.norm(expected) > 0
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def write(path: Path, model: onnx.ModelProto) -> Path:
    """Write `model` with the right digest."""
    path.write_bytes(checksum.seal(model.SerializeToString()))
    return path


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="seewhy")


def failed(result: Result, words: str) -> None:
    """One line on standard error, status 2, no traceback."""
    assert result.exit_code == 2, result.output
    assert re.fullmatch(f"seewhy: error: .*{words}.*\n", result.stderr), result.stderr
    assert isinstance(result.exception, SystemExit)
