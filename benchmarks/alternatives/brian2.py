"""Brian2's C++ standalone mode: our lowering, and a script written by hand. The loop over steps alone is timed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np

from alternatives.network import STEPS, Network
from alternatives.timing import Alternative, Seconds, same_spikes, spikes_of
from sparsespike.backends.brian2 import Brian2Backend

BY_HAND = "Brian2 C++ standalone, by hand"
LOWERING = "Brian2 C++ standalone, our lowering"
PEER = Path(__file__).parents[1] / "peers" / "brian2_by_hand.py"


def brian2_lowering(network: Network, images: int) -> Alternative:
    """Our lowering."""
    backend = Brian2Backend(mode="cpp", processes=1)

    def run() -> Seconds:
        result = backend.run(network.graph, network.images[:images], STEPS, input="current")
        return Seconds(result.wall_seconds["simulation"] / images)

    return Alternative(LOWERING, run, exact=same_spikes(network, images, spikes_of(backend, network, images)))


def brian2_by_hand(network: Network, images: int, folder: Path) -> Alternative:
    """The script of ``peers/brian2_by_hand.py``."""
    network.save(folder / "network.npz", images)
    program = folder / "by_hand"
    subprocess.run([sys.executable, PEER, folder / "network.npz", program], check=True)

    def run() -> Seconds:
        subprocess.run(["./main"], cwd=program, check=True, stdout=subprocess.DEVNULL)
        return Seconds(float((program / "results" / "last_run_info.txt").read_text().split()[0]) / images)

    run()
    return Alternative(BY_HAND, run, exact=same_spikes(network, images, _spikes(program, network)))


def _spikes(program: Path, network: Network) -> list[int]:
    """Counters that the program left on disk: int32, one a neuron."""
    totals = []
    for layer, population in enumerate(network.layers):
        (path,) = (program / "results").glob(f"_array_G{layer}_n_spk_*")
        counts = np.fromfile(path, np.int32)
        assert len(counts) == population.size
        totals.append(int(counts.sum()))
    return totals
