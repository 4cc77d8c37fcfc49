"""One Lava process per population: input, integrate-and-fire (plain and signed), AEC and readout.

Spikes travel as int32 (+1, 0, -1; the input's values; of kind ``aec`` bit 0 = primary, bit 1 = compensation), currents as float64
or int32, by the model; both as (images side by side, neurons).
"""

from __future__ import annotations

from typing import Any

from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from numpy.typing import NDArray

from sparsespike.backends.lava.clock import Clock
from sparsespike.backends.lava.job import PopulationJob


class Population(AbstractProcess):  # type: ignore[misc]  # Lava is not typed
    """What every population is made from.

    Parameters
    ----------
    population : PopulationJob
    clock : Clock
    arrays : dict of str to array
        ``values`` (input), ``threshold``, ``threshold_neg``, ``v_init``, ``bias`` and, if a first projection was computed
        outside, ``injected``; shape (N,), but for ``values`` and ``injected``: (images, N). Of kind ``lif`` also
        ``decay_current`` and ``decay_voltage``, shape (N,), of kind ``aec`` ``thresholds``, shape (2, slots).
    record : dict of str to shared array
        Where results go: ``positive``, ``negative`` of shape (images, N) and ``positive_by_step``, ``negative_by_step`` of shape
        (images, steps); ``raster`` of shape (images, steps, N) if wanted. For the readout only ``readout``, of that shape.
    """

    def __init__(
        self, *, population: PopulationJob, clock: Clock, arrays: dict[str, NDArray[Any]], record: dict[str, NDArray[Any]]
    ) -> None:
        super().__init__(population=population, clock=clock, arrays=arrays, record=record)
        self.population = population
        self.clock = clock
        self.shape = (clock.block, population.size)


class Input(Population):
    """Emits the images' values, at every local step or at the first alone."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.s_out = OutPort(shape=self.shape)


class Readout(Population):
    """v += a_in + bias, and never fires."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.a_in = InPort(shape=self.shape)
        self.v = Var(shape=self.shape, init=0)


class IntegrateAndFire(Population):
    """v += a_in + bias; +1 where v >= threshold, which is then subtracted, or v set to 0."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.a_in = InPort(shape=self.shape)
        self.s_out = OutPort(shape=self.shape)
        self.v = Var(shape=self.shape, init=0)


class LeakyIntegrateAndFire(IntegrateAndFire):
    """u = u - decay + a_in; v = v - decay + u + bias; fires as ``IntegrateAndFire``."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.u = Var(shape=self.shape, init=0)


class SignedIntegrateAndFire(IntegrateAndFire):
    """As ``IntegrateAndFire``, and -1 (v += threshold_neg) where v <= -threshold_neg and the net spike count is above 0."""


class AdaptiveEventCode(IntegrateAndFire):
    """Sums up in its decode window; in its encode window at most one primary and then one compensation spike.

    The decode window of a block of images ends with the step that begins its encode window, and the next block's follows: so what
    arrives and what is encoded are two variables.
    """

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.u = Var(shape=self.shape, init=0)


PROCESSES: dict[str, type[Population]] = {
    "input": Input,
    "if": IntegrateAndFire,
    "signed_if": SignedIntegrateAndFire,
    "lif": LeakyIntegrateAndFire,
    "aec": AdaptiveEventCode,
    "readout": Readout,
}
"""Process of each kind of population."""
