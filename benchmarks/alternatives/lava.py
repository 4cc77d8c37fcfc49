"""Lava: our lowering with images side by side, and stock processes image by image."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from alternatives.network import SIZES, STEPS, Network
from alternatives.timing import Alternative, Seconds, same_spikes, spikes_of
from sparsespike.backends.lava import LavaBackend
from sparsespike.backends.lava.job import Shape

PEER = Path(__file__).parents[1] / "peers" / "lava_stock.py"
STOCK_IMAGES = 3


def lava_lowering(network: Network, images: int, shape: Shape) -> Alternative:
    """Our lowering; in ``whole`` with what it takes to start a worker, import Lava and build the processes."""
    backend = LavaBackend(shape=shape)

    def run() -> Seconds:
        result = backend.run(network.graph, network.images[:images], STEPS, input="current")
        seconds = result.wall_seconds
        return Seconds(seconds["run"] / images, (seconds["build"] + seconds["run"]) / images)

    exact = same_spikes(network, images, spikes_of(backend, network, images))
    return Alternative(f"Lava, our lowering, {shape}, batch {images}", run, exact=exact)


def lava_stock(bits: int, folder: Path) -> Alternative:
    """The script of ``peers/lava_stock.py``: stock LIF and Sparse; the faster of a few images.

    An image takes a step more for each layer. In ``whole`` with what it takes to build, start and stop the processes, which
    every image needs anew (nothing stock sets membranes to half the threshold), but without importing Lava.
    """

    def run() -> Seconds:
        steps = str(STEPS + len(SIZES) - 2)
        command = [sys.executable, str(PEER), str(folder / "network.npz"), str(bits), steps, str(STOCK_IMAGES)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, start_new_session=True)
        lines = [line.split() for line in done.stdout.splitlines()[-STOCK_IMAGES:]]
        return Seconds(*(min(float(line[column]) for line in lines) for column in (0, 1)))

    return Alternative(f"Lava stock LIF + Sparse, {bits} message bits, image by image", run, exact="not comparable")
