"""What every backend takes and gives: a SpikingGraph in, a RunResult out."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import BackendError, MembraneOverflowError
from sparsespike.export.bounds import bounds
from sparsespike.export.graph import Key, SpikingGraph
from sparsespike.export.population import NEVER

Counting = Literal["measured", "computed"]
InputMode = Literal["current", "events"]


@dataclass(frozen=True, eq=False)
class SpikeCounts:
    """Positive and negative spikes, counted apart.

    Two int64 arrays of one shape: (B, N) summed over steps, or (B, steps) summed over neurons. Graded kinds count events, not
    payloads. For the input population an event is the emission of a value that is not zero.
    """

    positive: NDArray[np.int64]
    negative: NDArray[np.int64]

    @property
    def events(self) -> NDArray[np.int64]:
        """\\|positive\\| + \\|negative\\|: what a synapse is charged for."""
        return self.positive + self.negative


@dataclass(frozen=True, eq=False, kw_only=True)
class RunResult:
    """What one backend did with B images in ``steps`` local steps. All counts are exact integers.

    Attributes
    ----------
    backend, version, dtype : str
        Backend's name, the version of the simulator behind it, and the number type of its membranes.
    steps : int
        Local steps T of every population; for kind ``aec`` the slots of its encode window.
    readout : int64 array, shape (B, steps, classes)
        Membranes of the readout after each local step, in integer units.
    spikes : mapping of population to SpikeCounts of shape (B, N)
        For the input and every spiking population.
    spikes_by_step : mapping of population to SpikeCounts of shape (B, steps)
    events : mapping of (pre, post) to int64 array, shape (B,)
        Synaptic events: how often a weight was added to a membrane.
    events_by_step : mapping of (pre, post) to int64 array, shape (B, steps)
        By the local step of the presynaptic population.
    counting : mapping of (pre, post) to {"measured", "computed"}
        ``measured`` was incremented where the backend adds a weight; ``computed`` is spikes x fan-out, or, for a first
        projection injected as a constant current, steps x nnz.
    neuron_updates, bias_additions, messages : mapping of population to int64 array, shape (B,)
        Membrane updates (neurons x steps), additions of a bias that is not zero, and spike messages sent.
    rasters : mapping of population to int8 array, shape (B, steps, N)
        Spikes (+1, 0, -1) of the populations named in ``record``; for AEC bit 0 = primary, bit 1 = compensation.
    wall_seconds : mapping of phase to float
        At least ``build`` and ``run``.
    """

    backend: str
    version: str
    dtype: str
    steps: int
    readout: NDArray[np.int64]
    spikes: Mapping[str, SpikeCounts]
    spikes_by_step: Mapping[str, SpikeCounts]
    events: Mapping[Key, NDArray[np.int64]]
    events_by_step: Mapping[Key, NDArray[np.int64]]
    counting: Mapping[Key, Counting]
    neuron_updates: Mapping[str, NDArray[np.int64]]
    bias_additions: Mapping[str, NDArray[np.int64]]
    messages: Mapping[str, NDArray[np.int64]]
    rasters: Mapping[str, NDArray[np.int8]] = field(default_factory=dict)
    wall_seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def images(self) -> int:
        """Number of images B."""
        return len(self.readout)

    @property
    def predictions(self) -> NDArray[np.int64]:
        """Class = argmax of the readout after each step, shape (B, steps); the lowest class wins a tie."""
        return np.asarray(np.argmax(self.readout, axis=2), dtype=np.int64)


class Backend(Protocol):
    """Something that runs a SpikingGraph."""

    name: str

    def check(self, graph: SpikingGraph) -> list[str]:
        """Reasons why this backend cannot run the graph; empty if it can."""
        ...

    def run(
        self,
        graph: SpikingGraph,
        inputs: NDArray[Any],
        steps: int,
        *,
        record: Collection[str] = (),
        input: InputMode = "events",
    ) -> RunResult:
        """Run B images for ``steps`` local steps.

        Parameters
        ----------
        graph : SpikingGraph
        inputs : integer array, shape (B, N) or (B, C, y, x)
        steps : int
            Local steps T >= 1 of every population; of an AEC graph, ``graph.slots``.
        record : collection of str
            Spiking populations whose rasters are kept.
        input : {"events", "current"}
            ``events`` runs the first projection inside the simulator and measures its events; ``current`` computes its
            constant current once an image and injects it, and reports steps x nnz as ``computed``.

        Raises
        ------
        BackendError
            If the graph cannot be run here (see ``check``), or the run failed.
        GraphError
            If the inputs do not fit the graph.
        """
        ...


def prepare(
    backend: Backend, graph: SpikingGraph, inputs: NDArray[Any], steps: int, record: Collection[str], input: InputMode
) -> NDArray[np.int64]:
    """Check the arguments of a run, the same way for every backend, and give the inputs as int64 of shape (B, N).

    Raises
    ------
    BackendError, GraphError
        One message that names what is wrong.
    """
    reasons = backend.check(graph)
    if reasons:
        raise BackendError(f"backend {backend.name!r} cannot run this graph: {'; '.join(reasons)}")
    check_steps(f"backend {backend.name!r}", graph, steps)
    if input not in ("events", "current"):
        raise BackendError(f"backend {backend.name!r}: found input = {input!r}, expected 'events' or 'current'")
    unknown = sorted(set(record) - set(graph.spiking))
    if unknown:
        raise BackendError(f"backend {backend.name!r}: cannot record {unknown}; spiking populations are {list(graph.spiking)}")
    checked = graph.check_inputs(inputs)
    if len(checked) == 0:
        raise BackendError(f"backend {backend.name!r}: found no images, expected at least one")
    return checked


def check_steps(where: str, graph: SpikingGraph, steps: int) -> None:
    """Refuse a number of steps that the graph cannot run for.

    Raises
    ------
    BackendError
        If it is no whole number of at least 1 or, for an AEC graph, not the length of its tables.
    MembraneOverflowError
        If a membrane of an AEC graph could reach the threshold of a disabled slot.
    """
    check_count(where, "steps", steps)
    if graph.slots is None:
        return
    if steps != graph.slots:
        raise BackendError(
            f"{where}: found steps = {steps}, expected {graph.slots}, the T + 1 slots of this AEC graph's tables; convert the "
            "model again for another T"
        )
    for name, bound in bounds(graph, steps).items():
        if bound.membrane >= NEVER:
            raise MembraneOverflowError(
                f"{where}: the membrane of population {name!r} can reach {bound.membrane}, expected less than 2^53; convert with "
                "fewer bits"
            )


def check_count(where: str, name: str, value: int) -> None:
    """Refuse what is no whole number of at least 1.

    Raises
    ------
    BackendError
    """
    if not isinstance(value, int | np.integer):
        raise BackendError(f"{where}: found {name} = {value!r}, expected a whole number")
    if value < 1:
        raise BackendError(f"{where}: found {name} = {value}, expected at least 1")


def updates(graph: SpikingGraph, images: int, steps: int) -> tuple[dict[str, NDArray[np.int64]], dict[str, NDArray[np.int64]]]:
    """Neuron updates and bias additions of each population that integrates, both of shape (B,).

    They follow from the graph alone: every neuron is updated once a local step, and adds its bias if that is not zero.
    """
    neuron_updates, bias_additions = {}, {}
    for name in graph.order:
        population = graph.population(name)
        if population.kind == "input":
            continue
        times = steps if population.bias_mode == "every_step" else 1
        neuron_updates[name] = np.full(images, population.size * steps, dtype=np.int64)
        bias_additions[name] = np.full(images, int(np.count_nonzero(population.bias)) * times, dtype=np.int64)
    return neuron_updates, bias_additions
