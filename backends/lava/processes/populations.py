"""One Lava process per population: input, integrate-and-fire (plain and signed), AEC and readout, in floating point.

Spikes travel as int32 (+1, 0, -1; the input's values; of kind ``aec`` bit 0 = primary, bit 1 = compensation), currents as
float64, both as (images side by side, neurons). What a run is asked for is written into shared arrays by the models themselves:
Lava would ship it one number a message.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.process.variable import Var
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from numpy.typing import NDArray

from sparsespike.backends.lava.clock import Clock, Window
from sparsespike.backends.lava.failure import guarded
from sparsespike.backends.lava.job import PopulationJob


class Population(AbstractProcess):  # type: ignore[misc]  # Lava is not typed
    """What every population is made from.

    Parameters
    ----------
    population : PopulationJob
    clock : Clock
    arrays : dict of str to array
        ``values`` (input), ``threshold``, ``threshold_neg``, ``v_init``, ``bias`` and, if a first projection was computed
        outside, ``injected``; shape (N,), but for ``values`` and ``injected``: (images, N). Of kind ``aec`` also ``thresholds``,
        shape (2, slots).
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
        self.v = Var(shape=self.shape, init=0.0)


class IntegrateAndFire(Population):
    """v += a_in + bias; +1 where v >= threshold, which is then subtracted, or v set to 0."""

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.a_in = InPort(shape=self.shape)
        self.s_out = OutPort(shape=self.shape)
        self.v = Var(shape=self.shape, init=0.0)


class SignedIntegrateAndFire(IntegrateAndFire):
    """As ``IntegrateAndFire``, and -1 (v += threshold_neg) where v <= -threshold_neg and the net spike count is above 0."""


class AdaptiveEventCode(IntegrateAndFire):
    """Sums up in its decode window; in its encode window at most one primary and then one compensation spike.

    The decode window of a block of images ends with the step that begins its encode window, and the next block's follows: so what
    arrives and what is encoded are two variables.
    """

    def __init__(self, **parameters: Any) -> None:
        super().__init__(**parameters)
        self.u = Var(shape=self.shape, init=0.0)


class _PopulationModel(PyLoihiProcessModel):  # type: ignore[misc]  # Lava is not typed
    """Calls ``advance`` once a global step, with the local window or None."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.population: PopulationJob = parameters["population"]
        self.label = f"population {self.population.name!r}"
        self.clock: Clock = parameters["clock"]
        self.arrays: dict[str, NDArray[Any]] = parameters["arrays"]
        self.record: dict[str, NDArray[Any]] = parameters["record"]
        self.silence = np.zeros((self.clock.block, self.population.size), np.int32)

    @guarded
    def run_spk(self) -> None:
        self.advance(self.clock.window(self.time_step))

    def advance(self, window: Window | None) -> None:
        raise NotImplementedError

    def emit(self, window: Window, positive: NDArray[Any], negative: NDArray[Any], emitted: NDArray[np.int32]) -> None:
        """Record numbers of spikes and what is emitted, of shape (rows, N), and send it, padded to a full block."""
        images, step, record = window.images, window.step, self.record
        for sign, fired in (("positive", positive), ("negative", negative)):
            record[sign][images] += fired
            record[f"{sign}_by_step"][images, step] = fired.sum(axis=1)
        if "raster" in record:
            record["raster"][images, step] = emitted
        message = self.silence.copy()
        message[: window.rows] = emitted
        self.s_out.send(message)


@implements(proc=Input, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class InputModel(_PopulationModel):
    """Model of ``Input``."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def advance(self, window: Window | None) -> None:
        if window is None or (window.step > 0 and not self.population.every_step):
            self.s_out.send(self.silence)
            return
        values = self.arrays["values"][window.images]
        self.emit(window, values > 0, values < 0, values)


class _IntegratingModel(_PopulationModel):
    """Receives currents and integrates them."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    v: NDArray[np.float64] = LavaPyType(np.ndarray, np.float64)

    def integrate(self, window: Window | None) -> NDArray[np.float64]:
        """Membranes of the window's images after current and bias were added: a view, shape (rows, N)."""
        current = self.a_in.recv()
        if window is None:
            return self.v[:0]
        v = self.v[: window.rows]
        first = window.step == 0
        if first:
            v[:] = self.arrays["v_init"]
        v += current[: window.rows]
        if first or self.population.every_step:
            v += self.arrays["bias"]
        if "injected" in self.arrays and (first or self.population.injected_every_step):
            v += self.arrays["injected"][window.images]
        return v


@implements(proc=Readout, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class ReadoutModel(_IntegratingModel):
    """Model of ``Readout``."""

    def advance(self, window: Window | None) -> None:
        v = self.integrate(window)
        if window is not None:
            self.record["readout"][window.images, window.step] = v


class _FiringModel(_IntegratingModel):
    """Fires, and sends its spikes."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)

    def advance(self, window: Window | None) -> None:
        v = self.integrate(window)
        if window is None:
            self.s_out.send(self.silence)
            return
        positive, negative = self.fire(v, window)
        self.emit(window, positive, negative, positive.astype(np.int32) - negative)

    def fire(self, v: NDArray[np.float64], window: Window) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which neurons spike +1 and which -1; membranes are reset in place."""
        positive = v >= self.arrays["threshold"]
        if self.population.to_zero:
            v[positive] = 0
        else:
            v -= positive * self.arrays["threshold"]
        return positive, np.zeros_like(positive)


@implements(proc=IntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class IntegrateAndFireModel(_FiringModel):
    """Model of ``IntegrateAndFire``."""


@implements(proc=SignedIntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class SignedIntegrateAndFireModel(_FiringModel):
    """Model of ``SignedIntegrateAndFire``."""

    def fire(self, v: NDArray[np.float64], window: Window) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        net_count = self.record["positive"][window.images] - self.record["negative"][window.images]
        negative = (v <= -self.arrays["threshold_neg"]) & (net_count > 0)
        positive, _ = super().fire(v, window)
        v += negative * self.arrays["threshold_neg"]
        return positive, negative


@implements(proc=AdaptiveEventCode, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class AdaptiveEventCodeModel(_IntegratingModel):
    """Model of ``AdaptiveEventCode``."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    u: NDArray[np.float64] = LavaPyType(np.ndarray, np.float64)

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.fired = np.zeros(self.silence.shape, np.int32)

    def advance(self, window: Window | None) -> None:
        self.u += self.a_in.recv()
        if window is None:
            self.s_out.send(self.silence)
            return
        v, fired = self.v[: window.rows], self.fired[: window.rows]
        if window.step == 0:
            v[:] = self.u[: window.rows]
            v += self.arrays["v_init"]
            v += self.arrays["bias"]
            if "injected" in self.arrays:
                v += self.arrays["injected"][window.images]
            self.u[:] = 0
            fired[:] = 0
        primary, compensation = self.arrays["thresholds"][:, window.step]
        first = (fired == 0) & (v >= primary)
        v -= first * primary
        fired |= first
        second = (fired == 1) & (v >= compensation)
        v -= second * compensation
        fired |= second * np.int32(2)
        self.emit(window, first.astype(np.int32) + second, self.silence[: window.rows], first + second * np.int32(2))


MODELS: dict[str, tuple[type[Population], type[_PopulationModel]]] = {
    "input": (Input, InputModel),
    "if": (IntegrateAndFire, IntegrateAndFireModel),
    "signed_if": (SignedIntegrateAndFire, SignedIntegrateAndFireModel),
    "aec": (AdaptiveEventCode, AdaptiveEventCodeModel),
    "readout": (Readout, ReadoutModel),
}
"""Process and process model of each kind of population."""
