"""Which image and local step a population is at, at any global step of a pipelined run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple


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
    """The local time of a population at depth ``depth`` of a chain with unit delays.

    ``block`` images run side by side; one block follows the other without a pause. A population at depth d takes local step t
    of block g at global step g * steps + t + d, so that its spikes of that step meet all others of the same t and g.
    """

    steps: int
    images: int
    block: int
    depth: int

    @property
    def last(self) -> int:
        """Global steps until this population has taken ``steps`` local steps of every image."""
        return self.steps * -(-self.images // self.block) + self.depth

    def window(self, time_step: int) -> Window | None:
        """The window at Lava's time step 1, 2, ...; None before the first and after the last local step."""
        local = time_step - 1 - self.depth
        if local < 0 or time_step > self.last:
            return None
        block, step = divmod(local, self.steps)
        first = block * self.block
        return Window(first, min(self.block, self.images - first), step)
