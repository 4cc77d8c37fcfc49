"""A whole network in one Lava process: the same dynamics, with ports in memory in the place of Lava's channels.

Nothing is left of the shape of a chip, and no message is sent: it is for speed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from numpy.typing import NDArray

from sparsespike.backends.lava.failure import guarded
from sparsespike.backends.lava.job import CURRENT
from sparsespike.backends.lava.processes.dynamics import DYNAMICS, PopulationDynamics
from sparsespike.backends.lava.processes.models import NUMBERS
from sparsespike.backends.lava.processes.synapses import CURRENTS, SynapsesDynamics


class Fused(AbstractProcess):  # type: ignore[misc]  # Lava is not typed
    """All populations and projections.

    Parameters
    ----------
    model : {"floating_pt", "fixed_pt"}
    populations : list of dict
        Parameters of ``populations.Population``.
    projections : list of dict
        Parameters of ``synapses.Synapses``, and ``pre`` and ``post``: positions in the list of populations.

    Attributes
    ----------
    events : Var, shape (projections,)
        Synaptic events of all images and steps.
    """

    def __init__(self, *, model: str, populations: list[dict[str, Any]], projections: list[dict[str, Any]]) -> None:
        super().__init__(model=model, populations=populations, projections=projections)
        self.events = Var(shape=(max(len(projections), 1),), init=0)


class Accumulator:
    """The receiving end of currents: their sum since it was last asked for. What one sender sent is handed on as it is."""

    def __init__(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._nothing = np.zeros(shape, dtype)
        self._sum = self._nothing

    def send(self, current: NDArray[Any]) -> None:
        self._sum = current if self._sum is self._nothing else self._sum + current

    def recv(self) -> NDArray[Any]:
        current, self._sum = self._sum, self._nothing
        return current


class Mailbox:
    """The receiving end of spikes: the last message."""

    message: NDArray[np.int32]

    def send(self, message: NDArray[np.int32]) -> None:
        self.message = message


def _population(model: str, parameters: dict[str, Any]) -> PopulationDynamics:
    """A population's dynamics without a Lava process of its own."""
    local: PopulationDynamics = type("Local", (NUMBERS[model], DYNAMICS[parameters["population"].kind]), {})()
    local.prepare(parameters)
    shape = local.silence.shape
    local.v, local.u = np.zeros(shape, CURRENT[model]), np.zeros(shape, CURRENT[model])
    local.a_in, local.s_out = Accumulator(shape, CURRENT[model]), Mailbox()
    return local


def _synapses(model: str, parameters: dict[str, Any], populations: list[PopulationDynamics]) -> SynapsesDynamics:
    """Synapses without a Lava process of their own, which send to their postsynaptic population."""
    local: SynapsesDynamics = type("Local", (CURRENTS[model], SynapsesDynamics), {})()
    local.prepare(parameters)
    local.a_out = populations[parameters["post"]].a_in
    local.events = np.zeros(1, np.int64)
    return local


class _FusedModel(PyLoihiProcessModel):  # type: ignore[misc]  # Lava is not typed
    events: NDArray[np.int64] = LavaPyType(np.ndarray, np.int64)

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        model = parameters["model"]
        self.populations = [_population(model, each) for each in parameters["populations"]]
        self.synapses = [_synapses(model, each, self.populations) for each in parameters["projections"]]
        self.sources = [self.populations[each["pre"]].s_out for each in parameters["projections"]]

    label = "the network"

    @guarded
    def run_spk(self) -> None:
        for synapses in self.synapses:
            synapses.time_step = self.time_step
            synapses.deliver(synapses.leaving)
        for population in self.populations:
            population.time_step = self.time_step
            population.run_spk()
        for k, (synapses, source) in enumerate(zip(self.synapses, self.sources, strict=True)):
            synapses.take(source.message)
            self.events[k] = synapses.events[0]


@implements(proc=Fused, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt", "fixed_pt")
class FusedModel(_FusedModel):
    """Model of ``Fused``."""
