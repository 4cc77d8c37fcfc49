"""One Lava process per projection: sparse synapses that gather the rows of arriving spikes and count what they gather."""

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

from sparsespike.backends.lava.clock import Clock
from sparsespike.backends.lava.failure import guarded
from sparsespike.backends.lava.gather import gather


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
    values : float64 array, shape (nnz,)
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


@implements(proc=Synapses, protocol=LoihiProtocol)
@requires(CPU)
@tag("floating_pt")
class SynapsesModel(PyLoihiProcessModel):  # type: ignore[misc]  # Lava is not typed
    """Model of ``Synapses``."""

    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int32)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.float64)
    events: NDArray[np.int64] = LavaPyType(np.ndarray, np.int64)

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters)
        self.label: str = parameters["label"]
        self.clock: Clock = parameters["clock"]
        self.synapses = parameters["pointers"], parameters["indices"], parameters["values"]
        self.payloads: NDArray[np.int32] | None = parameters.get("payloads")
        self.events_by_step: NDArray[np.int64] = parameters["events_by_step"]
        # A ring of currents under way: what is gathered now leaves `delay` steps later.
        self.ring = np.zeros((parameters["delay"], self.clock.block, parameters["shape"][1]), np.float64)

    @guarded
    def run_spk(self) -> None:
        current = self.ring[self.time_step % len(self.ring)]
        self.a_out.send(current)  # copies it
        emitted = self.s_in.recv()
        current[:] = 0
        window = self.clock.window(self.time_step)
        if window is not None:
            counts = self.events_by_step[window.images, window.step]
            for values in self.graded(emitted[: window.rows], window.step):
                self.events += gather(*self.synapses, values, current, counts)

    def graded(self, emitted: NDArray[np.int32], step: int) -> list[NDArray[np.int32]]:
        """What the weights are multiplied by, once for each spike that a neuron can send in one step."""
        if self.payloads is None:
            return [emitted]
        return [(emitted >> bit & 1) * payload for bit, payload in enumerate(self.payloads[:, step])]
