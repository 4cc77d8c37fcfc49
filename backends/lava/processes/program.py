"""Run a spiking network in Intel Lava (lava-nc 0.10.0 on Python 3.10, Linux). Nothing else is needed.

    python run.py inputs.npy --steps 32 --out results.npz

``inputs.npy`` holds integers of shape (images, neurons), or of the shape that the network's input has, within its range. Beside
this file lie ``network.json`` (the populations and projections) and ``network.npz`` (their arrays). ``results.npz`` will hold

    readout                     (images, steps, classes)    membranes of the readout after each step
    predictions                 (images,)                   argmax of the last of them
    spikes/<population>         (images, neurons)           spikes of each neuron
    events/<pre>/<post>         (images, steps)             synaptic events: weights added, by the step of the spike

Every population and every projection is a Lava process; all numbers are integers. A message takes one step, so a population that
lies deeper takes its first step later, and images run side by side (first axis of every port).
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import mmap
import os
import signal
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from lava.magma.core.decorator import implements, requires
from lava.magma.core.model.py.model import PyLoihiProcessModel
from lava.magma.core.model.py.ports import PyInPort, PyOutPort
from lava.magma.core.model.py.type import LavaPyType
from lava.magma.core.process.ports.ports import InPort, OutPort
from lava.magma.core.process.process import AbstractProcess
from lava.magma.core.resources import CPU
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.magma.core.sync.protocols.loihi_protocol import LoihiProtocol
from numpy.typing import NDArray

Ints = NDArray[np.int64]
SIDE_BY_SIDE = 64
"""Images that run at once; more of them need more of /dev/shm, where Lava's messages are."""


class Population(AbstractProcess):  # type: ignore[misc]  # Lava is not typed
    """Neurons of one kind: input, if, signed_if, lif, aec or readout."""

    def __init__(self, *, images: int, **parameters: Any) -> None:
        super().__init__(parameters={"images": images, **parameters})
        self.a_in = InPort(shape=(images, parameters["size"]))
        self.s_out = OutPort(shape=(images, parameters["size"]))


class Synapses(AbstractProcess):  # type: ignore[misc]  # Lava is not typed
    """Sparse weights, rows = presynaptic neurons; a spike arrives ``delay`` steps later."""

    def __init__(self, *, images: int, weights: sp.csr_matrix, **parameters: Any) -> None:
        super().__init__(parameters={"images": images, "weights": weights, **parameters})
        self.s_in = InPort(shape=(images, weights.shape[0]))
        self.a_out = OutPort(shape=(images, weights.shape[1]))


class Model(PyLoihiProcessModel):  # type: ignore[misc]  # Lava is not typed
    """What all models share: their parameters as attributes, local time, and an end when something fails."""

    def __init__(self, given: Any) -> None:
        super().__init__(given)
        for name, value in given["parameters"].items():
            setattr(self, name, value)
        self.begin()

    def begin(self) -> None:
        raise NotImplementedError

    def advance(self, step: int | None) -> None:
        raise NotImplementedError

    def run_spk(self) -> None:
        try:
            step = self.time_step - 1 - self.first_step
            self.advance(step if 0 <= step < self.steps else None)
        except Exception:  # Lava would wait for this process for ever
            traceback.print_exc()
            os.kill(os.getppid(), signal.SIGKILL)

    def check(self, what: str, values: Ints, limit: int) -> None:
        if np.abs(values).max(initial=0) > limit:
            image, neuron = np.argwhere(np.abs(values) > limit)[0].tolist()
            raise OverflowError(
                f"{self.label}, image {image}, Lava time step {self.time_step}: the {what} of neuron {neuron} is "
                f"{values[image, neuron]}, expected at most {limit}"
            )


@implements(proc=Population, protocol=LoihiProtocol)
@requires(CPU)
class PopulationModel(Model):
    a_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    s_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def begin(self) -> None:
        self.v = np.zeros((self.images, self.size), np.int64)
        self.u = np.zeros_like(self.v)
        self.codes = np.zeros_like(self.v)
        self.net_count = np.zeros_like(self.v)

    def advance(self, step: int | None) -> None:
        current = self.a_in.recv()
        if "threshold" in self.arrays:  # what a neuron that never fires receives, nobody can see
            current[:, self.arrays["threshold"] >= self.unreachable] = 0
        self.check("current", current, self.limit)
        if self.kind == "aec":  # the decode window comes before the first step
            self.u += current
            self.check("sum of the decode window", self.u, self.limit)
            current = self.u.copy()
            if step == 0:
                self.u[:] = 0
        emitted = np.zeros_like(self.v)
        if step is not None:
            emitted = self.emit(step) if self.kind == "input" else self.fire(step, current)
            self.spikes += (emitted != 0) if self.kind != "aec" else (emitted & 1) + (emitted >> 1)
        self.s_out.send(emitted)

    def emit(self, step: int) -> Ints:
        values: Ints = self.values if step == 0 or self.every_step else np.zeros_like(self.v)
        return values

    def fire(self, step: int, current: Ints) -> Ints:
        """One local step; returns +1, 0, -1, or of kind aec bit 0 = primary, bit 1 = compensation."""
        v, arrays = self.v, self.arrays
        if step == 0:
            v[:] = arrays["v_init"]
        if self.kind == "lif":
            if step == 0:
                self.u[:] = 0
            self.u[:] = decayed(self.u, arrays["decay_current"]) + current
            self.check("current with its memory", self.u, self.limit)
            v[:] = decayed(v, arrays["decay_voltage"])
            current = self.u
        if step == 0 or self.kind != "aec":
            v += current
        if step == 0 or self.every_step:
            v += arrays["bias"]
        self.check("membrane", v, self.limit)
        if self.kind == "readout":
            self.readout[:, step] = v >> self.shift
            return np.zeros_like(v)
        if self.kind == "aec":
            return self.encode(step)
        positive = v >= arrays["threshold"]
        negative = np.zeros_like(positive)
        if self.kind == "signed_if":
            negative = (v <= -arrays["threshold_neg"]) & (self.net_count > 0)
            v += negative * arrays["threshold_neg"]
        if self.to_zero:
            v[positive] = 0
        else:
            v -= positive * arrays["threshold"]
        fired: Ints = positive.astype(np.int64) - negative
        self.net_count += fired
        return fired

    def encode(self, step: int) -> Ints:
        primary, compensation = self.arrays["thresholds"][:, step]
        first = (self.codes == 0) & (self.v >= primary)
        self.v -= first * primary
        self.codes |= first
        second = (self.codes == 1) & (self.v >= compensation)
        self.v -= second * compensation
        self.codes |= 2 * second
        codes: Ints = first + 2 * second
        return codes


@implements(proc=Synapses, protocol=LoihiProtocol)
@requires(CPU)
class SynapsesModel(Model):
    s_in: PyInPort = LavaPyType(PyInPort.VEC_DENSE, np.int64)
    a_out: PyOutPort = LavaPyType(PyOutPort.VEC_DENSE, np.int64)

    def begin(self) -> None:
        self.ring = np.zeros((self.delay, self.images, self.weights.shape[1]), np.int64)
        self.into = self.weights.T.tocsr()
        self.fan_out = np.diff(self.weights.indptr)

    def advance(self, step: int | None) -> None:
        slot = self.time_step % self.delay
        self.a_out.send(self.ring[slot])
        emitted = self.s_in.recv()
        self.ring[slot] = 0
        if step is None:
            return
        carried = [emitted]
        if self.payloads is not None:  # of kind aec two spikes can leave a neuron in one step
            carried = [(emitted >> bit & 1) * self.payloads[bit, step] for bit in (0, 1)]
        for values in carried:
            self.ring[slot] += (self.into @ values.T).T << self.exponent
            self.events[:, step] += (values != 0) @ self.fan_out
        self.check("current", self.ring[slot], self.limit)


def decayed(values: Ints, decay: Ints) -> Ints:
    """What is left of values after a step, a decay of 4096 keeping nothing; rounded toward zero."""
    keep = 4096 - decay
    whole, rest = np.divmod(np.abs(values), 4096)
    left: Ints = np.sign(values) * (whole * keep + rest * keep // 4096)
    return left


def shared(*shape: int) -> Ints:
    """Zeros in memory that Lava's processes, which are forked from this one, share with it."""
    return np.frombuffer(mmap.mmap(-1, 8 * math.prod(shape)), np.int64).reshape(shape)


def run(folder: Path, inputs: Ints, steps: int) -> dict[str, Ints]:
    """Results as in ``results.npz``, for inputs of shape (images, neurons)."""
    network = json.loads((folder / "network.json").read_text())
    with np.load(folder / "network.npz") as archive:
        arrays = {name: archive[name] for name in archive.files}
    images = len(inputs)
    words = {name: network[name] for name in ("limit", "unreachable", "shift")}
    common = {"images": images, "steps": steps, **words}
    results: dict[str, Ints] = {}
    populations, projections = [], []
    for i, population in enumerate(network["populations"]):
        part = {name.split("/")[-1]: a for name, a in arrays.items() if name.startswith(f"population/{i}/")}
        spikes = shared(images, population["size"])
        readout = shared(images, steps, population["size"]) if population["kind"] == "readout" else None
        if readout is None:
            results[f"spikes/{population['name']}"] = spikes
        else:
            results["readout"] = readout
        label = f"population {population['name']!r}"
        values = inputs if population["kind"] == "input" else None
        record = {"spikes": spikes, "readout": readout}
        parameters: dict[str, Any] = {**population, **record, **common}
        populations.append(Population(label=label, arrays=part, values=values, **parameters))
    for k, projection in enumerate(network["projections"]):
        pre, post = (network["populations"][projection[end]] for end in ("pre", "post"))
        part = {name.split("/")[-1]: a for name, a in arrays.items() if name.startswith(f"projection/{k}/")}
        csr = sp.csr_matrix((part["values"], part["indices"], part["pointers"]), shape=(pre["size"], post["size"]))
        events = results[f"events/{pre['name']}/{post['name']}"] = shared(images, steps)
        synapses = Synapses(
            label=f"projection {pre['name']!r} -> {post['name']!r}",
            first_step=pre["first_step"],
            delay=projection["delay"],
            exponent=projection["exponent"],
            weights=csr,
            payloads=part.get("payloads"),
            events=events,
            **common,
        )
        populations[projection["pre"]].s_out.connect(synapses.s_in)
        synapses.a_out.connect(populations[projection["post"]].a_in)
        projections.append(synapses)
    models = dict.fromkeys(populations, PopulationModel) | dict.fromkeys(projections, SynapsesModel)
    root = populations[0]
    root.create_runtime(
        run_cfg=Loihi2SimCfg(exception_proc_model_map=models),
        compile_config={"pypy_channel_size": 2},  # messages under way between two processes
    )
    root.run(RunSteps(num_steps=max(population["first_step"] for population in network["populations"]) + steps))
    root.stop()
    return {**results, "predictions": results["readout"][:, -1].argmax(axis=1)}


def checked(network: dict[str, Any], inputs: NDArray[Any], steps: int | None) -> tuple[Ints, int]:
    """Inputs as (images, neurons), and the number of steps, or an end with a message."""
    low, high = network["value_range"]
    shapes = network["input_shapes"]
    if inputs.dtype.kind not in "iu" or list(inputs.shape[1:]) not in shapes:
        expected = " or ".join(f"(images, {', '.join(map(str, shape))})" for shape in shapes)
        raise SystemExit(f"inputs: found {inputs.dtype} of shape {inputs.shape}, expected integers {expected}")
    if len(inputs) == 0 or inputs.min() < low or inputs.max() > high:
        raise SystemExit(f"inputs: expected at least one image, and values in {low}..{high}")
    slots = network["slots"]
    if steps is None:
        steps = slots
    if steps is None or steps < 1 or slots not in (None, steps):
        raise SystemExit(f"steps: found {steps}, expected {'at least 1' if slots is None else slots}: --steps")
    return inputs.reshape(len(inputs), -1).astype(np.int64), steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, help="integers, shape (images, neurons), as .npy")
    parser.add_argument("--steps", type=int, help="steps of every population")
    parser.add_argument("--out", type=Path, default=Path("results.npz"))
    arguments = parser.parse_args()
    folder = Path(__file__).parent
    network = json.loads((folder / "network.json").read_text())
    inputs, steps = checked(network, np.load(arguments.inputs), arguments.steps)
    # Lava's processes must not outlive this one (1 is PR_SET_PDEATHSIG), and Ctrl-C must end it, where Lava would wait for them.
    os.register_at_fork(after_in_child=lambda: ctypes.CDLL(None).prctl(1, signal.SIGKILL))
    signal.signal(signal.SIGINT, lambda number, frame: os._exit(130))
    try:
        parts = [run(folder, inputs[i : i + SIDE_BY_SIDE], steps) for i in range(0, len(inputs), SIDE_BY_SIDE)]
    except Exception:  # Lava would wait for its processes for ever when the interpreter ends
        traceback.print_exc()
        os._exit(1)
    np.savez(arguments.out, **{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})
    print(f"{len(inputs)} images, {steps} steps: {arguments.out}")


if __name__ == "__main__":
    main()
