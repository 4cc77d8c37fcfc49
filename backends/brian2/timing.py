"""When a population takes its steps, and where it has its place within a step.

Images run one after the other in one continuous simulation; a window is the time of one image, ``steps`` steps.

Rate-coded graphs: every population runs image b in window b. Each population has its own places in a step, in topological
order, so that a spike arrives in the step in which it is fired: skips need no delay, and nothing is in flight when an image
ends.

AEC graphs: a neuron must have heard a whole window before its first slot, so a population at depth d encodes image b in window
b + d, while what it hears already belongs to the next image (it gathers apart from the membrane); the readout hears image b in
the window before its own depth. A step of all populations costs the same as one of a single population waiting for its turn,
so this pipeline takes one window an image, where a simulation with an image at a time would take as many as the graph is
deep. A projection that skips windows has a delay; populations before the first image or after the last run idle, unrecorded.
"""

from __future__ import annotations

from dataclasses import dataclass

from sparsespike.export.graph import Projection, SpikingGraph

OWN_SLOTS = ("start", "groups", "thresholds", "synapses", "resets", "end")
"""Slots that every schedule of Brian2 must have."""
EVENTS = 3
"""Most events of a population."""
STAGES = ("drive", *(f"{stage}{event}" for event in range(EVENTS) for stage in ("test", "apply")), "send", "look")
"""The places within a step: membranes are driven, events tested and applied one after the other, spikes sent, membranes looked
at."""


@dataclass(frozen=True, eq=False)
class Timing:
    """The times of one graph; see the module."""

    graph: SpikingGraph

    @property
    def schedule(self) -> list[str]:
        """All slots of a step, in order."""
        first, *last = OWN_SLOTS
        if self.graph.slots is not None:
            return [first, "begin", *STAGES, *last]
        return [first, "begin", *(self.slot(stage, name) for name in self.graph.order for stage in STAGES), *last]

    def slot(self, stage: str, name: str) -> str:
        """The slot in which a population does something."""
        return stage if self.graph.slots is not None else f"{stage}_{self.graph.order.index(name)}"

    def hears(self, name: str) -> int:
        """Windows from an image's arrival to the one in which it reaches this population."""
        return 0 if self.graph.slots is None else max(self.graph.depth[name] - 1, 0)

    def fires(self, name: str) -> int:
        """Windows from an image's arrival to the one in which this population takes its steps."""
        later = self.graph.slots is not None and self.graph.population(name).kind == "aec"
        return self.hears(name) + later

    def delay(self, projection: Projection) -> int:
        """Windows from sending to arrival."""
        return self.hears(projection.post) - self.fires(projection.pre)

    def windows(self, images: int) -> int:
        """Windows until the last population has taken its steps for the last image."""
        return images + max(map(self.fires, self.graph.order))
