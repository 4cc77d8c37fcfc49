"""Accuracy on the way from the ANN to the spiking graph, one step at a time, on the same images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A network between the ANN and the graph.

    Attributes
    ----------
    name : str
    before : str or None
        The stage that it differs from in one respect; None for the first.
    correct : tuple of int
        Images classified correctly, after each step if the stage has steps, else one entry.
    images : int
    """

    name: str
    before: str | None
    correct: tuple[int, ...]
    images: int

    @property
    def accuracy(self) -> float:
        """At the end, 0..1."""
        return self.correct[-1] / self.images

    @property
    def over_time(self) -> bool:
        """Whether the stage has steps."""
        return len(self.correct) > 1

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        by_step = {"accuracy_by_step": [count / self.images for count in self.correct]} if self.over_time else {}
        return {"stage": self.name, "before": self.before, "accuracy": self.accuracy, **by_step}


class Tally:
    """Correct classifications of one stage, added up over batches."""

    def __init__(self, name: str, before: str | None) -> None:
        self.name, self.before = name, before
        self._correct: NDArray[np.int64] = np.zeros(1, np.int64)
        self._images = 0

    def add(self, predictions: NDArray[np.int64], labels: NDArray[Any]) -> None:
        """Add a batch: classes of shape (B,) or (B, steps), labels of shape (B,)."""
        classes = predictions.reshape(len(labels), -1)
        self._correct = self._correct + (classes == np.asarray(labels)[:, None]).sum(axis=0)
        self._images += len(labels)

    def stage(self) -> Stage:
        """The sum."""
        return Stage(name=self.name, before=self.before, correct=tuple(self._correct.tolist()), images=self._images)
