"""The process models: each kind's dynamics in floating point (float64) and in fixed point (int32 words, as on Loihi 2).

Lava takes no model that inherits from another model, so every one is put together from its numbers and its dynamics.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from numpy.typing import NDArray

from sparsespike.backends.lava.clock import Window
from sparsespike.backends.lava.fixed import UNREACHABLE, WORD_LIMIT, check_words
from sparsespike.backends.lava.job import PopulationJob
from sparsespike.backends.lava.processes import dynamics, populations


class LavaModel(PyLoihiProcessModel):  # type: ignore[misc]  # Lava is not typed
    """A model that Lava calls."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.prepare(parameters)


class FloatingPoint:
    """Currents and membranes are the graph's integers in float64; the run was proven to stay below 2^53."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    v: NDArray[np.float64] = LavaPyType(np.ndarray, np.float64)

    def receive(self, window: Window | None) -> NDArray[np.float64]:
        current: NDArray[np.float64] = self.a_in.recv()
        return current

    def check(self, what: str, values: NDArray[np.float64], window: Window) -> None:
        pass


class FixedPoint:
    """Currents and membranes are words of 24 bits, checked in every step."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32, precision=24)
    v: NDArray[np.int32] = LavaPyType(np.ndarray, np.int32, precision=24)
    population: PopulationJob
    label: str
    arrays: dict[str, NDArray[Any]]

    def receive(self, window: Window | None) -> NDArray[np.int32]:
        current: NDArray[np.int32] = self.a_in.recv()
        if "threshold" in self.arrays:  # what a neuron that never fires receives, nobody can see
            current[:, self.arrays["threshold"] == UNREACHABLE] = 0
        if window is not None:
            self.check("current", current[: window.rows], window)
        return current

    def check(self, what: str, values: NDArray[np.int32], window: Window) -> None:
        check_words(values, WORD_LIMIT, where=self.label, what=what, first_image=window.first, step=window.step)


@implements(proc=populations.Input, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt", "fixed_pt")
class InputModel(dynamics.Emitting, LavaModel):
    """Input of either model."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)


@implements(proc=populations.Readout, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FloatingReadout(FloatingPoint, dynamics.Reading, LavaModel):
    """Readout in floating point."""


@implements(proc=populations.Readout, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FixedReadout(FixedPoint, dynamics.Reading, LavaModel):
    """Readout in fixed point."""


@implements(proc=populations.IntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FloatingIntegrateAndFire(FloatingPoint, dynamics.Firing, LavaModel):
    """Integrate-and-fire in floating point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)


@implements(proc=populations.IntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FixedIntegrateAndFire(FixedPoint, dynamics.Firing, LavaModel):
    """Integrate-and-fire in fixed point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)


@implements(proc=populations.SignedIntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FloatingSignedIntegrateAndFire(FloatingPoint, dynamics.SignedFiring, LavaModel):
    """Signed integrate-and-fire in floating point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)


@implements(proc=populations.SignedIntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FixedSignedIntegrateAndFire(FixedPoint, dynamics.SignedFiring, LavaModel):
    """Signed integrate-and-fire in fixed point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)


@implements(proc=populations.LeakyIntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FloatingLeakyIntegrateAndFire(FloatingPoint, dynamics.LeakyFiring, LavaModel):
    """Leaky integrate-and-fire in floating point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    u: NDArray[np.float64] = LavaPyType(np.ndarray, np.float64)


@implements(proc=populations.LeakyIntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FixedLeakyIntegrateAndFire(FixedPoint, dynamics.LeakyFiring, LavaModel):
    """Leaky integrate-and-fire in fixed point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    u: NDArray[np.int32] = LavaPyType(np.ndarray, np.int32, precision=24)


@implements(proc=populations.AdaptiveEventCode, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FloatingAdaptiveEventCode(FloatingPoint, dynamics.Encoding, LavaModel):
    """AEC in floating point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    u: NDArray[np.float64] = LavaPyType(np.ndarray, np.float64)


@implements(proc=populations.AdaptiveEventCode, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FixedAdaptiveEventCode(FixedPoint, dynamics.Encoding, LavaModel):
    """AEC in fixed point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    u: NDArray[np.int32] = LavaPyType(np.ndarray, np.int32, precision=24)


MODELS: dict[str, dict[str, type[LavaModel]]] = {
    "floating_pt": {
        "input": InputModel,
        "if": FloatingIntegrateAndFire,
        "signed_if": FloatingSignedIntegrateAndFire,
        "lif": FloatingLeakyIntegrateAndFire,
        "aec": FloatingAdaptiveEventCode,
        "readout": FloatingReadout,
    },
    "fixed_pt": {
        "input": InputModel,
        "if": FixedIntegrateAndFire,
        "signed_if": FixedSignedIntegrateAndFire,
        "lif": FixedLeakyIntegrateAndFire,
        "aec": FixedAdaptiveEventCode,
        "readout": FixedReadout,
    },
}
"""Process model of each kind of population, by the numbers it computes with."""

NUMBERS: dict[str, type[FloatingPoint] | type[FixedPoint]] = {"floating_pt": FloatingPoint, "fixed_pt": FixedPoint}
"""What a model computes with."""
