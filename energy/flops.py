"""FLOPs of the ANN's layers as the paper counts them: nominal, one forward pass, one image."""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from sparsespike.common.errors import ConfigError
from sparsespike.energy.exact import Number, exact
from sparsespike.export.connections import Connection, Conv2dConnection, CSRConnection
from sparsespike.export.graph import ANN_FLOPS, Key, SpikingGraph


def linear_flops(n_in: int, n_out: int, *, sparsity: Number = 0) -> Fraction:
    """FL_ANN of a fully connected layer, n_in * n_out * (1 - sparsity) (Eq. 4).

    >>> linear_flops(3072, 3072, sparsity=0.99)
    Fraction(2359296, 25)

    Raises
    ------
    ConfigError
        If the sparsity lies outside 0..1.
    """
    if not 0 <= sparsity <= 1:
        raise ConfigError(f"FLOPs of a linear layer: found sparsity {sparsity}, expected 0 (fully connected) to 1 (no synapses)")
    return n_in * n_out * (1 - exact(sparsity))


def conv2d_flops(connection: Conv2dConnection) -> Fraction:
    """FL_ANN of a convolution, k^2 * h_out * w_out * c_in / groups * c_out * (1 - sparsity): padding is charged like pixels."""
    _, height, width = connection.output_shape
    return Fraction(int(np.count_nonzero(connection.kernel)) * height * width)


def nominal_flops(connection: Connection) -> Fraction:
    """FL_ANN of the layer that a connection is, with its own sparsity; for a convolution before borders cut any taps."""
    if isinstance(connection, CSRConnection):
        n_in, n_out = connection.shape
        return linear_flops(n_in, n_out, sparsity=1 - Fraction(connection.nnz, n_in * n_out))
    return conv2d_flops(connection)


def pooled_flops(graph: SpikingGraph) -> dict[Key, Fraction]:
    """FL_ANN of the layers that a pool was composed into, as conversion noted it in the graph; by (pre, post).

    Raises
    ------
    ConfigError
        If the note does not fit the graph.
    """
    noted = graph.provenance.get(ANN_FLOPS, {})
    sources = {post: [p.key for p in graph.projections if p.post == post] for post in (noted if isinstance(noted, dict) else ())}
    if not isinstance(noted, dict) or any(
        len(sources[post]) != 1 or type(flops) is not int or flops < 0 for post, flops in noted.items()
    ):
        raise ConfigError(
            f"graph, provenance {ANN_FLOPS!r}: found {str(noted)[:80]}, expected a whole number of operations for populations "
            "with one projection; convert the network again"
        )
    return {sources[post][0]: Fraction(flops) for post, flops in noted.items()}
