"""Network percolation: links of dead neurons are deleted along a chain of sparse layers.

Zhang et al., ICLR 2024, section G: a hidden neuron without incoming or without outgoing links is inactive (INR), and
the links still attached to it are removed (IPA). The inputs of the first layer and the outputs of the last one are
never inactive: the data and the dense classifier are attached to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.topology.pattern import Topology
from sparsespike.common.errors import ModelError


def check_chain(topologies: Sequence[Topology]) -> None:
    """Raise ``ModelError`` unless each layer's inputs are the outputs of the layer before it."""
    for index, (before, after) in enumerate(pairwise(topologies)):
        if before.shape[0] != after.shape[1]:
            raise ModelError(
                f"layer {index + 1} of the chain has {after.shape[1]} inputs, expected {before.shape[0]}, the outputs of "
                f"layer {index}: list the sparse layers of one chain in order"
            )


def percolate(topologies: Sequence[Topology]) -> tuple[Topology, ...]:
    """Delete the links of inactive hidden neurons.

    One backward and one forward sweep reach the fixed point on a chain: the forward sweep deletes only outgoing links
    of neurons without incoming ones, and so never takes a neuron's last outgoing link while incoming links remain.

    Parameters
    ----------
    topologies : sequence of Topology
        The sparse layers of a chain, first to last.

    Returns
    -------
    tuple of Topology
    """
    check_chain(topologies)
    layers = list(topologies)
    for index in range(len(layers) - 2, -1, -1):
        has_outgoing = layers[index + 1].out_degree > 0
        layers[index] = layers[index].where(has_outgoing[layers[index].rows])
    for index in range(1, len(layers)):
        has_incoming = layers[index - 1].in_degree > 0
        layers[index] = layers[index].where(has_incoming[layers[index].indices])
    return tuple(layers)


def active_neurons(topologies: Sequence[Topology]) -> tuple[NDArray[np.bool_], ...]:
    """Return which neurons take part, one array for each population of the chain: inputs, hidden layers, outputs.

    A hidden neuron is active if it has incoming and outgoing links, an input if it has outgoing links, an output of
    the last layer if it has incoming ones.
    """
    check_chain(topologies)
    outgoing = [layer.out_degree > 0 for layer in topologies]
    incoming = [layer.in_degree > 0 for layer in topologies]
    hidden = [into & out for into, out in zip(incoming[:-1], outgoing[1:], strict=True)]
    return (outgoing[0], *hidden, incoming[-1])
