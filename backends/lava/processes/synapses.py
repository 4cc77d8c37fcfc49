"""One Lava process per projection: sparse synapses that gather the rows of arriving spikes and count what they gather."""

from __future__ import annotations

from typing import Any

import numpy as np
from lava.magma.core.decorator import implements, requires, tag
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
from sparsespike.backends.lava.fixed import WORD_LIMIT, check_words
from sparsespike.backends.lava.gather import compile_gather
from sparsespike.backends.lava.processes.models import LavaModel


class Synapses(AbstractProcess):  # type: ignore[misc]  # Lava is not typed
    """CSR synapses, rows = presynaptic neurons, with a delay of whole steps.

    A spike sent at global step s reaches the postsynaptic population at step s + delay.

    Parameters
    ----------
    label : str
        What to call it in an error.
    clock : Clock
        Of the presynaptic population.
    shape : (int, int)
        (n_pre, n_post).
    delay : int
        At least 1.
    pointers : int64 array, shape (n_pre + 1,)
    indices : uint32 array, shape (nnz,)
    values : float64 or int64 array, shape (nnz,)
        Weights; in fixed point their mantissas.
    exponent : int
        In fixed point: what mantissas are shifted by.
    payloads : int32 array, shape (2, slots), optional
        If the presynaptic population is of kind ``aec``: what its primary and its compensation spike carry.
    events_by_step : shared int64 array, shape (images, steps)
        Synaptic events by the local step of the presynaptic population.

    Attributes
    ----------
    events : Var, shape (1,)
        Synaptic events of all images and steps.
    """

    def __init__(self, *, clock: Clock, shape: tuple[int, int], **parameters: Any) -> None:
        super().__init__(clock=clock, shape=shape, **parameters)
        self.s_in = InPort(shape=(clock.block, shape[0]))
        self.a_out = OutPort(shape=(clock.block, shape[1]))
        self.events = Var(shape=(1,), init=0)


class SynapsesDynamics:
    """What synapses do in a step, in whatever numbers their model computes with and whoever calls them."""

    time_step: int
    s_in: Any
    a_out: Any
    events: NDArray[np.int64]

    def prepare(self, parameters: Any) -> None:
        """Take the parameters of ``Synapses``."""
        self.label: str = parameters["label"]
        self.clock: Clock = parameters["clock"]
        self.synapses = parameters["pointers"], parameters["indices"], parameters["values"]
        self.gather = compile_gather(parameters["values"].dtype.name)
        self.exponent: int = parameters["exponent"]
        self.payloads: NDArray[np.int32] | None = parameters.get("payloads")
        self.events_by_step: NDArray[np.int64] = parameters["events_by_step"]
        # A ring of currents under way: what is gathered now leaves `delay` steps later.
        self.ring = np.zeros((parameters["delay"], self.clock.block, parameters["shape"][1]), parameters["values"].dtype)

    @property
    def leaving(self) -> NDArray[Any]:
        """The current that leaves in this step, and whose place those that arrive then take: shape (block, n_post)."""
        current: NDArray[Any] = self.ring[self.time_step % len(self.ring)]
        return current

    @guarded
    def run_spk(self) -> None:
        self.deliver(self.leaving)
        self.take(self.s_in.recv())

    @guarded
    def take(self, emitted: NDArray[np.int32]) -> None:
        """Gather the rows of the neurons that emit, shape (block, n_pre)."""
        current = self.leaving
        current[:] = 0
        window = self.clock.window(self.time_step)
        if window is not None:
            counts = self.events_by_step[window.images, window.step]
            for values in self.graded(emitted[: window.rows], window.step):
                self.events += self.gather(*self.synapses, values, current, counts)
            self.check(current[: window.rows], window)

    def check(self, current: NDArray[Any], window: Window) -> None:
        """Refuse currents of shape (rows, n_post) that are out of range."""
        raise NotImplementedError

    def deliver(self, current: NDArray[Any]) -> None:
        """Send a current, shape (block, n_post), as a copy."""
        raise NotImplementedError

    def graded(self, emitted: NDArray[np.int32], step: int) -> list[NDArray[np.int32]]:
        """What the weights are multiplied by, once for each spike that a neuron can send in one step."""
        if self.payloads is None:
            return [emitted]
        return [(emitted >> bit & 1) * payload for bit, payload in enumerate(self.payloads[:, step])]


class FloatingCurrents:
    """Currents in float64."""

    a_out: Any

    def check(self, current: NDArray[np.float64], window: Window) -> None:
        pass

    def deliver(self, current: NDArray[np.float64]) -> None:
        self.a_out.send(current)


class FixedCurrents:
    """Mantissas are summed up, and the sum is shifted."""

    a_out: Any
    label: str
    exponent: int

    def check(self, current: NDArray[np.int64], window: Window) -> None:
        limit = WORD_LIMIT >> self.exponent
        check_words(current, limit, where=self.label, what="current", first_image=window.first, step=window.step)

    def deliver(self, current: NDArray[np.int64]) -> None:
        self.a_out.send((current << self.exponent).astype(np.int32))


@implements(proc=Synapses, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class FloatingSynapses(FloatingCurrents, SynapsesDynamics, LavaModel):
    """Synapses in floating point."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    events: NDArray[np.int64] = LavaPyType(np.ndarray, np.int64)


@implements(proc=Synapses, protocol=LoihiProtocol)
@requires(CPU)
@tag("fixed_pt")
class FixedSynapses(FixedCurrents, SynapsesDynamics, LavaModel):
    """Synapses in fixed point."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int32, precision=24)
    events: NDArray[np.int64] = LavaPyType(np.ndarray, np.int64)


MODELS: dict[str, type[LavaModel]] = {"floating_pt": FloatingSynapses, "fixed_pt": FixedSynapses}
"""Process model of synapses, by the numbers it computes with."""
CURRENTS: dict[str, type[FloatingCurrents] | type[FixedCurrents]] = {"floating_pt": FloatingCurrents, "fixed_pt": FixedCurrents}
"""What synapses send, by the same."""
