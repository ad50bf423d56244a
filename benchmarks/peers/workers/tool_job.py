"""The task that a worker gets, and the job that it makes of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Task:
    """One model at one batch size."""

    model: Path
    """The folder of the model's files: weights.pt, forward.onnx, seewhy.onnx, facts.json."""
    batch: int
    threads: int
    options: Mapping[str, Any] = field(default_factory=dict)
    """What the question needs besides."""

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def images(self) -> np.ndarray:
        """(batch,3,224,224) float32, normalised."""
        return np.ascontiguousarray(np.load(self.model.parent / "images.npy")[: self.batch])

    @property
    def facts(self) -> dict[str, Any]:
        return json.loads((self.model / "facts.json").read_text())

    @property
    def targets(self) -> list[int]:
        """The class to explain for each image: the one that PyTorch's forward pass predicts."""
        return self.facts["targets"][: self.batch]


@dataclass
class Job:
    """What is timed."""

    run: Callable[[], Any]
    answer: Callable[[Any], Any] = np.asarray
    """What `run` returned, as the array to compare."""
    warm: Callable[[], Any] | None = None
    """Runs unmeasured before each measurement, where all of `run` would take too long."""
    settle: Callable[[], tuple[Callable[[], Any], str]] | None = None
    """Chooses what to run where the tool leaves a choice: returns it, and what it is."""
    note: str = ""
