"""Neurons onto cores: consecutive neurons of a population in equal shares; within 5 % the fewest cores that keep all limits."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.lava.fixed import lay_out
from sparsespike.backends.mapping.chips import Chip
from sparsespike.export.connections import Connection, CSRConnection
from sparsespike.export.graph import Population, SpikingGraph

WEIGHT_BITS = 8
INDEX_BITS = (0, 6, 7, 8, 9, 10, 11, 12)
BLOCK_SYNAPSES = 64
BLOCK_HEADER_BITS = 10
MEMORY_WORD_BITS = 64
"""The layout of synaptic memory on Loihi 1, as in nengo-loihi 1.1 (``SynapseConfig.bits_per_axon`` in nengo_loihi/block.py): the
synapses of an axon lie in blocks of up to 64, each synapse being weight, delay and index, with a header of 10 bits, rounded up to
words of 64 bits."""
PART = 2**22
"""Synapses that are looked at together, about: no more of a convolution is ever expanded."""

ASSUMPTIONS = (
    "a core holds neurons of one population, consecutive ones, in equal shares",
    f"weights take {WEIGHT_BITS} bits, and no compression is used; convolutions are expanded, their weights are not shared",
    "the input is computed off the chip and injected as a bias: its projections take no synaptic memory",
    "the readout is a population of neurons like any other",
)


@dataclass(frozen=True)
class PopulationEstimate:
    """Cores of one population. Of a core the largest number is given, None where the chip's limits are not published.

    Attributes
    ----------
    name : str
    neurons, cores, neurons_per_core : int
    in_axons : int
        Presynaptic neurons that a core hears.
    synapse_memory_bytes : int
    synapse_memory_share : float
        Of the core's synaptic memory.
    out_axons : int
        Pairs of one of a core's neurons and a core that hears it.
    messages_per_spike : float
        Cores that hear a neuron, mean over neurons.
    messages_per_image : float
        That leave one core, if spikes were given.
    thresholds : int
        Different thresholds in the population.
    """

    name: str
    neurons: int
    thresholds: int
    cores: int | None = None
    neurons_per_core: int | None = None
    in_axons: int | None = None
    synapse_memory_bytes: int | None = None
    synapse_memory_share: float | None = None
    out_axons: int | None = None
    messages_per_spike: float | None = None
    messages_per_image: float | None = None


@dataclass(frozen=True)
class Estimate:
    """What a graph takes of a chip.

    Attributes
    ----------
    chip : Chip
        With the source of every limit.
    cores : int or None
        None if a population does not fit at all; then ``obstacles`` says why.
    lower_bound : bool
        Whether at least so many cores are needed, and more cannot be said from what is published.
    populations : tuple of PopulationEstimate
        Without the input.
    assumptions : tuple of str
        Ours, on which the numbers rest.
    obstacles : tuple of str
        What of the graph the chip cannot do, or not as it stands.
    """

    chip: Chip
    cores: int | None
    lower_bound: bool
    populations: tuple[PopulationEstimate, ...]
    assumptions: tuple[str, ...]
    obstacles: tuple[str, ...]

    @property
    def chips(self) -> int | None:
        """Chips for so many cores."""
        return None if self.cores is None else -(-self.cores // self.chip.cores.value)

    def rows(self) -> list[dict[str, Any]]:
        """The populations as rows of a table, JSON-ready."""
        return [asdict(population) for population in self.populations]

    def to_dict(self) -> dict[str, Any]:
        """Everything as one JSON-ready document."""
        return {
            "chip": self.chip.name,
            "cores": self.cores,
            "chips": self.chips,
            "lower_bound": self.lower_bound,
            "populations": self.rows(),
            "limits": {name: None if limit is None else asdict(limit) for name, limit in self.chip.limits.items()},
            "assumptions": list(self.assumptions),
            "obstacles": list(self.obstacles),
        }


class _Synapses(NamedTuple):
    """A projection inside the chip."""

    connection: Connection
    delay_bits: int

    def axons(self, share: int, cores: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]]:
        """Presynaptic neuron, core and number of synapses of every axon that ends on a core, part by part."""
        for pre, post in _parts(self.connection):
            axons, counts = _count(pre * cores + post // share)
            yield axons // cores, axons % cores, counts

    def cores_heard_by(self, share: int) -> NDArray[np.int64]:
        """Cores of the postsynaptic population that hear each presynaptic neuron."""
        neurons, n_post = self.connection.shape
        heard = np.zeros(neurons, np.int64)
        for pre, _, _ in self.axons(share, -(-n_post // share)):
            heard += np.bincount(pre, minlength=neurons)
        return heard


def estimate(
    graph: SpikingGraph,
    chip: Chip,
    *,
    spikes: Mapping[str, NDArray[Any]] | None = None,
) -> Estimate:
    """Estimate the cores, synaptic memory, axons and messages that a graph takes of a chip.

    Where the limits of a core are not published (Loihi 2), only a lower bound of cores is given, from neurons and synapses of the
    whole chip.

    Parameters
    ----------
    graph : SpikingGraph
    chip : Chip
    spikes : mapping of population to array, shape (N,) or (B, N), optional
        Spikes of each neuron for one image, or for B of them, of which the mean is taken.
    """
    obstacles = list(_obstacles(graph, chip))
    inside = [name for name in graph.order if name != graph.input.name]
    if not chip.packs:
        populations = tuple(_described(graph.population(name)) for name in inside)
        obstacles.append(f"how synapses and axons are held in a core of {chip.name} is not published: cores are a lower bound")
        return Estimate(chip, _least_cores(graph, chip, inside), True, populations, ASSUMPTIONS[2:], tuple(obstacles))
    delays = {p.key: graph.delay(*p.key) - (graph.slots is None) for p in graph.projections}  # beside what every message takes
    synapses = {
        p.key: _Synapses(p.connection, delays[p.key].bit_length()) for p in graph.projections if p.pre != graph.input.name
    }
    shares: dict[str, int] = {}
    found = {}
    for name in reversed(inside):  # what leaves a population depends on the cores of those after it
        population = graph.population(name)
        into = [part for (_, post), part in synapses.items() if post == name]
        targets = np.zeros(population.size, np.int64)
        for (pre, post), part in synapses.items():
            if pre == name and post in shares:
                targets += part.cores_heard_by(shares[post])
        mean = None if spikes is None or name not in spikes else np.atleast_2d(spikes[name]).mean(axis=0)
        packed = _pack(population, into, targets, mean, chip)
        if packed.neurons_per_core is None:
            obstacles.append(f"population {name!r} does not fit: one of its neurons alone exceeds the axons or memory of a core")
        else:
            shares[name] = packed.neurons_per_core
        found[name] = packed
    cores = [found[name].cores for name in inside]
    total = None if None in cores else sum(count for count in cores if count is not None)
    if total is not None and total > chip.cores.value:
        obstacles.append(f"{total} cores are more than the {chip.cores.value} of one chip")
    return Estimate(chip, total, False, tuple(found[name] for name in inside), ASSUMPTIONS, tuple(obstacles))


def _described(population: Population) -> PopulationEstimate:
    thresholds = 0 if population.threshold is None else len(np.unique(population.threshold))
    return PopulationEstimate(name=population.name, neurons=population.size, thresholds=thresholds)


def _parts(connection: Connection, synapses: int = PART) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Pre- and postsynaptic neuron of every synapse, about so many at once; those of a presynaptic neuron come in one part."""
    if isinstance(connection, CSRConnection):
        pointers = connection.pointers
        first = 0
        while first < connection.shape[0]:
            last = max(int(np.searchsorted(pointers, pointers[first] + synapses, "right")) - 1, first + 1)
            pre = np.repeat(np.arange(first, last), np.diff(pointers[first : last + 1]))
            yield pre, connection.indices[pointers[first] : pointers[last]].astype(np.int64)
            first = last
        return
    c_out, c_per_group = connection.kernel.shape[:2]
    pixels, per_group = int(np.prod(connection.input_shape[1:])), c_out // connection.groups
    positions = int(np.prod(connection.output_shape[1:]))
    for channel in range(connection.input_shape[0]):
        group, of_group = divmod(channel, c_per_group)
        kernel = connection.kernel[group * per_group : (group + 1) * per_group, of_group : of_group + 1]
        part = replace(connection, kernel=kernel, input_shape=(1, *connection.input_shape[1:]), groups=1).to_csr()
        pre = np.repeat(np.arange(pixels), part.fan_out)
        yield pre + channel * pixels, part.indices.astype(np.int64) + group * per_group * positions


def _count(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Distinct keys and how often there is each; those of a part lie close together, which saves sorting them."""
    low, high = (int(keys.min()), int(keys.max())) if len(keys) else (0, 0)
    if high - low > 8 * len(keys):
        return np.unique(keys, return_counts=True)
    counts = np.bincount(keys - low)
    found = np.flatnonzero(counts)
    return found + low, counts[found]


def axon_bits(synapses: NDArray[np.int64], neurons_per_core: int, delay_bits: int) -> NDArray[np.int64]:
    """Synaptic memory of axons with so many synapses each, in bits."""
    index = next(bits for bits in INDEX_BITS if 2**bits >= neurons_per_core)
    each = WEIGHT_BITS + delay_bits + index
    full, rest = np.divmod(synapses, BLOCK_SYNAPSES)

    def block(count: Any) -> Any:
        return -(-(count * each + BLOCK_HEADER_BITS) // MEMORY_WORD_BITS) * MEMORY_WORD_BITS

    return np.asarray(full * block(BLOCK_SYNAPSES) + np.where(rest > 0, block(rest), 0), np.int64)


def _pack(
    population: Population, into: list[_Synapses], targets: NDArray[np.int64], spikes: NDArray[Any] | None, chip: Chip
) -> PopulationEstimate:
    """The fewest cores, within 5 %, and what they hold; without cores if not even one neuron fits a core."""
    assert chip.in_axons is not None
    assert chip.out_axons is not None
    assert chip.synapse_bits is not None
    described = _described(population)
    heard = sum(part.connection.fan_in for part in into)
    alone = MEMORY_WORD_BITS * heard  # on a core of its own: no neuron shares an axon's words
    if (
        np.max(heard, initial=0) > chip.in_axons.value
        or np.max(alone, initial=0) > chip.synapse_bits.value
        or targets.max() > chip.out_axons.value
    ):
        return described
    least_bits = sum(part.connection.nnz * (WEIGHT_BITS + part.delay_bits) for part in into)
    cores = max(
        -(-population.size // chip.neurons.value),
        -(-least_bits // chip.synapse_bits.value),
        -(-int(targets.sum()) // chip.out_axons.value),
    )

    @cache
    def load(share: int) -> _Load:
        used = -(-population.size // share)
        in_axons, bits = np.zeros(used, np.int64), np.zeros(used, np.int64)
        for part in into:
            for _, core, counts in part.axons(share, used):
                in_axons += np.bincount(core, minlength=used)
                np.add.at(bits, core, axon_bits(counts, share, part.delay_bits))
        out_axons = np.add.reduceat(targets, np.arange(0, population.size, share))
        return _Load(used, share, *(int(each.max()) for each in (in_axons, bits, out_axons)))

    limits = chip.in_axons.value, chip.synapse_bits.value, chip.out_axons.value
    first = _first(lambda cores: load(-(-population.size // cores)).fits(*limits), cores, population.size)
    found = load(-(-population.size // first))
    begin = np.arange(0, population.size, found.share)
    messages = None if spikes is None else float(np.add.reduceat(spikes * targets, begin).max())
    return PopulationEstimate(
        name=described.name,
        neurons=described.neurons,
        thresholds=described.thresholds,
        cores=found.used,
        neurons_per_core=found.share,
        in_axons=found.in_axons,
        synapse_memory_bytes=-(-found.bits // 8),
        synapse_memory_share=found.bits / chip.synapse_bits.value,
        out_axons=found.out_axons,
        messages_per_spike=float(targets.mean()),
        messages_per_image=messages,
    )


class _Load(NamedTuple):
    """Cores that a population takes, neurons of each, and the most that any of them holds."""

    used: int
    share: int
    in_axons: int
    bits: int
    out_axons: int

    def fits(self, in_axons: int, bits: int, out_axons: int) -> bool:
        """Whether no core holds more than that."""
        return self.in_axons <= in_axons and self.bits <= bits and self.out_axons <= out_axons


def _first(fits: Callable[[int], bool], least: int, most: int) -> int:
    """The first of ``least`` and numbers each 5 % larger, up to ``most``, that fits; all after it are taken to fit, too."""
    tried = [least]
    while tried[-1] < most:
        tried.append(min(max(tried[-1] + 1, int(tried[-1] * 1.05)), most))
    low, high, step = 0, 0, 1
    while high < len(tried) - 1 and not fits(tried[high]):
        low, high, step = high + 1, min(high + step, len(tried) - 1), 2 * step
    return tried[bisect_left(tried, True, low, high, key=fits)]


def _least_cores(graph: SpikingGraph, chip: Chip, inside: list[str]) -> int:
    neurons = sum(graph.population(name).size for name in inside)
    cores = -(-neurons // chip.neurons.value)
    if chip.synapses is not None:
        nnz = sum(p.connection.nnz for p in graph.projections if p.pre != graph.input.name)
        cores = max(cores, -(-nnz * chip.cores.value // chip.synapses.value))
    return cores


def _obstacles(graph: SpikingGraph, chip: Chip) -> Iterator[str]:
    for name in graph.spiking:
        population = graph.population(name)
        where = f"population {name!r}"
        if not chip.graded and population.kind in ("signed_if", "aec"):
            yield f"{where} is of kind {population.kind!r}, and spikes of {chip.name} carry no value or sign"
        elif not chip.programmable and population.reset == "subtract":
            yield f"{where} is reset by subtraction, and neurons of {chip.name} are reset to zero"
        distinct = _described(population).thresholds
        if chip.thresholds is not None and distinct > chip.thresholds.value:
            yield (
                f"{where} has {distinct} different thresholds, and a core of {chip.name} at most {chip.thresholds.value} "
                f"({chip.thresholds.source}): one threshold for all, by scaling every neuron's weights"
            )
    for projection in graph.projections:
        steps = graph.delay(*projection.key) - (graph.slots is None)
        if projection.pre != graph.input.name and chip.delay_bits is not None and steps.bit_length() > chip.delay_bits.value:
            yield f"projection {projection.pre!r} -> {projection.post!r} waits {steps} steps, and {chip.name} at most 62"
    if chip.words is not None:
        _, misfits = lay_out(graph, chip.words, injected=True)
        yield from (f"{chip.name}: {misfit.found}; {misfit.remedy}" for misfit in misfits)
