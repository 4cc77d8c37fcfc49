"""Bits and time steps that are chosen by measurement, for `convert` and `simulate`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.ann.data import load
from sparsespike.cli.options import DEFAULT_STEPS, counted_progress, spread
from sparsespike.common.errors import ConfigError
from sparsespike.export.graph import SpikingGraph

if TYPE_CHECKING:
    from sparsespike.export.build import Conversion
    from sparsespike.export.choose_bits import BitsChoice
    from sparsespike.export.choose_steps import StepsChoice

AUTO = "auto"
MARGIN = 0.5
MOST_IMAGES = 1000
"""Images on which a choice is measured, at most."""


@dataclass(frozen=True)
class Wanted:
    """What the options --bits, --margin and --steps of `convert` ask for; None stands for auto.

    Attributes
    ----------
    bits : int or None
    margin : float
    steps : int or None
    """

    bits: int | None
    margin: float
    steps: int | None

    @classmethod
    def read(cls, bits: str, margin: float | None, steps: str | None) -> Wanted:
        """The options' values as typed.

        Raises
        ------
        ConfigError
            If one is malformed, or has no effect.
        """
        if bits != AUTO and margin is not None:
            raise ConfigError("--margin is for --bits auto: give it with that")
        if bits != AUTO and steps not in (None, AUTO):
            raise ConfigError("--steps T is for --bits auto, and --steps auto finds T: a conversion itself has no steps")
        return cls(
            whole_or_auto("--bits", bits),
            MARGIN if margin is None else margin,
            DEFAULT_STEPS if steps is None else whole_or_auto("--steps", steps),
        )

    @property
    def chooses(self) -> bool:
        """Whether something is to be chosen."""
        return self.bits is None or self.steps is None


def whole_or_auto(option: str, text: str) -> int | None:
    """A whole number, or None for auto.

    Raises
    ------
    ConfigError
        If it is neither.
    """
    if text == AUTO:
        return None
    try:
        return int(text)
    except ValueError:
        raise ConfigError(f"{option} {text!r}: expected a whole number or auto") from None


def choose(
    wanted: Wanted,
    convert: Callable[[int], Conversion],
    known: Mapping[str, Any],
    data: str | None,
    chosen: StepsChoice | None = None,
) -> tuple[Conversion, dict[str, BitsChoice | StepsChoice]]:
    """Convert at the bits that are wanted; what was chosen is kept in the graph's provenance under ``choices``.

    Parameters
    ----------
    wanted : Wanted
    convert : callable
        The conversion at a number of bits.
    known : mapping
        What is known of the model, with its training.
    data : str or None
        The data set, if not the one it was trained on.
    chosen : StepsChoice, optional
        The T of an AEC conversion, if it has been chosen already.
    """
    from sparsespike.backends.native import NativeBackend
    from sparsespike.export.choose_bits import choose_bits
    from sparsespike.export.quantise import MAX_BITS

    choices: dict[str, BitsChoice | StepsChoice] = {} if chosen is None else {"steps": chosen}
    steps = wanted.steps
    conversion = convert(wanted.bits or MAX_BITS)
    if not wanted.chooses and chosen is None:
        return conversion, {}
    images, labels = held_out(known.get("training") or {}, data)
    if steps is None:
        choices["steps"] = choice = measured_steps(conversion.graph, images, labels)
        steps = choice.steps
    if wanted.bits is None:
        steps = conversion.graph.slots or steps
        choices["bits"], conversion = choose_bits(convert, images, labels, steps, NativeBackend(), margin=wanted.margin)
    graph = conversion.graph
    kept = {**graph.provenance, "choices": {name: choice.to_dict() for name, choice in choices.items()}}
    return conversion._replace(graph=SpikingGraph(graph.populations, graph.projections, kept)), choices


def chosen_steps(graph: SpikingGraph, steps: str | None, data: str | None) -> tuple[int, StepsChoice | None]:
    """The T of `simulate`: a number, or auto: what the graph says was chosen for it, else measured now.

    An AEC graph has no choice: it runs for its slots.

    Raises
    ------
    ConfigError
        If it is neither a number >= 1 nor auto.
    """
    number = (graph.slots or DEFAULT_STEPS) if steps is None else whole_or_auto("--steps", steps)
    if number is None and graph.slots is not None:
        return graph.slots, None
    if number is not None:
        if number < 1:
            raise ConfigError(f"--steps {number}: expected at least 1, or auto")
        return number, None
    known = _mapping(_mapping(graph.provenance.get("choices")).get("steps")).get("steps")
    if isinstance(known, int) and known >= 1:
        return known, None
    choice = measured_steps(graph, *held_out(_mapping(graph.provenance.get("training")), data))
    return choice.steps, choice


def measured_steps(graph: SpikingGraph, images: NDArray[np.int64], labels: NDArray[np.int64]) -> StepsChoice:
    """The saturation time on these images, with a progress bar."""
    from sparsespike.backends.native import NativeBackend
    from sparsespike.export.choose_steps import choose_steps

    with counted_progress() as progress:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress("choosing T: images", done, len(images))

        return choose_steps(graph, images, labels, NativeBackend(), progress=advance)


def measured_window(convert: Callable[[int], SpikingGraph], known: Mapping[str, Any], data: str | None) -> StepsChoice:
    """The T of an AEC conversion: the saturation time over graphs for every T, with a progress bar."""
    from sparsespike.backends.native import NativeBackend
    from sparsespike.export.choose_steps import LONGEST_WINDOW, choose_window

    images, labels = held_out(known.get("training") or {}, data)
    with counted_progress() as progress:
        done = 0

        def advance(count: int) -> None:
            nonlocal done
            done += count
            progress("choosing T", done, LONGEST_WINDOW)

        return choose_window(convert, images, labels, NativeBackend(counting="computed"), progress=advance)


def held_out(training: Mapping[str, Any], data: str | None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Validation images (training images if none were held out) to choose on, never test images: (B, N) and labels (B,).

    Raises
    ------
    ConfigError
        If no data set is named and the training does not say which one it was.
    """
    name = data or training.get("data")
    if not isinstance(name, str):
        raise ConfigError(
            "it is not known which data set the network was trained on, whose validation images would choose; name one with "
            "--data, or give a number in the place of auto"
        )
    with counted_progress() as progress:
        splits = load(
            name,
            validation=float(training.get("validation", 0.1)),
            seed=int(training.get("seed", 0)),
            progress=progress,
        )
    split = splits.validation if len(splits.validation) else splits.train
    return spread(split, min(len(split), MOST_IMAGES))


def _mapping(value: Any) -> Mapping[str, Any]:
    """A JSON object out of a file, which may hold anything."""
    return value if isinstance(value, dict) else {}
