"""Counts of synaptic operations as other tools define them, on the same network, and by how much each is off.

Every tool multiplies an activity of each presynaptic neuron by a fan-out of it. They differ in both: whether absent links and
taps in the padding are counted, whether a negative spike counts, counts negative or makes the whole layer a dense one, and
whether a layer's operations are accumulates (AC) or multiply-and-accumulates (MAC). So each count differs from the events of
the graph by three terms, which are calculated apart and add up to the difference exactly::

    count = sum_i a_i f_i;   events = sum_i s_i d_i
    count - events = sum_i s_i (g_i - d_i)  +  sum_i s_i (f_i - g_i)  +  sum_i (a_i - s_i) f_i
                     absent links              borders                  activity

with the spikes s_i and fan-outs d_i of the ledger, g_i the fan-out if no link were absent, f_i the tool's fan-out and a_i its
activity. Sources of the definitions: the packages' own code (NeuroBench 2.2, syops 0.0.5, sinabs 3.1, spikingjelly's
op_counter, SNN Toolbox).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from sparsespike.backends.base import RunResult
from sparsespike.common.errors import ConfigError
from sparsespike.export.connections import Conv2dConnection
from sparsespike.export.graph import Key, SpikingGraph

IntArray = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Count:
    """What one tool counts in one projection, summed over images and steps, and why it differs from the graph's events.

    Attributes
    ----------
    pre, post : str
    acs, macs : Fraction
    events : int
        Spikes x fan-outs of the graph.
    absent_links, borders, activity : Fraction
        The three terms of acs + macs - events.
    """

    pre: str
    post: str
    acs: Fraction
    macs: Fraction
    events: int
    absent_links: Fraction
    borders: Fraction
    activity: Fraction

    @property
    def operations(self) -> Fraction:
        """ACs and MACs."""
        return self.acs + self.macs


@dataclass(frozen=True, eq=False, kw_only=True)
class Layer:
    """One projection and what arrives at it: what a tool that hooks a layer sees.

    Attributes
    ----------
    key : (pre, post)
    first : bool
        Whether it is a projection out of the input.
    values : int64 array, shape (B, T, N)
        What the layer's input tensor holds in each step: values of the input, +1 and -1 for spikes, payloads of AEC.
    events : int8 array, shape (B, T, N)
        Events behind each value: 1 for a value that is not zero, 2 where an AEC neuron fires twice in a slot.
    fan_out, full : int64 array, shape (N,)
        d_i, and g_i with no link absent (at borders those that exist).
    kernel_fan_out : Fraction or None
        Of a convolution: taps of an input value away from all borders, k^2 c_out / groups; None for a fully connected layer.
    nominal : Fraction
        Multiply-and-accumulates of the dense layer in one step and image, taps in the padding included.
    """

    key: Key
    first: bool
    values: IntArray
    events: NDArray[np.int8]
    fan_out: IntArray
    full: IntArray
    kernel_fan_out: Fraction | None
    nominal: Fraction

    @property
    def spikes(self) -> IntArray:
        """Events of each neuron, s_i, shape (N,)."""
        return np.asarray(self.events.sum(axis=(0, 1), dtype=np.int64))

    def shares(self, batch: int, is_spiking: Callable[[IntArray], bool]) -> list[tuple[bool, IntArray, IntArray]]:
        """What arrives in spiking calls and in the others, a call being one step and a batch of images.

        Returns
        -------
        list of (bool, int64 array of shape (calls x images, N), int64 array of shape (N,))
            Whether they are spiking, their input tensors one after the other, and the events of each neuron in them.
        """
        found: dict[bool, list[tuple[slice, int]]] = {}
        for start in range(0, len(self.values), batch):
            block = slice(start, start + batch)
            for t in range(self.values.shape[1]):
                found.setdefault(is_spiking(self.values[block, t]), []).append((block, t))
        return [
            (
                spiking,
                np.concatenate([self.values[block, t] for block, t in calls]),
                np.asarray(sum(self.events[block, t].sum(axis=0, dtype=np.int64) for block, t in calls), np.int64),
            )
            for spiking, calls in found.items()
        ]


class Share(NamedTuple):
    """A part of a tool's count: sum_i activity_i fan_out_i operations of one kind.

    ``events`` are those of each neuron in this part; ``dense`` says whether absent links are counted.
    """

    activity: IntArray
    events: IntArray
    fan_out: NDArray[Any]
    dense: bool
    accumulates: bool


@dataclass(frozen=True, kw_only=True)
class Counter:
    """One tool's definition.

    Attributes
    ----------
    name : str
        Of the tool.
    count : callable
        ``count(layer, batch)`` gives the parts of the count.
    why : str
        What it does that the ledger does not, for people.
    """

    name: str
    count: Callable[[Layer, int], list[Share]]
    why: str


def layers_of(graph: SpikingGraph, result: RunResult, inputs: NDArray[Any]) -> tuple[Layer, ...]:
    """The layers of a run whose rasters were kept.

    Parameters
    ----------
    graph : SpikingGraph
    result : RunResult
        With ``record=graph.spiking``.
    inputs : integer array, shape (B, N) or (B, C, y, x)
        The images of the run.

    Raises
    ------
    ConfigError
        If a raster is missing, or there are other images.
    """
    pixels = graph.check_inputs(inputs)
    missing = sorted(set(graph.spiking) - set(result.rasters))
    if missing or len(pixels) != result.images:
        raise ConfigError(
            f"counters: found no rasters of {missing}, {len(pixels)} images and a run of {result.images}; run the backend on the "
            "same images with record=graph.spiking"
        )
    emitted = np.arange(result.steps) < (1 if graph.input.bias_mode == "once" else result.steps)
    emissions: IntArray = pixels[:, None, :] * emitted.astype(np.int64)[None, :, None]
    values: dict[str, IntArray] = {graph.input.name: emissions}
    events: dict[str, NDArray[np.int8]] = {graph.input.name: np.where(emissions, 1, 0).astype(np.int8)}
    for name in graph.spiking:
        raster, tables = result.rasters[name], graph.population(name).tables
        values[name], events[name] = raster.astype(np.int64), np.abs(raster).astype(np.int8)
        if graph.slots is not None:
            fired = [(raster >> bit & 1).astype(np.int64) for bit in (0, 1)]
            payloads = [tables[f"{spike}_payload"][:, None] for spike in ("primary", "compensation")]
            values[name] = np.asarray(fired[0] * payloads[0] + fired[1] * payloads[1], np.int64)
            events[name] = (fired[0] + fired[1]).astype(np.int8)
    layers = []
    for projection in graph.projections:
        connection = projection.connection
        pre, post = (graph.population(name) for name in projection.key)
        full = np.full(pre.size, post.size, np.int64)
        kernel_fan_out, nominal = None, Fraction(pre.size * post.size)
        if isinstance(connection, Conv2dConnection):
            full = replace(connection, kernel=np.ones_like(connection.kernel)).fan_out
            channels_out, _, *size = connection.kernel.shape
            kernel_fan_out = Fraction(channels_out * size[0] * size[1], connection.groups)
            nominal = Fraction(connection.kernel.size * connection.output_shape[1] * connection.output_shape[2])
        layers.append(
            Layer(
                key=projection.key,
                first=pre.kind == "input",
                values=values[pre.name],
                events=events[pre.name],
                fan_out=connection.fan_out,
                full=full,
                kernel_fan_out=None if _strided(connection) else kernel_fan_out,
                nominal=nominal,
            )
        )
    return tuple(layers)


def counted(layer: Layer, counter: Counter, batch: int) -> Count:
    """One tool's count of one layer, exact, and its three terms, each from its own sums."""
    shares = counter.count(layer, batch)
    full = [layer.full if share.dense else layer.fan_out for share in shares]
    return Count(
        pre=layer.key[0],
        post=layer.key[1],
        acs=_total(_dot(share.activity, share.fan_out) for share in shares if share.accumulates),
        macs=_total(_dot(share.activity, share.fan_out) for share in shares if not share.accumulates),
        events=int(_dot(layer.spikes, layer.fan_out)),
        absent_links=_total(_dot(share.events, g - layer.fan_out) for share, g in zip(shares, full, strict=True)),
        borders=_total(_dot(share.events, share.fan_out - g) for share, g in zip(shares, full, strict=True)),
        activity=_total(_dot(share.activity - share.events, share.fan_out) for share in shares),
    )


def count_all(
    graph: SpikingGraph, result: RunResult, inputs: NDArray[Any], *, batch: int | None = None
) -> dict[str, tuple[Count, ...]]:
    """Every tool's count of every projection.

    Parameters
    ----------
    graph, result, inputs
        See `layers_of`.
    batch : int, optional
        Images in one call of a layer; all by default. Tools that look at the whole tensor to tell spikes from numbers may
        count otherwise with another one.

    Raises
    ------
    ConfigError
        If ``batch`` is below 1, or the run does not fit.
    """
    if batch is not None and batch < 1:
        raise ConfigError(f"counters: found batch = {batch}, expected at least 1 image in a call")
    layers = layers_of(graph, result, inputs)
    return {
        name: tuple(counted(layer, counter, batch or result.images) for layer in layers) for name, counter in COUNTERS.items()
    }


def counters_frame(counts: Mapping[str, Sequence[Count]], images: int) -> pd.DataFrame:
    """The table of all counts: mean image, the difference to the graph's events and its three terms.

    Parameters
    ----------
    counts : mapping of tool to its counts, see `count_all`
    images : int
        Images behind the counts.
    """
    lines = []
    for name, found in counts.items():
        sums = {key: _total(getattr(each, key) for each in found) for key in ("acs", "macs", *TERMS)}
        total = Count(pre="total", post="", events=sum(each.events for each in found), **sums)
        lines += [_line(name, each, images) for each in (*found, total)]
    return pd.DataFrame(lines)


def _line(counter: str, count: Count, images: int) -> dict[str, object]:
    difference = count.operations - count.events
    return {
        "counter": counter,
        "pre": count.pre,
        "post": count.post,
        "ACs": float(count.acs / images),
        "MACs": float(count.macs / images),
        "events": count.events / images,
        "difference": float(difference / images),
        "difference_%": float(100 * difference / count.events) if count.events else None,
        **{term: float(getattr(count, term) / images) for term in TERMS},
    }


TERMS = ("absent_links", "borders", "activity")


def _ledger(layer: Layer, batch: int) -> list[Share]:
    return [Share(layer.spikes, layer.spikes, layer.fan_out, dense=False, accumulates=not layer.first)]


def _neurobench(layer: Layer, batch: int) -> list[Share]:
    """Values that are not zero x weights that are not zero; AC in calls with nothing but -1, 0 and 1."""
    shares = layer.shares(batch, lambda call: bool(call.min() >= -1 and call.max() <= 1))
    return [
        Share(np.count_nonzero(values, axis=0), events, layer.fan_out, dense=False, accumulates=spiking)
        for spiking, values, events in shares
    ]


def _syops(layer: Layer, batch: int) -> list[Share]:
    """Nominal MACs x mean value in calls of at most two values within 0..1 (AC); nominal MACs in others."""
    mean = np.full(layer.values.shape[2], Fraction(layer.nominal, layer.values.shape[2]))
    return [
        Share(values.sum(axis=0) if spiking else _always(values), events, mean, dense=True, accumulates=spiking)
        for spiking, values, events in layer.shares(batch, _binary)
    ]


def _sinabs(layer: Layer, batch: int) -> list[Share]:
    """Sum of values x fan-out of the dense layer: signs cancel and numbers weigh; no AC or MAC is told apart."""
    return [Share(layer.values.sum(axis=(0, 1)), layer.spikes, layer.full, dense=True, accumulates=True)]


def _spikingjelly(layer: Layer, batch: int) -> list[Share]:
    """Spikes x fan-out of the dense layer in calls of nothing but 0 and 1; in others no SynOp, but the layer's MACs."""
    mean = np.full(layer.values.shape[2], Fraction(layer.nominal, layer.values.shape[2]))
    return [
        Share(values.sum(axis=0), events, layer.full, dense=True, accumulates=True)
        if spiking
        else Share(_always(values), events, mean, dense=True, accumulates=False)
        for spiking, values, events in layer.shares(batch, _binary)
    ]


def _snn_toolbox(layer: Layer, batch: int) -> list[Share]:
    """Spikes x fan-out, that of a kernel away from borders if its stride is 1; the first layer's input is no spike."""
    fan_out: NDArray[Any] = layer.full
    if layer.kernel_fan_out is not None:
        fan_out = np.full(len(layer.full), layer.kernel_fan_out)
    activity = np.count_nonzero(layer.values, axis=(0, 1)) * (not layer.first)
    return [Share(activity, layer.spikes, fan_out, dense=True, accumulates=True)]


def _binary(call: IntArray) -> bool:
    return bool(call.min() >= 0 and call.max() <= 1)


def _always(values: IntArray) -> IntArray:
    """Activity of neurons that are charged in every call."""
    return np.full(values.shape[1], len(values), np.int64)


COUNTERS: dict[str, Counter] = {
    counter.name: counter
    for counter in (
        Counter(name="ledger", count=_ledger, why="spikes x fan-outs of the graph, equal to what backends measure"),
        Counter(
            name="neurobench",
            count=_neurobench,
            why="links and borders exact; an AEC neuron's two spikes of one slot arrive as one value",
        ),
        Counter(
            name="syops",
            count=_syops,
            why="absent links and padding are charged, every neuron with the layer's mean rate; signed spikes make it dense",
        ),
        Counter(
            name="sinabs",
            count=_sinabs,
            why="absent links are charged; values are weighed by their size, and signed spikes cancel",
        ),
        Counter(
            name="spikingjelly",
            count=_spikingjelly,
            why="absent links are charged; anything but 0 and 1 makes the layer a dense one",
        ),
        Counter(
            name="snn-toolbox",
            count=_snn_toolbox,
            why="absent links and padding are charged; the first layer, fed with numbers, is not counted",
        ),
    )
}
"""All definitions by the name of their tool; ``ledger`` is ours."""


def _dot(activity: NDArray[Any], fan_out: NDArray[Any]) -> Fraction:
    """Sum of products of integers or rationals, exact."""
    return _total(Fraction(a) * f for a, f in zip(activity.tolist(), fan_out.tolist(), strict=True) if a)


def _total(values: Iterable[Fraction]) -> Fraction:
    return sum(values, Fraction(0))


def _strided(connection: object) -> bool:
    return isinstance(connection, Conv2dConnection) and tuple(connection.stride) != (1, 1)
