"""The neurons of a population in Brian2's language.

Everything is a float64 that holds an integer. Numpy adds at repeated indices (``numpy.add.at``) more than ten times faster
where both sides have the same type, so counters and what is added to them are float64 too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from sparsespike.export.bounds import emitted_range
from sparsespike.export.graph import Population

EXACT = 2**52
"""float64 is exact up to 2^53; half of that, so that membrane + current + bias is exact in any order of addition."""

SIGNS: Mapping[str, int] = {"spike": 1, "negative": -1}
"""Brian2's events, and the sign of the spikes that they stand for."""


@dataclass(frozen=True, eq=False)
class Equations:
    """Code of one population.

    Attributes
    ----------
    constants : mapping of str to array, shape (N,)
    variables : tuple of str
        Start at zero.
    drive : str
        Run once a step, before ``events`` are tested.
    events : mapping of str to str
        Condition of each event.
    resets : mapping of str to str
        What an event does to its neuron.
    """

    constants: Mapping[str, NDArray[Any]]
    variables: tuple[str, ...]
    drive: str
    events: Mapping[str, str]
    resets: Mapping[str, str]

    @property
    def declarations(self) -> str:
        """All variables as Brian2 declares them."""
        return "\n".join([*(f"{name} : 1 (constant)" for name in self.constants), *(f"{name} : 1" for name in self.variables)])


def gate(population: Population) -> str:
    """Factor that lets a bias, or an input's value, pass at every step or in an image's first step alone."""
    return "first" if population.bias_mode == "once" else "1"


def input_equations(population: Population, steps: int, injected: str) -> Equations:
    """Neurons that emit ``injected``, an expression; positive and negative values are two events."""
    conditions = {"spike": "value > 0", "negative": "value < 0"}
    events = {event: conditions[event] for event in SIGNS if SIGNS[event] > 0 or emitted_range(population)[0] < 0}
    return Equations({}, ("value",), f"{_first(steps)}\nvalue = {injected}", events, {})


def neuron_equations(
    population: Population, steps: int, *, counters: Sequence[str], injected: str | None, watched: bool
) -> Equations:
    """Neurons of kind ``if``, ``signed_if`` or ``readout``.

    Parameters
    ----------
    population : Population
    steps : int
        Steps T of an image; at its first one the membrane starts anew.
    counters : sequence of str
        Variables that count events between one drive and the next.
    injected : str or None
        Expression of a current from outside.
    watched : bool
        Whether a membrane outside the exact range is an event ``overflow``.
    """
    constants: dict[str, NDArray[Any]] = {"v_init": population.v_init, "bias": population.bias}
    variables = ["v", "arriving", *counters]
    current = " + ".join(["arriving", f"bias*{gate(population)}", *([injected] if injected else [])])
    drive = [_first(steps), f"v = v*(1 - first) + v_init*first + ({current})"]
    drive += [f"{variable} = 0" for variable in ("arriving", *counters)]
    events, resets = {}, {}
    if population.threshold is not None:
        constants["theta"] = population.threshold
        events["spike"] = "v >= theta"
        resets["spike"] = "v -= theta" if population.reset == "subtract" else "v = 0"
    if population.threshold_neg is not None:
        constants["theta_neg"] = population.threshold_neg
        variables.append("net")
        drive.append("net = net*(1 - first)")
        events["negative"] = "v <= -theta_neg and net > 0"
        resets["negative"] = "v += theta_neg\nnet -= 1"
        resets["spike"] += "\nnet += 1"
    if watched:
        events["overflow"] = f"abs(v) >= {EXACT}.0"
    return Equations(constants, tuple(variables), "\n".join(drive), events, resets)


def transmission(event: str, counter: str, *, graded: bool) -> str:
    """What a synapse does when its presynaptic neuron has an event: add its weight to a current, and 1 to a counter.

    The weight is multiplied by the neuron's value if that is ``graded``, else by the event's sign.
    """
    addition = "+= value_pre*w" if graded else "+= w" if SIGNS[event] > 0 else "-= w"
    return f"arriving_post {addition}\n{counter}_post += 1.0"


def _first(steps: int) -> str:
    """1 in the first step of an image, else 0."""
    return f"first = int(t_in_timesteps % {steps} == 0)"
