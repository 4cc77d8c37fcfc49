"""Our own engine, as whole test sets are run."""

from __future__ import annotations

from alternatives.network import STEPS, Network
from alternatives.timing import Alternative, timed
from sparsespike.backends.base import Counting
from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend

NATIVE = "native, computed, 1 core"


def native(network: Network, threads: int, counting: Counting) -> Alternative:
    """Native on a number of cores, counting events in the one way or the other."""
    backend = NativeBackend(threads, counting=counting)
    images = network.images if counting == "computed" else network.images[:64]
    work = timed(len(images), lambda: run_blocks(backend, network.graph, images, STEPS))
    cores = "1 core" if threads == 1 else f"{threads} cores"
    return Alternative(f"native, {counting}, {cores}", work)
