"""What a run takes of memory, stated before it begins: the arrays that the engine makes, added up from the graph alone.

Every number is a bound, not a guess. The graph itself and the images that are given are not in it.
"""

from __future__ import annotations

from sparsespike.backends.native.lanes import SCATTER_ROOM
from sparsespike.backends.native.library import LANES, STEPS
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import SpikingGraph

WORD = 8
"""Bytes of an int64."""
SMALL = 2**20
"""What is not counted one by one: futures, dictionaries, arrays of a value for each population."""
BOUNDING = 1024
"""Bytes for each neuron of the widest population that receives, while membranes are bounded, in Python's integers."""
LOWERED = {CSRConnection: 12, Conv2dConnection: 28}
LOWERING = {CSRConnection: 24, Conv2dConnection: 96}
"""Bytes for each weight (of a convolution, in its kernel): once it is lowered, and more for those of one projection meanwhile."""
NEURON = 12 * WORD
"""Bytes for each neuron of a projection: pointers, fans, sums of weights; what its population is made of."""
INPUT_LANES = 2 * WORD + 3 * 4
"""Bytes for each input value of a block side by side: as int64, int32, and int64 again where it is multiplied; spike counts."""
MEMBRANE_LANES = 3 * WORD + WORD + 3 * 4
"""Bytes for each image and neuron of the widest population that receives: membrane, constant, current, decoded value; net and
spike counts."""


def side_by_side(graph: SpikingGraph, steps: int, threads: int) -> int:
    """Most bytes that blocks of 64 images take, one in each thread, results aside.

    Parameters
    ----------
    graph : SpikingGraph
    steps : int
        T.
    threads : int
        Blocks at once.
    """
    tiles = -(-steps // STEPS)
    signs = {"if": 1, "lif": 1, "signed_if": 2, "aec": 2}
    fired = sum(signs[graph.population(name).kind] * graph.population(name).size for name in graph.spiking)
    words = fired * tiles * STEPS * WORD
    scattered = min(SCATTER_ROOM, _reached(graph) * STEPS * LANES * WORD)
    readout = graph.readout.size * tiles * STEPS * LANES * WORD
    lanes = LANES * (INPUT_LANES * graph.input.size + MEMBRANE_LANES * _reached(graph))
    convolutions = [c for c in (p.connection for p in graph.projections) if isinstance(c, Conv2dConnection)]
    rooms: int = sum(12 * c.kernel[0].size + 8 * int(c.fan_out.max()) for c in convolutions)  # one output channel, one spike
    sums = 16 * WORD * _widest(graph) + 8 * WORD * tiles * STEPS
    return _lowered(graph) + threads * (words + scattered + readout + lanes + rooms + sums + _predictions(steps, LANES)) + SMALL


def one_by_one(graph: SpikingGraph, steps: int, images: int, threads: int) -> int:
    """Most bytes that a block of so many images takes, each thread with one image at a time, results aside.

    Parameters
    ----------
    graph : SpikingGraph
    steps : int
        T.
    images : int
        Of a block.
    threads : int
        Images at once.
    """
    populations, neurons = len(graph.populations), sum(population.size for population in graph.populations)
    by_step = graph.readout.size + 2 * populations + len(graph.projections) + 2
    by_neuron = graph.input.size + 2 * neurons
    kept = images * WORD * (by_step * steps + by_neuron + 8 * populations)
    most = {"input": 1, "readout": steps, "aec": 2}
    emitted = sum(population.size * most.get(population.kind, steps) for population in graph.populations)
    scratch = WORD * emitted + 5 * WORD * _widest(graph) + 2 * WORD * populations * steps
    return _lowered(graph) + 8 * WORD * neurons + kept + threads * scratch + _predictions(steps, images) + SMALL


def results(graph: SpikingGraph, steps: int, images: int, block: int) -> int:
    """Most bytes of the results of so many images, run ``block`` at a time: those of the blocks, and all of them joined."""
    populations, projections = len(graph.populations), len(graph.projections)
    neurons = sum(population.size for population in graph.populations)
    by_image = images * (steps + 6 * populations + projections)
    by_block = 2 * neurons + (2 * populations + projections) * steps
    blocks = -(-images // block)
    return WORD * (2 * by_image + (blocks + 2) * by_block) + blocks * 1000 * (populations + projections)


def _widest(graph: SpikingGraph) -> int:
    return max(population.size for population in graph.populations)


def _reached(graph: SpikingGraph) -> int:
    return max(population.size for population in graph.populations if population.kind != "input")


def _predictions(steps: int, images: int) -> int:
    return 2 * WORD * steps * images


def _lowered(graph: SpikingGraph) -> int:
    """The weights as the kernels read them, and what it takes to get there."""
    connections = [projection.connection for projection in graph.projections]
    stored = [c.kernel.size if isinstance(c, Conv2dConnection) else c.nnz for c in connections]
    lowered = sum(LOWERED[type(c)] * weights for c, weights in zip(connections, stored, strict=True))
    lowering = max(LOWERING[type(c)] * weights for c, weights in zip(connections, stored, strict=True))
    neurons = NEURON * sum(sum(c.shape) for c in connections)
    return lowered + lowering + neurons + BOUNDING * _reached(graph)
