"""From a graph's integers to the fixed-point words of Loihi 2, exactly or not at all.

A population takes a *shift* s: its membranes, thresholds and biases on the chip are 2^s times those of the graph, in words of 24
bits. A weight is a mantissa of 8 bits and, with both signs in one projection, an even one of 9 bits, times a power of two that
the projection shares; what it adds to a membrane is aligned by 6 bits: weight * 2^s = mantissa * 2^(exponent + 6). Nothing here
rounds: a graph of odd 8-bit weights takes s = 7, in which their mantissas are even; one that does not fit is refused.

Widths are those of the fixed-point models of LIF and Sparse in lava-nc 0.10.0 (``lava/proc/lif/models.py``,
``lava/proc/sparse/models.py``, ``lava/utils/weightutils.py``), which are said there to follow Loihi bit by bit. Lava itself
checks none of them: it wraps, clips or cuts without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import BackendError, MembraneOverflowError
from sparsespike.export.connections import Connection, CSRConnection
from sparsespike.export.graph import Key, Population, SpikingGraph
from sparsespike.export.population import NEVER

WORD_LIMIT = 2**23 - 1
"""Largest magnitude of membranes, aligned currents, and what a graded spike carries: 24 bits with the sign."""
ALIGNMENT = 6
"""Bits by which arriving currents and threshold mantissas are shifted to meet the membrane."""
THRESHOLD_LIMIT = 2**17 - 1
"""Largest threshold mantissa."""
BIAS_LIMITS = (-(2**12), 2**12 - 1)
"""Bias mantissas: 13 bits with the sign."""
EXPONENTS = range(8)
"""Exponents of biases (3 bits) and those of weights that lose no bits."""
SHIFTS = range(8)
UNREACHABLE = 2**31 - 1
"""The threshold of a neuron that never fires, in int32: no 24-bit membrane reaches it."""

_BITS_ADVICE = "convert with --bits 8, or use the backend 'lava', which has no such limit"
_UNIT_ADVICE = "convert with fewer bits or for a smaller range of input values, or use the backend 'lava'"


@dataclass(frozen=True)
class Layout:
    """How a graph is laid out in fixed-point words.

    Attributes
    ----------
    shifts : mapping of population to int
        Of every population but the input: word = graph's integer * 2^shift.
    exponents : mapping of (pre, post) to int
        Shared exponent of a projection's weights.
    """

    shifts: Mapping[str, int]
    exponents: Mapping[Key, int]

    def mantissas(self, graph: SpikingGraph, key: Key) -> CSRConnection:
        """The weights of a projection as mantissas, convolutions expanded."""
        csr = graph.projection(*key).connection.to_csr()
        scaled = csr.values.astype(np.int64) << self.shifts[key[1]] >> (ALIGNMENT + self.exponents[key])
        return CSRConnection(csr.pointers, csr.indices, scaled.astype(np.int32), csr.n_post)


def fixed_layout(graph: SpikingGraph, shifts: range = SHIFTS) -> tuple[Layout, list[str]]:
    """The layout, and reasons why the graph has none; the layout holds if there are no reasons.

    Of the ``shifts`` at which a population fits, the smallest leaves its membrane the widest range.
    """
    taken: dict[str, int] = {}
    exponents: dict[Key, int] = {}
    reasons: list[str] = []
    source = graph.input
    for name in (source.name, *graph.spiking):
        reasons += _message_reasons(graph.population(name))
    for name in graph.order:
        if name == source.name:
            continue
        population = graph.population(name)
        fits = {shift: found for shift in shifts if (found := _exponents(graph, name, shift)) is not None}
        if not fits:
            reasons += _weight_reasons(graph, name, shifts)
            continue
        problems = {shift: list(_problems(population, shift)) for shift in fits}
        taken[name] = min(problems, key=lambda shift: (len(problems[shift]), shift))
        exponents |= fits[taken[name]]
        reasons += problems[taken[name]]
    return Layout(taken, exponents), reasons


def _exponents(graph: SpikingGraph, name: str, shift: int) -> dict[Key, int] | None:
    """Exponents of all projections into a population at a shift; None if the weights of one do not fit."""
    exponents = {projection.key: weight_exponent(projection.connection, shift) for projection in graph.into(name)}
    found = {key: exponent for key, exponent in exponents.items() if exponent is not None}
    return found if len(found) == len(exponents) else None


def weight_exponent(connection: Connection, shift: int) -> int | None:
    """The smallest exponent at which all weights of a connection are mantissas, or None if there is none."""
    words = _weights(connection) << shift
    mixed = bool((words > 0).any() and (words < 0).any())
    low, high = (-256, 254) if mixed else (-255, 255)
    for exponent in EXPONENTS:
        step = 2 ** (ALIGNMENT + exponent)
        if np.any(words % (2 * step if mixed else step)):
            return None
        if low * step <= words.min(initial=0) and words.max(initial=0) <= high * step:
            return exponent
    return None


def _weights(connection: Connection) -> NDArray[np.int64]:
    values = connection.values if isinstance(connection, CSRConnection) else connection.kernel
    return values.astype(np.int64)


def _weight_reasons(graph: SpikingGraph, name: str, shifts: range) -> list[str]:
    reasons = []
    for projection in graph.into(name):
        values = _weights(projection.connection)
        if not any(weight_exponent(projection.connection, shift) is not None for shift in shifts):
            reasons.append(
                f"projection {projection.pre!r} -> {name!r} has weights {values.min()}..{values.max()}, expected mantissas of 8 "
                f"bits with one exponent; {_BITS_ADVICE}"
            )
    return reasons or [
        f"the projections into population {name!r} have weights of units too far apart for one membrane; {_BITS_ADVICE}"
    ]


def _message_reasons(population: Population) -> Iterator[str]:
    """What a population's spikes cannot carry."""
    if population.value_range is not None:
        carried = max(-population.value_range[0], population.value_range[1])
    elif population.kind == "aec":
        carried = int(max(population.tables[f"{spike}_payload"].max() for spike in ("primary", "compensation")))
    else:
        return
    if carried > WORD_LIMIT:
        yield (
            f"population {population.name!r} emits values up to {carried}, expected at most {WORD_LIMIT} (24 bits with the "
            f"sign); {_UNIT_ADVICE}"
        )


def _problems(population: Population, shift: int) -> Iterator[str]:
    """What of a population does not fit at a shift."""
    unit = 2**shift
    name = f"population {population.name!r}"
    for field, thresholds in threshold_fields(population).items():
        used = thresholds[thresholds < NEVER]
        wrong = used[(used * unit % 2**ALIGNMENT != 0) | (used > (THRESHOLD_LIMIT << ALIGNMENT) // unit)]
        if len(wrong):
            yield (
                f"{name} has a {field} of {wrong.max()}, expected multiples of {max(2**ALIGNMENT // unit, 1)} up to "
                f"{(THRESHOLD_LIMIT << ALIGNMENT) // unit} (17 bits); {_UNIT_ADVICE}"
            )
    if np.abs(population.v_init).max() > WORD_LIMIT // unit:
        yield (
            f"{name} starts with a membrane of {np.abs(population.v_init).max()}, expected at most {WORD_LIMIT // unit} (24 bits "
            f"with the sign); {_UNIT_ADVICE}"
        )
    misfits = population.bias[~is_bias(population.bias, shift)]
    if len(misfits):
        worst = misfits[np.argmax(np.abs(misfits))]
        yield f"{name} has a bias of {worst}, {bias_expectation(shift)}; {_UNIT_ADVICE}"


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
    for exponent in EXPONENTS:
        mantissas = words >> exponent
        fits |= (mantissas << exponent == words) & (mantissas >= low) & (mantissas <= high)
    return fits & small


def bias_expectation(shift: int) -> str:
    """What ``is_bias`` asks for, in words."""
    return (
        f"expected a mantissa of 13 bits times a power of two: {BIAS_LIMITS[0]}..{BIAS_LIMITS[1]}, and beyond it what such "
        f"powers divide, up to {(BIAS_LIMITS[1] << EXPONENTS[-1]) >> shift}"
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
    for register in (population.bias + injected, later):
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
