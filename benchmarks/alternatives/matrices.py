"""Simulation by sparse matrix times dense spikes, many images at once: scipy and torch."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch

from alternatives.network import STEPS, Network
from alternatives.timing import Alternative, same_spikes, timed


def scipy_csr(network: Network, batch: int) -> Alternative:
    """scipy's CSR matrix times a dense matrix."""
    ways = [network.weights(*pair).T.tocsr().astype(np.float32) for pair in pairwise(network.layers)]
    products = [lambda fired, way=way: way @ fired.astype(np.float32) for way in ways]
    return _matrices(f"scipy csr @ dense, batch {batch}", network, batch, products, np)


def torch_csr(network: Network, batch: int) -> Alternative:
    """torch's sparse CSR tensor times a dense one."""
    products = []
    for pair in pairwise(network.layers):
        way = network.weights(*pair).T.tocsr().astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # sparse CSR is in beta
            pointers, indices, values = map(torch.from_numpy, (way.indptr, way.indices, way.data))
            tensor = torch.sparse_csr_tensor(pointers, indices, values, size=way.shape)
        products.append(lambda fired, tensor=tensor: tensor @ fired.float())
    return _matrices(f"torch sparse_csr @ dense, batch {batch}", network, batch, products, torch)


def _matrices(name: str, network: Network, batch: int, multiply: Sequence[Callable[[Any], Any]], numbers: Any) -> Alternative:
    """In float32, which is exact: integers below 2^24.

    ``numbers`` is numpy or torch; ``multiply[l]`` gives layer l + 1's current from layer l's spikes, both (neurons, batch).
    """
    thresholds = [numbers.asarray(np.float32(layer.threshold)[:, None]) for layer in network.layers]
    current = numbers.asarray(np.ascontiguousarray(network.current[:batch].T.astype(np.float32)))
    spikes: list[int] = []

    def simulate() -> None:
        membranes = [theta / 2 + 0 * current[:1] for theta in thresholds]
        counts = [0.0] * len(thresholds)
        for _ in range(STEPS):
            drive = current
            for layer, theta in enumerate(thresholds):
                membranes[layer] += drive
                fired = membranes[layer] >= theta
                membranes[layer] -= fired * theta
                counts[layer] += float(fired.sum())
                if layer + 1 < len(thresholds):
                    drive = multiply[layer](fired)
        spikes[:] = map(int, counts)

    simulate()
    return Alternative(name, timed(batch, simulate), exact=same_spikes(network, batch, spikes))
