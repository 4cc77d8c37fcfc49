"""From a graph's integers to the fixed-point words of Loihi 2, exactly or not at all.

A population takes a *shift* s: its membranes, thresholds and biases on the chip are 2^s times those of the graph, in words of 24
bits. A weight is a mantissa of 8 bits and, with both signs in one projection, an even one of 9 bits, times a power of two that
the projection shares: weight * 2^s = mantissa * 2^exponent. A bias is a mantissa of 13 bits times a power of two of its own.
A graph of odd 8-bit weights takes s = 1, in which their mantissas are even; one that does not fit is refused. Populations of
kind ``lif`` always take s = 0: their decay is rounded in the unit of the membrane, and a finer one would give other spikes.
Nothing is rounded on the way to Lava: ``round_biases`` gives a graph whose biases fit, for every backend to run.

The widths are those that the models of lava-nc 0.10.0 declare: membranes, graded spikes and thresholds of 24 bits
(``lava/proc/graded/models.py``, ``lava/proc/sdn/models.py``), weights and their signs (``lava/utils/weightutils.py``), biases
(``lava/proc/lif/models.py``). The exponents are those of nengo-loihi 1.1 (``SynapseConfig.real_weight_exp`` in
nengo_loihi/block.py: 6 more than the chip's own, which go up to 7). Lava itself checks none of them: it wraps, clips or cuts
without a word. Its own LIF and Sparse are narrower still (``STOCK``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import BackendError, MembraneOverflowError
from sparsespike.export.connections import Connection, CSRConnection
from sparsespike.export.graph import Key, Population, SpikingGraph
from sparsespike.export.population import NEVER

WORD_LIMIT = 2**23 - 1
"""Largest magnitude of membranes, thresholds, currents, and what a graded spike carries: 24 bits with the sign."""
BIAS_LIMITS = (-(2**12), 2**12 - 1)
"""Bias mantissas: 13 bits with the sign."""
BIAS_EXPONENTS = range(8)
UNREACHABLE = 2**31 - 1
"""The threshold of a neuron that never fires, in int32: no 24-bit membrane reaches it."""

_PART = 2**22
_FEWER_BITS = "convert with --bits 8"
_SMALLER_UNITS = "convert with fewer bits or for a smaller range of input values"
_ELSEWHERE = "or use the backend 'lava'"
_UNIT_ADVICE = f"{_SMALLER_UNITS}, {_ELSEWHERE}"


@dataclass(frozen=True)
class Format:
    """What processes take.

    Attributes
    ----------
    shifts : range
        Shifts of a population that are tried.
    exponents : range
        Powers of two that the weights of a projection may share.
    threshold_bits : int
        Low bits of a threshold that must be zero.
    threshold_limit : int
        Largest threshold, as a word.
    """

    shifts: range
    exponents: range
    threshold_bits: int
    threshold_limit: int


PROGRAMMED = Format(shifts=range(8), exponents=range(14), threshold_bits=0, threshold_limit=WORD_LIMIT)
"""Neurons of Loihi 2 that are programmed: those of this package."""
STOCK = Format(shifts=range(6, 8), exponents=range(6, 14), threshold_bits=6, threshold_limit=(2**17 - 1) << 6)
"""LIF and Sparse of Lava: currents and 17-bit thresholds are aligned by 6 bits, and Sparse cuts bits where the shared exponent is
negative."""


@dataclass(frozen=True)
class Layout:
    """How a graph is laid out in fixed-point words.

    Attributes
    ----------
    shifts : mapping of population to int
        Of every population but the input: word = graph's integer * 2^shift.
    exponents : mapping of (pre, post) to int
        Of the power of two that the weights of a projection share.
    """

    shifts: Mapping[str, int]
    exponents: Mapping[Key, int]

    def mantissas(self, graph: SpikingGraph, key: Key) -> CSRConnection:
        """The weights of a projection as mantissas, convolutions expanded."""
        csr = graph.projection(*key).connection.to_csr()
        scaled = csr.values.astype(np.int64) << self.shifts[key[1]] >> self.exponents[key]
        return CSRConnection(csr.pointers, csr.indices, scaled.astype(np.int32), csr.n_post)


class Misfit(NamedTuple):
    """What of a graph does not fit the words of a chip, and what helps."""

    found: str
    remedy: str


def fixed_layout(graph: SpikingGraph, format: Format = PROGRAMMED) -> tuple[Layout, list[str]]:
    """The layout, and reasons why the graph has none; the layout holds if there are no reasons."""
    layout, misfits = lay_out(graph, format)
    return layout, [f"{found}; {remedy}, {_ELSEWHERE}" for found, remedy in misfits]


def lay_out(graph: SpikingGraph, format: Format, *, injected: bool = False) -> tuple[Layout, list[Misfit]]:
    """The layout, and what of the graph does not fit it.

    Of the shifts at which the weights into a population fit, the smallest leaves its membrane the widest range.

    Parameters
    ----------
    graph : SpikingGraph
    format : Format
    injected : bool
        Whether the input is computed elsewhere, so that its values and weights may be of any size.
    """
    shifts: dict[str, int] = {}
    exponents: dict[Key, int] = {}
    misfits: list[Misfit] = []
    source = graph.input
    for name in graph.spiking if injected else (source.name, *graph.spiking):
        misfits += _wide_messages(graph.population(name))
    for name in graph.order:
        if name == source.name:
            continue
        population = graph.population(name)
        into = [projection for projection in graph.into(name) if not (injected and projection.pre == source.name)]
        weights = {projection.key: distinct_weights(projection.connection) for projection in into}
        for shift in _shifts(population, format):
            found = _exponents(weights, shift, format)
            if found is not None:
                shifts[name] = shift
                exponents |= found
                misfits += _problems(population, shift, format)
                break
        else:
            misfits += _wide_weights(population, weights, format)
    return Layout(shifts, exponents), misfits


def _shifts(population: Population, format: Format) -> range:
    """Shifts that may be tried."""
    return range(1) if population.kind == "lif" else format.shifts


def _exponents(weights: Mapping[Key, NDArray[np.int64]], shift: int, format: Format) -> dict[Key, int] | None:
    """Exponents of all projections into a population at a shift; None if the weights of one do not fit."""
    exponents = {key: weight_exponent(values, shift, format.exponents) for key, values in weights.items()}
    found = {key: exponent for key, exponent in exponents.items() if exponent is not None}
    return found if len(found) == len(exponents) else None


def weight_exponent(weights: NDArray[np.int64], shift: int, exponents: range) -> int | None:
    """The smallest exponent at which all weights of a connection are mantissas, or None if there is none."""
    words = weights << shift
    mixed = bool((words > 0).any() and (words < 0).any())
    low, high = (-256, 254) if mixed else (-255, 255)
    for exponent in exponents:
        step = 2**exponent
        if np.any(words % (2 * step if mixed else step)):
            return None
        if low * step <= words.min(initial=0) and words.max(initial=0) <= high * step:
            return exponent
    return None


def distinct_weights(connection: Connection) -> NDArray[np.int64]:
    """Every weight of a connection, once; of large ones there are far fewer than synapses."""
    values = (connection.values if isinstance(connection, CSRConnection) else connection.kernel).ravel()
    parts = [np.unique(values[first : first + _PART]) for first in range(0, len(values), _PART)]
    return np.unique(np.concatenate(parts)).astype(np.int64) if parts else np.zeros(0, np.int64)


def _wide_weights(population: Population, weights: Mapping[Key, NDArray[np.int64]], format: Format) -> list[Misfit]:
    found = []
    unit = ", in the unit of a membrane that leaks (even where both signs occur)" if population.kind == "lif" else ""
    for (pre, post), values in weights.items():
        if all(weight_exponent(values, shift, format.exponents) is None for shift in _shifts(population, format)):
            found.append(
                f"projection {pre!r} -> {post!r} has weights {values.min()}..{values.max()}, expected mantissas of 8 bits with "
                f"one exponent{unit}"
            )
    if not found:
        found.append(f"the projections into population {population.name!r} have weights of units too far apart for one membrane")
    return [Misfit(each, _FEWER_BITS) for each in found]


def _wide_messages(population: Population) -> Iterator[Misfit]:
    """What a population's spikes cannot carry."""
    if population.value_range is not None:
        carried = max(-population.value_range[0], population.value_range[1])
    elif population.kind == "aec":
        carried = int(max(population.tables[f"{spike}_payload"].max() for spike in ("primary", "compensation")))
    else:
        return
    if carried > WORD_LIMIT:
        yield Misfit(
            f"population {population.name!r} emits values up to {carried}, expected at most {WORD_LIMIT} (24 bits with the sign)",
            _SMALLER_UNITS,
        )


def _problems(population: Population, shift: int, format: Format) -> Iterator[Misfit]:
    """What of a population does not fit at a shift."""
    unit = 2**shift
    name = f"population {population.name!r}"
    for field, thresholds in threshold_fields(population).items():
        used = thresholds[thresholds < NEVER]
        limit = format.threshold_limit // unit  # shifts are at least threshold_bits, so that none of a threshold's is lost
        if used.max(initial=0) > limit:
            bits = (format.threshold_limit >> format.threshold_bits).bit_length()
            yield Misfit(f"{name} has a {field} of {used.max()}, expected at most {limit} ({bits} bits)", _SMALLER_UNITS)
    if np.abs(population.v_init).max() > WORD_LIMIT // unit:
        start = np.abs(population.v_init).max()
        yield Misfit(
            f"{name} starts with a membrane of {start}, expected at most {WORD_LIMIT // unit} (24 bits with the sign)",
            _SMALLER_UNITS,
        )
    misfits = population.bias[~is_bias(population.bias, shift)]
    if len(misfits):
        worst = misfits[np.argmax(np.abs(misfits))]
        yield Misfit(
            f"{name} has a bias of {worst}, {bias_expectation(shift)}",
            f"round the biases in the graph (sparsespike.backends.lava.fixed.round_biases), or {_SMALLER_UNITS}",
        )


def threshold_fields(population: Population) -> dict[str, NDArray[np.int64]]:
    """Every threshold of a population, by its name."""
    fields = {field: getattr(population, field) for field in ("threshold", "threshold_neg")}
    fields |= {field: table for field, table in population.tables.items() if field.endswith("threshold")}
    return {field: values for field, values in fields.items() if values is not None}


def is_bias(values: NDArray[np.int64], shift: int) -> NDArray[np.bool_]:
    """Whether values of the graph are a bias mantissa times 2^exponent in words of a shift; same shape."""
    fits = np.zeros(values.shape, bool)
    small = np.abs(values) <= WORD_LIMIT
    words = np.where(small, values, 0) << shift
    low, high = BIAS_LIMITS
    for exponent in BIAS_EXPONENTS:
        mantissas = words >> exponent
        fits |= (mantissas << exponent == words) & (mantissas >= low) & (mantissas <= high)
    return fits & small


def round_biases(graph: SpikingGraph) -> SpikingGraph:
    """The same graph with every bias rounded to the nearest mantissa of 13 bits times a power of two, for all backends to run.

    Raises
    ------
    BackendError
        If a bias is too large even so, or the weights into a population do not fit.
    """
    shifts = fixed_layout(graph)[0].shifts
    populations = []
    for population in graph.populations:
        if population.kind != "input":
            if population.name not in shifts:
                weights = {p.key: distinct_weights(p.connection) for p in graph.into(population.name)}
                misfits = _wide_weights(population, weights, PROGRAMMED)
                raise BackendError(f"round_biases: {'; '.join(f'{found}; {remedy}' for found, remedy in misfits)}")
            population = replace(population, bias=_rounded(population, shifts[population.name]))
        populations.append(population)
    return SpikingGraph(
        populations, graph.projections, {**graph.provenance, "biases": "mantissas of 13 bits times powers of two"}
    )


def _rounded(population: Population, shift: int) -> NDArray[np.int64]:
    """The biases of a population that fit, each the nearest to its own; of two as near, the one of the even mantissa."""
    bias = population.bias
    result, missing = bias.copy(), ~is_bias(bias, shift)
    for exponent in range(shift + 1, len(BIAS_EXPONENTS)):
        step = 2 ** (exponent - shift)
        down = bias // step
        odd_half = (2 * (bias - down * step) == step) & (down % 2 == 1)
        mantissas = down + ((2 * (bias - down * step) > step) | odd_half)
        fits = missing & is_bias(mantissas * step, shift)
        result[fits] = (mantissas * step)[fits]
        missing &= ~fits
    if missing.any():
        worst = bias[missing][np.argmax(np.abs(bias[missing]))]
        raise BackendError(
            f"round_biases: population {population.name!r} has a bias of {worst}, {bias_expectation(shift)}; {_UNIT_ADVICE}"
        )
    return result


def bias_expectation(shift: int) -> str:
    """What ``is_bias`` asks for, in words."""
    return (
        f"expected a mantissa of 13 bits times a power of two: {BIAS_LIMITS[0]}..{BIAS_LIMITS[1]}, and beyond it what such "
        f"powers divide, up to {(BIAS_LIMITS[1] << BIAS_EXPONENTS[-1]) >> shift}"
    )


def check_injected(graph: SpikingGraph, name: str, injected: NDArray[np.int64], layout: Layout) -> None:
    """Refuse currents that would be injected into a population, shape (B, N), unless they fit its bias registers.

    Raises
    ------
    BackendError
        Naming image and neuron.
    """
    population, shift = graph.population(name), layout.shifts[name]
    later = population.bias * (population.bias_mode == "every_step") + injected * (graph.input.bias_mode == "every_step")
    # Of kind lif what is injected joins the current and the bias the membrane: two registers.
    for register in (injected,) if population.kind == "lif" else (population.bias + injected, later):
        wrong = np.argwhere(~is_bias(register, shift))
        if len(wrong):
            image, neuron = wrong[0]
            raise BackendError(
                f"backend 'lava-fixed': population {name!r}, image {image}, neuron {neuron}: the current of the input and the "
                f"bias are {register[image, neuron]} together, {bias_expectation(shift)}; run the input inside: input='events'"
            )


def words(values: NDArray[Any], shift: int) -> NDArray[np.int32]:
    """Values of the graph as words; a threshold that is never reached stays out of reach."""
    wide = np.asarray(values, np.int64)
    return np.where(wide >= NEVER, UNREACHABLE, np.where(wide >= NEVER, 0, wide) << shift).astype(np.int32)


def check_words(values: NDArray[Any], limit: int, *, where: str, what: str, first_image: int, step: int) -> None:
    """Refuse words that leave their width; a chip would wrap or clip them.

    Parameters
    ----------
    values : int array, shape (rows, N)
        Of ``rows`` images from ``first_image`` on.
    limit : int
        Largest magnitude.
    where, what : str
        Object and quantity, for the message.
    step : int
        Local step.

    Raises
    ------
    MembraneOverflowError
        Naming image, step and neuron.
    """
    if values.size and (values.max() > limit or values.min() < -limit):
        row, neuron = np.unravel_index(np.argmax(np.abs(values.astype(np.int64))), values.shape)
        raise MembraneOverflowError(
            f"{where}, image {first_image + row}, local step {step}: the {what} of neuron {neuron} is the word "
            f"{values[row, neuron]}, expected at most {limit} ({limit.bit_length() + 1} bits with the sign); {_UNIT_ADVICE}"
        )
