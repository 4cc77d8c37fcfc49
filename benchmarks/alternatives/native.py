"""Our own engine, as whole test sets are run."""

from __future__ import annotations

import time

from alternatives.network import STEPS, Network
from alternatives.timing import Alternative, Seconds
from sparsespike.backends.base import Counting
from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend

NATIVE = "native, computed, 1 core"


def native(network: Network, threads: int, counting: Counting) -> Alternative:
    """Native on a number of cores, counting events in the one way or the other; in ``whole`` with lowering the graph, too."""
    backend = NativeBackend(threads, counting=counting)
    images = network.images if counting == "computed" else network.images[:64]

    def run() -> Seconds:
        began = time.perf_counter()
        result = run_blocks(backend, network.graph, images, STEPS)
        return Seconds(result.wall_seconds["run"] / len(images), (time.perf_counter() - began) / len(images))

    cores = "1 core" if threads == 1 else f"{threads} cores"
    return Alternative(f"native, {counting}, {cores}", run)
