"""What is timed, and how: in turns, round by round."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from alternatives.network import STEPS, Network
from sparsespike.backends.base import Backend
from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend


class Seconds(NamedTuple):
    """What one image took, without and with what is done once for a batch of images: starting, building, compiling."""

    run: float
    whole: float | None = None


@dataclass
class Alternative:
    """Something that is timed: ``run`` gives the seconds that one image took."""

    name: str
    run: Callable[[], Seconds]
    measured: list[Seconds] = field(default_factory=list)
    exact: str = ""

    @property
    def fastest(self) -> float:
        """Seconds per image in the least disturbed round."""
        return min(seconds.run for seconds in self.measured)

    @property
    def median(self) -> float:
        """Seconds per image."""
        return statistics.median(seconds.run for seconds in self.measured)

    @property
    def wholes(self) -> list[float]:
        """Seconds per image, building included, of each round; empty where that was not measured."""
        return [seconds.whole for seconds in self.measured if seconds.whole is not None]


def timed(images: int, work: Callable[[], object]) -> Callable[[], Seconds]:
    """Seconds per image of a piece of work."""

    def run() -> Seconds:
        began = time.perf_counter()
        work()
        return Seconds((time.perf_counter() - began) / images)

    return run


def in_turns(alternatives: Sequence[Alternative], rounds: int) -> None:
    """Measure all, round by round."""
    for alternative in alternatives:
        alternative.run()  # compiles, fills caches
    for _ in range(rounds):
        for alternative in alternatives:
            alternative.measured.append(alternative.run())


def spikes_of(backend: Backend, network: Network, images: int) -> list[int]:
    """Spikes of each layer, summed over neurons and images."""
    result = run_blocks(backend, network.graph, network.images[:images], STEPS)
    return [int(result.spikes[layer.name].positive.sum()) for layer in network.layers]


def same_spikes(network: Network, images: int, found: Sequence[int]) -> str:
    """Whether the spikes of each layer are those of the native backend: yes or no."""
    return "yes" if list(found) == spikes_of(NativeBackend(), network, images) else "no"
