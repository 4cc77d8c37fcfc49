"""How large a graph is once its convolutions are expanded into single synapses: known before anything is expanded."""

from __future__ import annotations

from sparsespike.common.errors import ConfigError
from sparsespike.export.connections import Conv2dConnection
from sparsespike.export.graph import SpikingGraph


def check_max_synapses(backend: str, max_synapses: int) -> int:
    """The limit itself.

    Raises
    ------
    ConfigError
        If it is below 1.
    """
    if max_synapses < 1:
        raise ConfigError(f"backend {backend!r}: found max_synapses = {max_synapses}, expected at least 1")
    return max_synapses


def too_many_synapses(graph: SpikingGraph, *, max_synapses: int, bytes_per_synapse: int) -> list[str]:
    """Reason why a backend that holds every synapse by itself refuses a graph; empty if it does not.

    Synapses are counted from the kernels (``Connection.nnz``, borders exact); no convolution is expanded.

    Parameters
    ----------
    graph : SpikingGraph
    max_synapses : int
        Largest number of synapses, convolutions expanded.
    bytes_per_synapse : int
        Memory that the backend takes for one, about.
    """
    if graph.nnz <= max_synapses:
        return []
    convolutions = sum(p.connection.nnz for p in graph.projections if isinstance(p.connection, Conv2dConnection))
    expanded = f" ({convolutions:,} of them by expanding its convolutions)" if convolutions else ""
    return [
        f"found {graph.nnz:,} synapses{expanded}, which would take about {graph.nnz * bytes_per_synapse / 2**30:,.1f} GiB; "
        f"expected at most max_synapses = {max_synapses:,}: raise max_synapses if the memory allows it, or use the native "
        "backend, which expands nothing"
    ]
