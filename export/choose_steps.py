"""Choose the number of time steps by measurement: the saturation time of the accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import Backend
from sparsespike.backends.bulk import run_blocks
from sparsespike.common.errors import ConfigError
from sparsespike.energy.saturation import TOLERANCE, WINDOW, Saturation, saturated_steps
from sparsespike.export.graph import SpikingGraph

LONGEST = 64
"""Time steps over which accuracy is measured to find its saturation."""

LONGEST_WINDOW = 32
"""Likewise for AEC, where every T takes a conversion of its own."""

Progress = Callable[[int], None]


@dataclass(frozen=True)
class StepsChoice:
    """Time steps that were chosen, and why.

    Attributes
    ----------
    steps : int
        T.
    saturation : Saturation or None
        First window in which the paper's rule is fulfilled (section 2.3); None if there is none up to the last step.
    correct : tuple of int
        Images classified correctly after each step.
    images : int
    rule : str
        In words.
    """

    steps: int
    saturation: Saturation | None
    correct: tuple[int, ...]
    images: int
    rule: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        window = None if self.saturation is None else vars(self.saturation)
        return {
            "steps": self.steps,
            "saturation": window,
            "accuracy_by_step": [count / self.images for count in self.correct],
            "images": self.images,
            "rule": self.rule,
        }

    def describe(self) -> str:
        """One sentence."""
        at, best = self.correct[self.steps - 1] / self.images, max(self.correct) / self.images
        return (
            f"T = {self.steps}: {100 * at:.2f} % of {self.images:,} images, at most {100 * best:.2f} % up to "
            f"T = {len(self.correct)}; {self.rule}"
        )


def choose_steps(
    graph: SpikingGraph,
    pixels: NDArray[Any],
    labels: NDArray[Any],
    backend: Backend,
    *,
    longest: int = LONGEST,
    progress: Progress | None = None,
) -> StepsChoice:
    """The saturation time of the accuracy.

    The paper's rule looks at single steps. A curve that creeps up, or has not begun to rise, may fulfil it too early; so a window
    only counts if no later step is better than its end by more than the same percent.

    Parameters
    ----------
    graph : SpikingGraph
        Of kind ``aec``: the length of its tables is the one number of steps it runs for.
    pixels : integer array, shape (B, N) or (B, C, y, x)
        Validation or training images: T chosen on test images would make the reported accuracy too high.
    labels : integer array, shape (B,)
    backend : Backend
    longest : int
        Steps to measure.
    progress : callable, optional
        Called with the number of images done since the last call.

    Raises
    ------
    ConfigError
        If ``longest`` leaves no room for a window.
    BackendError, GraphError
        If the graph cannot be run on these images.
    """
    if longest <= WINDOW:
        raise ConfigError(f"choice of T: found {longest} steps to measure, expected more than {WINDOW}, the rule's window")
    steps = graph.slots or longest
    correct = correct_by_step(graph, pixels, labels, steps, backend, progress)
    if graph.slots is not None:
        return StepsChoice(
            steps, None, correct, len(labels), "a graph of kind aec runs for as many steps as its tables have slots"
        )
    return _saturation_time(correct, len(labels))


def choose_window(
    convert: Callable[[int], SpikingGraph],
    pixels: NDArray[Any],
    labels: NDArray[Any],
    backend: Backend,
    *,
    longest: int = LONGEST_WINDOW,
    progress: Progress | None = None,
) -> StepsChoice:
    """The saturation time of the accuracy of AEC graphs, each of which is made for one T.

    Parameters
    ----------
    convert : callable
        The graph for a T.
    pixels, labels, backend
        As in :func:`choose_steps`.
    longest : int
        Largest T that is tried; all from 1 on are.
    progress : callable, optional
        Called with 1 after each T.

    Raises
    ------
    ConfigError
        If ``longest`` leaves no room for a window.
    """
    if longest <= WINDOW:
        raise ConfigError(f"choice of T: found {longest} steps to measure, expected more than {WINDOW}, the rule's window")
    correct = []
    for steps in range(1, longest + 1):
        correct.append(correct_by_step(convert(steps), pixels, labels, steps + 1, backend, None)[-1])
        if progress is not None:
            progress(1)
    return _saturation_time(tuple(correct), len(labels))


def _saturation_time(correct: tuple[int, ...], images: int) -> StepsChoice:
    """The paper's rule on a curve of counts."""
    ends, steps = saturated_steps(correct), len(correct)
    first = Saturation(ends[0] - WINDOW, ends[0]) if ends else None
    lasting = [t for t in ends if max(correct[t - 1 :]) <= (1 + TOLERANCE) * correct[t - 1]]
    percent = f"{float(100 * TOLERANCE):g} %"
    rule = f"the first T after {WINDOW} steps in a row of relative improvements of at most {percent} each"
    if not lasting:
        chosen = correct.index(max(correct)) + 1
        rule = f"the best T, since there is no saturation up to T = {steps} ({rule}, without a later rise of more than {percent})"
        return StepsChoice(chosen, first, correct, images, rule)
    if lasting[0] != ends[0]:
        rule += f", and without a later rise of more than {percent} (the rule alone gives T = {ends[0]})"
    return StepsChoice(lasting[0], first, correct, images, rule)


def correct_by_step(
    graph: SpikingGraph, pixels: NDArray[Any], labels: NDArray[Any], steps: int, backend: Backend, progress: Progress | None
) -> tuple[int, ...]:
    """Images classified correctly after each step, shape (steps,)."""
    run = run_blocks(backend, graph, pixels, steps, progress=progress)
    return tuple((run.predictions == np.asarray(labels)[:, None]).sum(axis=0).tolist())
