"""Task of a worker, and the job that it runs for the task."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Task:
    """One model, one batch size and the options of a question."""

    model: Path
    """Folder with the files of the model: weights.pt, images.npy, forward.onnx, seewhy.onnx, facts.json, and
    the same ONNX files in 8 bits with names that end in -int8.onnx."""
    batch: int
    threads: int
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options of the question; see `Question.options`."""

    def file(self, default: str) -> Path:
        """Return the ONNX file that the options name, or the one of the default name."""
        return self.model / self.options.get("file", default)

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def images(self) -> np.ndarray:
        """Normalized images, float32 of shape (batch, 3, 224, 224)."""
        return np.ascontiguousarray(np.load(self.model / "images.npy")[: self.batch])

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.model / "facts.json").read_text())

    @property
    def targets(self) -> list[int]:
        """Class indices to explain, one per image: the classes that PyTorch predicts."""
        return self.facts["targets"][: self.batch]


@dataclass
class Job:
    """Code that is timed."""

    run: Callable[[], Any]
    to_array: Callable[[Any], Any] = np.asarray
    """Function that converts the value of `run` to the array to compare."""
    warm: Callable[[], Any] | None = None
    """Unmeasured call before each measurement, if `run` would take too long."""
    choose: Callable[[], tuple[Callable[[], Any], str]] | None = None
    """Function that returns the fastest variant of `run` and its name, if the tool has several."""
    note: str = ""
