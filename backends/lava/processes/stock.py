"""Run a spiking network in Intel Lava (lava-nc 0.10.0 on Python 3.10, Linux), made of Lava's own processes LIF and Sparse alone.

    python run.py inputs.npy --steps 32 --out results.npz

``inputs.npy`` holds integers of shape (images, neurons), or of the shape that the network's input has, within its range. Beside
this file lie ``network.json`` (the populations and projections) and ``network.npz`` (their arrays). ``results.npz`` will hold

    readout                (images, classes)          membranes of the readout after the last step
    predictions            (images,)                  argmax of them
    spikes/<population>    (images, steps, neurons)   with --spikes, which is slow: Lava sends them one by one

Images run one after the other, each in processes of its own, for LIF cannot be set back between two images. A message takes one
step: a population at depth d takes its local step t at step t + d - 1. The input's constant current is the bias of LIF. LIF fires
*above* its threshold, and so has one less than the network's. Its fixed-point model clips what leaves 24 bits without a word, so
every image is computed with numpy too, with a check, and both results must agree. ``--hardware`` asks Lava for Loihi 2 instead of
its simulation; that needs Intel's extension of Lava, and was never tried. (A threshold for each neuron is beyond what LIF
documents; the simulation takes it.)
"""

from __future__ import annotations

import argparse
import json
import os
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2HwCfg, Loihi2SimCfg
from lava.proc.io.sink import RingBuffer
from lava.proc.lif.process import LIF
from lava.proc.sparse.process import Sparse
from numpy.typing import NDArray

Ints = NDArray[np.int64]
ALIGNMENT = 6
WORD_LIMIT = 2**23 - 1
BIAS_LIMITS = (-(2**12), 2**12 - 1)
EXPONENTS = range(8)


class Network:
    """The network of ``network.json`` and ``network.npz``; all numbers in words of 2^-shift of the network's unit."""

    def __init__(self, folder: Path) -> None:
        description = json.loads((folder / "network.json").read_text())
        self.size, self.low, self.high = (description["input"][name] for name in ("size", "low", "high"))
        self.shapes: list[list[int]] = description["input"]["shapes"]
        self.populations: list[dict[str, Any]] = description["populations"]
        self.projections: list[dict[str, Any]] = description["projections"]
        with np.load(folder / "network.npz") as archive:
            arrays = {name: archive[name] for name in archive.files}
        for kind, parts in (("population", self.populations), ("projection", self.projections)):
            for i, part in enumerate(parts):
                prefix = f"{kind}/{i}/"
                part |= {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
        for p in self.projections:
            pre = self.size if p["pre"] < 0 else self.populations[p["pre"]]["size"]
            shape = (pre, self.populations[p["post"]]["size"])
            # Lava's matrices have a row for each postsynaptic neuron.
            p["matrix"] = sp.csr_matrix((p["values"], p["indices"], p["pointers"]), shape=shape).T.tocsr()
        self.depth = max(population["depth"] for population in self.populations)

    def biases(self, image: Ints) -> list[Ints]:
        """Bias words of every population: its own and the input's constant current."""
        words = [population["bias"].copy() for population in self.populations]
        for p in self.projections:
            if p["pre"] < 0:
                words[p["post"]] += (p["matrix"] @ image) << p["exponent"]
        return words

    def compute(self, biases: list[Ints], steps: int) -> tuple[Ints, list[Ints]]:
        """Membranes of the readout after the last step, and spikes (steps, neurons), with numpy."""
        v = [population["v"].copy() for population in self.populations]
        spikes = [np.zeros((self.depth - 1 + steps, len(words)), np.int64) for words in v]
        for step in range(self.depth - 1 + steps):
            for i, population in enumerate(self.populations):
                current = np.zeros_like(v[i])
                for p in self.projections:
                    if p["post"] == i and p["pre"] >= 0 and step > 0:
                        current += (p["matrix"] @ spikes[p["pre"]][step - 1]) << p["exponent"]
                v[i] += current + biases[i]
                largest = np.maximum(np.abs(v[i]), np.abs(current)).max()
                if largest > (population["vth"].max() << ALIGNMENT if population["readout"] else WORD_LIMIT):
                    raise SystemExit(f"population {population['name']!r}, step {step}: the word {largest} leaves 24 bits")
                fired = v[i] > population["vth"] << ALIGNMENT
                v[i][fired] = 0
                spikes[i][step] = fired
        return v[-1], [s[p["depth"] - 1 :][:steps] for s, p in zip(spikes, self.populations, strict=True)]

    def run(self, biases: list[Ints], steps: int, hardware: bool, record: bool) -> tuple[Ints, list[Ints]]:
        """As ``compute``, in Lava; spikes only if they are recorded."""
        populations, sinks = [], []
        total = self.depth - 1 + steps
        for population, bias in zip(self.populations, biases, strict=True):
            mantissa, exponent = register(bias, population["name"])
            populations.append(
                LIF(
                    shape=(population["size"],),
                    v=population["v"].astype(np.int32),
                    du=4095,  # what arrives is gone after one step
                    dv=0,
                    vth=population["vth"].astype(np.int32),
                    bias_mant=mantissa,
                    bias_exp=exponent,
                )
            )
            if record and not population["readout"]:
                sinks.append(RingBuffer(shape=(population["size"],), buffer=total))
                populations[-1].s_out.connect(sinks[-1].a_in)
        for p in self.projections:
            if p["pre"] >= 0 and p["matrix"].nnz:
                sparse = Sparse(weights=p["matrix"].astype(np.int32), weight_exp=p["exponent"] - ALIGNMENT, num_weight_bits=8)
                populations[p["pre"]].s_out.connect(sparse.s_in)
                sparse.a_out.connect(populations[p["post"]].a_in)
        roots = []
        for process in populations:
            if process.runtime is None:  # without the input a network may fall into parts
                process.run(
                    condition=RunSteps(num_steps=total),
                    run_cfg=Loihi2HwCfg() if hardware else Loihi2SimCfg(select_tag="fixed_pt"),
                )
                roots.append(process)
        readout = populations[-1].v.get().astype(np.int64)
        recorded = [sink.data.get().T.astype(np.int64) for sink in sinks]
        for root in roots:
            root.stop()
        return readout, [s[p["depth"] - 1 :][:steps] for s, p in zip(recorded, self.populations, strict=False)]


def register(words: Ints, name: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Mantissas of 13 bits and exponents of 3 bits."""
    mantissa, exponent = np.zeros(words.shape, np.int32), np.full(words.shape, -1, np.int32)
    for e in EXPONENTS:
        found = words >> e
        fits = (exponent < 0) & (found << e == words) & (found >= BIAS_LIMITS[0]) & (found <= BIAS_LIMITS[1])
        mantissa[fits], exponent[fits] = found[fits], e
    if np.any(exponent < 0):
        neuron = int(np.argmax(exponent < 0))
        raise SystemExit(
            f"population {name!r}, neuron {neuron}: bias and input current are the word {words[neuron]} together, expected a "
            "mantissa of 13 bits times 2^0..7; use smaller input values"
        )
    return mantissa, exponent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("inputs", type=Path, help="integers, shape (images, neurons), as .npy")
    parser.add_argument("--steps", type=int, required=True, help="steps of every population")
    parser.add_argument("--out", type=Path, default=Path("results.npz"))
    parser.add_argument("--spikes", action="store_true", help="record all spikes")
    parser.add_argument("--hardware", action="store_true", help="run on Loihi 2")
    arguments = parser.parse_args()
    network = Network(Path(__file__).parent)
    images = np.load(arguments.inputs)
    if images.dtype.kind not in "iu" or list(images.shape[1:]) not in network.shapes or arguments.steps < 1:
        shapes = " or ".join(f"(images, {', '.join(map(str, shape))})" for shape in network.shapes)
        raise SystemExit(f"found {images.dtype} of shape {images.shape}, expected integers {shapes}, steps >= 1")
    if len(images) == 0 or images.min() < network.low or images.max() > network.high:
        raise SystemExit(f"inputs: expected at least one image, and values in {network.low}..{network.high}")
    names = [population["name"] for population in network.populations[:-1]]
    shift = network.populations[-1]["shift"]
    readouts, spikes = [], []
    for number, image in enumerate(images.reshape(len(images), -1).astype(np.int64)):
        biases = network.biases(image)
        expected, expected_spikes = network.compute(biases, arguments.steps)
        try:
            readout, recorded = network.run(biases, arguments.steps, arguments.hardware, arguments.spikes)
        except Exception:  # Lava would wait for its processes for ever when the interpreter ends
            traceback.print_exc()
            os._exit(1)
        agree = [np.array_equal(a, b) for a, b in zip(recorded, expected_spikes, strict=False)]
        if not (np.array_equal(readout, expected) and all(agree)):
            raise SystemExit(f"image {number}: Lava and numpy differ; please report this")
        readouts.append(readout >> shift)
        spikes.append(recorded)
    results = {"readout": np.array(readouts), "predictions": np.array(readouts).argmax(axis=1)}
    if arguments.spikes:
        results |= {f"spikes/{name}": np.array([recorded[i] for recorded in spikes]) for i, name in enumerate(names)}
    np.savez(arguments.out, **results)
    print(f"{len(images)} images, {arguments.steps} steps: {arguments.out}")


if __name__ == "__main__":
    main()
