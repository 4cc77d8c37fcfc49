"""The process models: each kind's dynamics in floating point (float64) and in fixed point (int32 words, as on Loihi 2).

Lava takes no model that inherits from another model, so every one is put together from its dynamics and its numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.resources import CPU
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from numpy.typing import NDArray

from sparsespike.backends.lava.clock import Window
from sparsespike.backends.lava.fixed import ALIGNMENT, UNREACHABLE, WORD_LIMIT, check_words
from sparsespike.backends.lava.job import PopulationJob
from sparsespike.backends.lava.processes import dynamics, populations


class _FloatingPoint:
    """Currents and membranes are the graph's integers in float64; the run was proven to stay below 2^53."""

    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.float64)
    v: NDArray[np.float64] = LavaPyType(np.ndarray, np.float64)

    def receive(self, window: Window | None) -> NDArray[np.float64]:
        current: NDArray[np.float64] = self.a_in.recv()
        return current

    def check(self, what: str, values: NDArray[np.float64], window: Window) -> None:
        pass


class _FixedPoint:
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
            check_words(
                current[: window.rows],
                WORD_LIMIT >> ALIGNMENT,
                where=self.label,
                what="current",
                first_image=window.first,
                step=window.step,
            )
        return current << ALIGNMENT

    def check(self, what: str, values: NDArray[np.int32], window: Window) -> None:
        check_words(values, WORD_LIMIT, where=self.label, what=what, first_image=window.first, step=window.step)


@implements(proc=populations.Input, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt", "fixed_pt")
class InputModel(dynamics.Emitting):
    """Input of either model."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)


@implements(proc=populations.Readout, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FloatingReadout(_FloatingPoint, dynamics.Reading):
    """Readout in floating point."""


@implements(proc=populations.Readout, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FixedReadout(_FixedPoint, dynamics.Reading):
    """Readout in fixed point."""


@implements(proc=populations.IntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FloatingIntegrateAndFire(_FloatingPoint, dynamics.Firing):
    """Integrate-and-fire in floating point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)


@implements(proc=populations.IntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FixedIntegrateAndFire(_FixedPoint, dynamics.Firing):
    """Integrate-and-fire in fixed point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)


@implements(proc=populations.SignedIntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FloatingSignedIntegrateAndFire(_FloatingPoint, dynamics.SignedFiring):
    """Signed integrate-and-fire in floating point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)


@implements(proc=populations.SignedIntegrateAndFire, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FixedSignedIntegrateAndFire(_FixedPoint, dynamics.SignedFiring):
    """Signed integrate-and-fire in fixed point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)


@implements(proc=populations.AdaptiveEventCode, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FloatingAdaptiveEventCode(_FloatingPoint, dynamics.Encoding):
    """AEC in floating point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32)
    u: NDArray[np.float64] = LavaPyType(np.ndarray, np.float64)


@implements(proc=populations.AdaptiveEventCode, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FixedAdaptiveEventCode(_FixedPoint, dynamics.Encoding):
    """AEC in fixed point."""

    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    u: NDArray[np.int32] = LavaPyType(np.ndarray, np.int32, precision=24)


PROCESSES: dict[str, type[populations.Population]] = {
    "input": populations.Input,
    "if": populations.IntegrateAndFire,
    "signed_if": populations.SignedIntegrateAndFire,
    "aec": populations.AdaptiveEventCode,
    "readout": populations.Readout,
}
"""Process of each kind of population."""

MODELS: dict[str, dict[str, type[dynamics.PopulationModel]]] = {
    "floating_pt": {
        "input": InputModel,
        "if": FloatingIntegrateAndFire,
        "signed_if": FloatingSignedIntegrateAndFire,
        "aec": FloatingAdaptiveEventCode,
        "readout": FloatingReadout,
    },
    "fixed_pt": {
        "input": InputModel,
        "if": FixedIntegrateAndFire,
        "signed_if": FixedSignedIntegrateAndFire,
        "aec": FixedAdaptiveEventCode,
        "readout": FixedReadout,
    },
}
"""Process model of each kind of population, by the numbers it computes with."""
