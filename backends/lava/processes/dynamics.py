"""What each kind of population does in a step, in whatever numbers its model computes with and whoever calls it.

What a run is asked for is written into shared arrays here: Lava would ship it one number a message.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.lava.clock import Clock, Window
from sparsespike.backends.lava.failure import guarded
from sparsespike.backends.lava.firing import compile_fire
from sparsespike.backends.lava.job import PopulationJob
from sparsespike.export.population import decayed


class PopulationDynamics:
    """Calls ``advance`` once a global step, with the local window or None.

    Attributes
    ----------
    time_step : int
        Lava's: 1, 2, ...
    a_in, s_out : ports
        With ``recv`` and ``send``; only those that the kind has.
    v, u : array, shape (block, N)
        Membranes; and currents, of kind ``aec`` what arrived in a decode window.
    """

    time_step: int
    a_in: Any
    s_out: Any
    v: NDArray[Any]
    u: NDArray[Any]

    def prepare(self, parameters: Any) -> None:
        """Take the parameters of ``populations.Population``."""
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

    def count(self, window: Window, sign: str, fired: NDArray[Any]) -> None:
        """Record numbers of spikes of a sign, shape (rows, N)."""
        self.record[sign][window.images] += fired
        self.record[f"{sign}_by_step"][window.images, window.step] = fired.sum(axis=1)

    def send(self, window: Window, message: NDArray[np.int32]) -> None:
        """Send what is emitted, shape (block, N), and record it if wanted."""
        if "raster" in self.record:
            self.record["raster"][window.images, window.step] = message[: window.rows]
        self.s_out.send(message)


class Emitting(PopulationDynamics):
    """Emits the images' values."""

    def advance(self, window: Window | None) -> None:
        if window is None or (window.step > 0 and not self.population.every_step):
            self.s_out.send(self.silence)
            return
        values = self.arrays["values"][window.images]
        self.count(window, "positive", values > 0)
        self.count(window, "negative", values < 0)
        message = self.silence.copy()
        message[: window.rows] = values
        self.send(window, message)


class Integrating(PopulationDynamics):
    """Receives currents and integrates them."""

    def prepare(self, parameters: Any) -> None:
        super().prepare(parameters)
        self.biased = bool(self.arrays["bias"].any())

    def integrate(self, window: Window | None) -> NDArray[Any]:
        """Membranes of the window's images after current and bias were added: a view, shape (rows, N)."""
        current = self.receive(window)
        v = self.v[: 0 if window is None else window.rows]
        if window is None:
            return v
        if window.step == 0:
            v[:] = self.arrays["v_init"]
        v += current[: window.rows]
        self.inject(v, window)
        self.add_bias(v, window)
        return v

    def inject(self, values: NDArray[Any], window: Window) -> None:
        """Add what is injected, if anything is, to values of shape (rows, N), in place."""
        if "injected" in self.arrays and (window.step == 0 or self.population.injected_every_step):
            values += self.arrays["injected"][window.images]

    def add_bias(self, v: NDArray[Any], window: Window) -> None:
        """Add the bias to membranes, in place, and check them."""
        if self.biased and (window.step == 0 or self.population.every_step):
            v += self.arrays["bias"]
        self.check("membrane", v, window)

    def receive(self, window: Window | None) -> NDArray[Any]:
        """What arrives in this step, in the unit of the membrane: shape (block, N)."""
        raise NotImplementedError

    def check(self, what: str, values: NDArray[Any], window: Window) -> None:
        """Refuse values of shape (rows, N) that are out of range."""
        raise NotImplementedError


class Reading(Integrating):
    """Keeps its membrane, and never fires."""

    def advance(self, window: Window | None) -> None:
        v = self.integrate(window)
        if window is not None:
            self.record["readout"][window.images, window.step] = v


class Firing(Integrating):
    """Fires, and sends its spikes."""

    def prepare(self, parameters: Any) -> None:
        super().prepare(parameters)
        self.compiled_fire = compile_fire(self.arrays["threshold"].dtype.name)

    def advance(self, window: Window | None) -> None:
        v = self.integrate(window)
        if window is None:
            self.s_out.send(self.silence)
            return
        message = self.silence.copy()
        self.fire(v, window, message[: window.rows])
        self.send(window, message)

    def fire(self, v: NDArray[Any], window: Window, emitted: NDArray[np.int32]) -> None:
        """Write spikes into ``emitted``, shape (rows, N) as the membranes, which are reset in place, and count them."""
        spikes, by_step = self.record["positive"][window.images], self.record["positive_by_step"][window.images]
        to_zero = self.population.to_zero
        self.compiled_fire(v, self.arrays["threshold"], to_zero, emitted, spikes, by_step[:, window.step])


class LeakyFiring(Firing):
    """As ``Firing``, with currents and membranes that decay."""

    def integrate(self, window: Window | None) -> NDArray[Any]:
        current = self.receive(window)
        rows = 0 if window is None else window.rows
        u, v = self.u[:rows], self.v[:rows]
        if window is None:
            return v
        if window.step == 0:
            u[:], v[:] = 0, self.arrays["v_init"]
        u[:] = decayed(u, self.arrays["decay_current"])
        u += current[:rows]
        self.inject(u, window)
        self.check("current with its memory", u, window)
        v[:] = decayed(v, self.arrays["decay_voltage"])
        v += u
        self.add_bias(v, window)
        return v


class SignedFiring(Firing):
    """As ``Firing``, and takes spikes back."""

    def fire(self, v: NDArray[Any], window: Window, emitted: NDArray[np.int32]) -> None:
        net_count = self.record["positive"][window.images] - self.record["negative"][window.images]
        negative = (v <= -self.arrays["threshold_neg"]) & (net_count > 0)
        super().fire(v, window, emitted)
        v += negative * self.arrays["threshold_neg"]
        emitted -= negative
        self.count(window, "negative", negative)


class Encoding(Integrating):
    """Decodes in one window and encodes in the next."""

    def prepare(self, parameters: Any) -> None:
        super().prepare(parameters)
        self.fired = np.zeros(self.silence.shape, np.int32)

    def advance(self, window: Window | None) -> None:
        # What arrives now belongs to the images whose encode window begins within the next `steps` steps, at the latest now.
        decoding = self.clock.window(self.time_step + self.clock.steps - 1)
        current = self.receive(decoding)
        if decoding is not None:
            u = self.u[: decoding.rows]
            u += current[: decoding.rows]
            self.check("sum of the decode window", u, decoding)
        if window is None:
            self.s_out.send(self.silence)
            return
        v, fired = self.v[: window.rows], self.fired[: window.rows]
        if window.step == 0:
            v[:] = self.u[: window.rows]
            v += self.arrays["v_init"]
            self.inject(v, window)
            self.add_bias(v, window)
            self.u[:] = 0
            fired[:] = 0
        primary, compensation = self.arrays["thresholds"][:, window.step]
        first = (fired == 0) & (v >= primary)
        v -= first * primary
        fired |= first
        second = (fired == 1) & (v >= compensation)
        v -= second * compensation
        fired |= second * np.int32(2)
        self.count(window, "positive", first.astype(np.int32) + second)
        message = self.silence.copy()
        message[: window.rows] = first + second * np.int32(2)
        self.send(window, message)


DYNAMICS: dict[str, type[PopulationDynamics]] = {
    "input": Emitting,
    "if": Firing,
    "signed_if": SignedFiring,
    "lif": LeakyFiring,
    "aec": Encoding,
    "readout": Reading,
}
"""Dynamics of each kind of population."""
