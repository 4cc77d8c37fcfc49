"""What a chain of sparse layers looks like: the numbers of network science, layer by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.topology.pattern import Topology
from sparsespike.ann.topology.percolation import active_neurons
from sparsespike.ann.topology.science import PowerLaw, SmallWorld, fit_power_law, small_world
from sparsespike.common.errors import ModelError

SMALL_WORLD_UP_TO = 0.2
"""Density up to which small-worldness is measured: in a denser layer nearly every path is closed, as in a random one."""

SHORTEST_TAIL = 50
"""Nodes that a tail needs for its exponent to be reliable (Clauset, Shalizi and Newman, 2009, section 3.4)."""

KOLMOGOROV = 1.358
"""Kolmogorov's 5 % point: a distance above this over the root of the tail's nodes rejects a fit."""


@dataclass(frozen=True)
class DegreeSummary:
    """Degrees of one side of a layer.

    Attributes
    ----------
    nodes, linked : int
        All nodes, and those with at least one link.
    minimum, maximum : int
    median, mean : float
        Of all nodes, unlinked ones included.
    power_law : PowerLaw or None
        Fit to the tail; none if all linked nodes have the same degree.
    """

    nodes: int
    linked: int
    minimum: int
    median: float
    mean: float
    maximum: int
    power_law: PowerLaw | None

    @classmethod
    def of(cls, degrees: NDArray[np.int64]) -> DegreeSummary:
        """Summarise a degree sequence."""
        try:
            law = fit_power_law(degrees)
        except ModelError:
            law = None
        return cls(
            nodes=degrees.size,
            linked=int(np.count_nonzero(degrees)),
            minimum=int(degrees.min()),
            median=float(np.median(degrees)),
            mean=float(degrees.mean()),
            maximum=int(degrees.max()),
            power_law=law,
        )

    @property
    def verdict(self) -> str:
        """Whether the degrees follow a power law, in words.

        A fit is rejected where its Kolmogorov-Smirnov distance passes the 5 % point. The exponent was fitted to the same
        degrees, so a fit that is not rejected is a weak yes. Scale-free networks have exponents up to 3.
        """
        law = self.power_law
        if law is None:
            return "none: one degree only"
        if law.distance > KOLMOGOROV / math.sqrt(law.tail):
            return "no power law: rejected"
        if law.tail < SHORTEST_TAIL:
            return f"too few to tell: {law.tail} nodes"
        return "scale-free: not rejected" if law.exponent <= 3.0 else "too steep to be scale-free"


@dataclass(frozen=True)
class LayerReport:
    """One sparse layer as a bipartite network.

    Attributes
    ----------
    shape : (int, int)
        Outputs, inputs.
    links : int
    density : float
        Links over possible links.
    in_degree, out_degree : DegreeSummary
        Links of each output, and of each input.
    active_outputs, active_inputs : float
        Shares of neurons that take part, seen in the whole chain.
    small_world : SmallWorld or None
        None for a layer without links or denser than :data:`SMALL_WORLD_UP_TO`.
    """

    shape: tuple[int, int]
    links: int
    density: float
    in_degree: DegreeSummary
    out_degree: DegreeSummary
    active_outputs: float
    active_inputs: float
    small_world: SmallWorld | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, the verdicts and sigma included."""
        document = asdict(self)
        for side in ("in_degree", "out_degree"):
            document[side]["verdict"] = getattr(self, side).verdict
        if self.small_world is not None:
            sigma = self.small_world.sigma
            document["small_world"]["sigma"] = sigma if math.isfinite(sigma) else None
        return document


def report_layers(topologies: Sequence[Topology], generator: np.random.Generator) -> list[LayerReport]:
    """Describe every layer of a chain.

    Parameters
    ----------
    topologies : sequence of Topology
        First to last; each one's inputs are the outputs of the one before.
    generator : numpy.random.Generator
        Draws the random layers that small-worldness compares with, and where its paths start.

    Raises
    ------
    ModelError
        If the layers do not form a chain.
    """
    active = active_neurons(topologies)
    reports = []
    for index, layer in enumerate(topologies):
        measured = 0.0 < layer.density <= SMALL_WORLD_UP_TO
        reports.append(
            LayerReport(
                shape=layer.shape,
                links=layer.nnz,
                density=layer.density,
                in_degree=DegreeSummary.of(layer.in_degree),
                out_degree=DegreeSummary.of(layer.out_degree),
                active_outputs=float(active[index + 1].mean()),
                active_inputs=float(active[index].mean()),
                small_world=small_world(layer, generator) if measured else None,
            )
        )
    return reports
