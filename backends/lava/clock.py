"""Which image and local step a population is at, at any global step of a pipelined run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from sparsespike.export.graph import SpikingGraph


class Window(NamedTuple):
    """What a population does in one global step: local step ``step`` of the images ``first`` to ``first + rows - 1``."""

    first: int
    rows: int
    step: int

    @property
    def images(self) -> slice:
        """The images, as a slice of an array over all images."""
        return slice(self.first, self.first + self.rows)


@dataclass(frozen=True)
class Clock:
    """The local time of a population that takes its first local step at global step ``start``.

    ``block`` images run side by side; one block follows the other without a pause: local step t of block g is global step
    start + g * steps + t. Global steps are counted from 0, Lava's time steps from 1. The first of the ``images`` images is number
    ``first`` of the run.
    """

    steps: int
    images: int
    block: int
    start: int
    first: int = 0

    @property
    def last(self) -> int:
        """Global steps until this population has taken ``steps`` local steps of every image."""
        return self.steps * -(-self.images // self.block) + self.start

    def window(self, time_step: int) -> Window | None:
        """The window at Lava's time step 1, 2, ...; None before the first and after the last local step."""
        local = time_step - 1 - self.start
        if local < 0 or time_step > self.last:
            return None
        block, step = divmod(local, self.steps)
        before = block * self.block
        return Window(self.first + before, min(self.block, self.images - before), step)


def first_step(graph: SpikingGraph, name: str) -> int:
    """Global step at which a population takes the first local step of the first block.

    Every message takes one step. Rate-coded: a population at depth d starts at step d, so that the spikes of local step t meet
    all others of the same t. AEC: it encodes from step d * slots on, the step that brings the last message of its decode window;
    the readout, which has no decode window, starts with the first message of the populations before it.
    """
    depth = graph.depth[name]
    if graph.slots is None:
        return depth
    return (depth - 1) * graph.slots + 1 if name == graph.readout.name else depth * graph.slots


def message_delay(graph: SpikingGraph, pre: str, post: str) -> int:
    """Global steps from a spike of ``pre`` to its arrival at ``post``, at least 1."""
    return graph.delay(pre, post) + (graph.slots is not None)
