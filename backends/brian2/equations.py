"""The neurons of a population in Brian2's language.

Membranes and currents are float64 that hold integers.

A step of simulated time is one second, and an image takes ``steps`` seconds: all times are integers, exact as floats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from sparsespike.export.bounds import emitted_range
from sparsespike.export.graph import Population
from sparsespike.export.population import DECAY_UNIT

EXACT = 2**52
"""float64 is exact up to 2^53; half of that, so that membrane + current + bias is exact in any order of addition."""

RASTER: Mapping[str, int] = {"spike": 1, "negative": -1, "primary": 1, "compensation": 2}
"""Brian2's events that are spikes, and what each adds to a raster: a sign, or a bit of kind ``aec``."""

SLOT = "(t_in_timesteps % steps)*second"
"""Argument of the tables of kind ``aec``: the slot within a window."""


@dataclass(frozen=True)
class Event:
    """A condition on a neuron, and the code that runs for the neurons that meet it, before the next event is tested."""

    condition: str
    reset: str = ""


@dataclass(frozen=True, eq=False)
class Equations:
    """Code of one population.

    Attributes
    ----------
    constants : mapping of str to array, shape (N,)
    variables : tuple of str
        One value a neuron, zero at first.
    shared : tuple of str
        One value for all neurons.
    begin : tuple of str
        Statements run before the first step of an image.
    drive : tuple of str
        Statements run once a step, before ``events`` are tested.
    events : mapping of str to Event
        In the order in which they are tested.
    target : str
        The variable to which a synapse adds.
    """

    constants: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    variables: tuple[str, ...] = ()
    shared: tuple[str, ...] = ()
    begin: tuple[str, ...] = ()
    drive: tuple[str, ...] = ()
    events: Mapping[str, Event] = field(default_factory=dict)
    target: str = "arriving"

    @property
    def declarations(self) -> tuple[str, ...]:
        """All variables as Brian2 declares them, one a line."""
        return (
            *(f"{name} : 1 (constant)" for name in self.constants),
            *(f"{name} : 1" for name in self.variables),
            *(f"{name} : 1 (shared)" for name in self.shared),
        )


def input_equations(population: Population, injected: Mapping[int, str]) -> Equations:
    """Neurons that emit a value; positive and negative values are two events.

    Parameters
    ----------
    population : Population
    injected : mapping of int to str
        The image that entered that many windows before, as an expression: a value that arrives later is still the one that
        was sent.
    """
    now = "" if population.bias_mode == "every_step" else " and t_in_timesteps % steps == 0"
    events = {"spike": Event("value0 > 0" + now)}
    if emitted_range(population)[0] < 0:
        events["negative"] = Event("value0 < 0" + now)
    begin = tuple(f"value{windows} = {expression}" for windows, expression in injected.items())
    return Equations(variables=tuple(f"value{windows}" for windows in injected), begin=begin, events=events)


def rate_equations(population: Population, *, injected: str | None, gated: bool, watched: bool) -> Equations:
    """Neurons of kind ``if``, ``signed_if`` or ``readout`` that integrate and fire in the same step.

    Synapses add to the membrane itself: it is tested when all that a step brings is there, so what arrives needs no place of its
    own, nor a pass over the neurons that takes it up.

    Parameters
    ----------
    population : Population
    injected : str or None
        Expression of an image's current from outside.
    gated : bool
        Whether that current flows in the first step alone.
    watched : bool
        Whether a membrane outside the exact range is an event ``overflow``.
    """
    constants: dict[str, NDArray[Any]] = {"v_init": population.v_init}
    variables, first, begin = ["v"], ["v_init"], []
    always: list[str] = []
    if population.bias.any():
        constants["bias"] = population.bias
        (first if population.bias_mode == "once" else always).append("bias")
    if injected is not None and gated:
        first.append(injected)
    elif injected is not None:
        variables.append("current")
        begin.append(f"current = {injected}")
        always.append("current")
    begin.append(f"v = {' + '.join(first)}")
    events = {"overflow": Event(f"abs(v) >= {EXACT}.0")} if watched else {}
    if population.threshold is not None:
        constants["theta"] = population.threshold
        reset = _reset(population) + ("" if population.threshold_neg is None else "\nnet += 1")
        events["spike"] = Event("v >= theta", reset)
    if population.threshold_neg is not None:
        constants["theta_neg"] = population.threshold_neg
        variables.append("net")
        begin.append("net = 0")
        # Tested after a positive spike was taken off the membrane: what that leaves is never negative.
        events["negative"] = Event("v <= -theta_neg and net > 0", "v += theta_neg\nnet -= 1")
    drive = (f"v += {' + '.join(always)}",) if always else ()
    return Equations(constants, tuple(variables), (), tuple(begin), drive, events, target="v")


def leaky_equations(population: Population, *, injected: str | None, gated: bool, watched: bool) -> Equations:
    """Neurons of kind ``lif``; arguments as of ``rate_equations``."""
    assert population.threshold is not None
    assert population.decay_current is not None
    assert population.decay_voltage is not None
    constants: dict[str, NDArray[Any]] = {
        "v_init": population.v_init,
        "theta": population.threshold,
        "keep_u": DECAY_UNIT - population.decay_current,
        "keep_v": DECAY_UNIT - population.decay_voltage,
    }
    begin, variables = ["v = v_init", "u = 0"], ["v", "u", "arriving"]
    currents, membranes, spent = ["arriving"], ["u"], ["arriving"]
    if injected is not None:
        variables.append("current")
        begin.append(f"current = {injected}")
        currents.append("current")
        spent += ["current"] if gated else []
    if population.bias.any():
        constants["bias"] = population.bias
        membranes.append("bias")
    if population.bias.any() and population.bias_mode == "once":
        variables.append("first")
        begin.append("first = bias")
        membranes[-1] = "first"
        spent.append("first")
    drive = (*_decay("u", currents), *_decay("v", membranes), *(f"{name} = 0" for name in spent))
    events = {"overflow": Event(f"abs(v) >= {EXACT}.0 or abs(u) >= {EXACT}.0")} if watched else {}
    events["spike"] = Event("v >= theta", _reset(population))
    return Equations(constants, tuple(variables), (), tuple(begin), drive, events)


def _decay(name: str, joined: Sequence[str]) -> tuple[str, str]:
    """``population.decayed``, and what joins a variable then.

    In two parts, each a multiple of the unit before it is divided, so that no float64 on the way is rounded. (``floor`` would
    have been shorter, but gives 32 bits in numpy.)
    """
    rest = f"rest_{name}*keep_{name}"
    kept = f"(abs({name}) - rest_{name})*keep_{name} + ({rest} - ({rest}) % {DECAY_UNIT})"
    return f"rest_{name} = abs({name}) % {DECAY_UNIT}", f"{name} = sign({name})*({kept})/{DECAY_UNIT} + {' + '.join(joined)}"


def _reset(population: Population) -> str:
    """What a spike does to the membrane."""
    return "v -= theta" if population.reset == "subtract" else "v = 0"


def aec_equations(population: Population, *, injected: str | None, tables: Mapping[str, str]) -> Equations:
    """Neurons of kind ``aec``: what arrives in one window is encoded in the next, while the next image arrives.

    Parameters
    ----------
    population : Population
    injected
        As in ``rate_equations``.
    tables : mapping of str to str
        The function that holds each of the population's tables.
    """
    constants = {"v_start": population.v_init + population.bias}
    begin = (f"v = {' + '.join(['v_start', 'arriving', *([injected] if injected else [])])}", "arriving = 0", "fired = 0")
    drive = tuple(f"{name} = {function}({SLOT})" for name, function in tables.items())
    events = {
        "primary": Event("v >= primary_threshold and fired == 0", "v -= primary_threshold\nfired = 1"),
        "compensation": Event("v >= compensation_threshold and fired == 1", "v -= compensation_threshold\nfired = 2"),
    }
    return Equations(constants, ("v", "arriving", "fired"), tuple(tables), begin, drive, events)


def aec_readout_equations(population: Population, *, injected: str | None) -> Equations:
    """The readout of an AEC graph: its membrane takes up what arrives in the slot in which it does."""
    constants = {"v_start": population.v_init + population.bias}
    begin = (f"v = {' + '.join(['v_start', *([injected] if injected else [])])}",)
    return Equations(constants, ("v",), (), begin, target="v")


def addition(population: Population, event: str, windows: int) -> str:
    """What a synapse adds for an event of its presynaptic neuron, as the right-hand side of an assignment.

    ``windows`` lie between sending and arrival. A payload is the one of the slot in which it arrives, which is the slot in
    which it was sent.
    """
    if population.kind == "input":
        return f"+= value{windows}_pre*w"
    if population.kind == "aec":
        return f"+= {event}_payload_pre*w"
    return "-= w" if RASTER[event] < 0 else "+= w"
