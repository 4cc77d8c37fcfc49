"""Firing rates of the paper: LASFR of a layer (Eq. 2) and MASFR of a model (Eq. 1).

Both signs of a signed neuron's spikes count. Rates are in spikes per neuron and step.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import SpikeCounts
from sparsespike.common.errors import ConfigError
from sparsespike.export.graph import SpikingGraph

Over = Literal["hidden", "hidden+readout", "all"]
"""Neurons that MASFR averages over.

``hidden``: the populations that fire. ``hidden+readout``: also the readout's neurons, which never fire and so lower the
average. ``all``: also the input's neurons, whose emissions of a value that is not zero count as spikes.
"""


def lasfr(spikes: SpikeCounts, steps: int) -> NDArray[np.float64]:
    """LASFR(T) of one population in each image (Eq. 2).

    Parameters
    ----------
    spikes : SpikeCounts of shape (B, N)
        Summed over steps.
    steps : int
        T.

    Returns
    -------
    float64 array, shape (B,)
        Spikes per neuron and step.
    """
    events = spikes.events
    return np.asarray(events.sum(axis=1) / (steps * events.shape[1]), dtype=np.float64)


def lasfr_curve(spikes_by_step: SpikeCounts, neurons: int) -> NDArray[np.float64]:
    """LASFR(t) of one population for every t = 1..T (Eq. 2).

    Parameters
    ----------
    spikes_by_step : SpikeCounts of shape (B, T)
        Summed over neurons.
    neurons : int
        N.

    Returns
    -------
    float64 array, shape (B, T)
        Spikes per neuron and step, over the first t steps.
    """
    return _rate_by_step(spikes_by_step.events, neurons)


def averaged_populations(graph: SpikingGraph, over: Over) -> tuple[tuple[str, ...], int]:
    """Populations whose spikes MASFR adds up, and N_model, the number of neurons that it divides by.

    Raises
    ------
    ConfigError
        If ``over`` is unknown, or the graph has no such neurons.
    """
    if over not in get_args(Over):
        raise ConfigError(f"MASFR: found over = {over!r}, expected one of {', '.join(get_args(Over))}")
    names = (graph.input.name, *graph.spiking) if over == "all" else graph.spiking
    if not names:
        raise ConfigError(f"MASFR over {over!r} neurons: the graph has no population that fires; use over = 'all'")
    neurons = sum(graph.population(name).size for name in names)
    return names, neurons + (0 if over == "hidden" else graph.readout.size)


def masfr(graph: SpikingGraph, spikes: Mapping[str, SpikeCounts], steps: int, *, over: Over = "hidden") -> NDArray[np.float64]:
    """MASFR(T) of a model in each image (Eq. 1).

    Parameters
    ----------
    graph : SpikingGraph
    spikes : mapping of population to SpikeCounts of shape (B, N)
        As in ``RunResult.spikes``.
    steps : int
        T.
    over : {"hidden", "hidden+readout", "all"}
        Neurons averaged over.

    Returns
    -------
    float64 array, shape (B,)
        Spikes per neuron and step.

    Raises
    ------
    ConfigError
        If ``over`` is unknown, or the graph has no such neurons.
    """
    names, neurons = averaged_populations(graph, over)
    total = np.sum([spikes[name].events.sum(axis=1) for name in names], axis=0)
    return np.asarray(total / (steps * neurons), dtype=np.float64)


def masfr_curve(graph: SpikingGraph, spikes_by_step: Mapping[str, SpikeCounts], *, over: Over = "hidden") -> NDArray[np.float64]:
    """MASFR(t) of a model for every t = 1..T (Eq. 1); local time, so all populations' first t steps.

    Parameters
    ----------
    graph : SpikingGraph
    spikes_by_step : mapping of population to SpikeCounts of shape (B, T)
        As in ``RunResult.spikes_by_step``.
    over : {"hidden", "hidden+readout", "all"}
        Neurons averaged over.

    Returns
    -------
    float64 array, shape (B, T)
        Spikes per neuron and step, over the first t steps.

    Raises
    ------
    ConfigError
        If ``over`` is unknown, or the graph has no such neurons.
    """
    names, neurons = averaged_populations(graph, over)
    return _rate_by_step(np.sum([spikes_by_step[name].events for name in names], axis=0), neurons)


def _rate_by_step(events: NDArray[np.int64], neurons: int) -> NDArray[np.float64]:
    elapsed = np.arange(1, events.shape[1] + 1, dtype=np.int64)
    return np.asarray(events.cumsum(axis=1) / (elapsed * neurons), dtype=np.float64)
