"""Choose the width of a weight by measurement: as few bits as keep the accuracy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from numpy.typing import NDArray

from sparsespike.backends.base import Backend
from sparsespike.common.errors import ConfigError
from sparsespike.energy.exact import exact
from sparsespike.export.build import Conversion
from sparsespike.export.choose_steps import Progress, correct_by_step
from sparsespike.export.quantise import MAX_BITS, MIN_BITS


@dataclass(frozen=True)
class BitsChoice:
    """Width of a weight that was chosen, and why.

    Attributes
    ----------
    bits : int
    margin : float
        Accuracy that may be lost against the widest, in points of a percent.
    steps : int
        T at which it was measured.
    correct : mapping of bits to int
        Images classified correctly, for the widths that were tried.
    images : int
    """

    bits: int
    margin: float
    steps: int
    correct: Mapping[int, int]
    images: int

    @property
    def rule(self) -> str:
        """In words."""
        below = "" if self.bits == MIN_BITS else ", one bit less is not"
        return (
            f"the least width within {self.margin:g} points of {MAX_BITS} bits at T = {self.steps}, found by halving: this one "
            f"is within{below}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        accuracy = {str(bits): count / self.images for bits, count in sorted(self.correct.items())}
        return {
            "bits": self.bits,
            "margin_points": self.margin,
            "steps": self.steps,
            "accuracy_by_bits": accuracy,
            "images": self.images,
            "rule": self.rule,
        }

    def describe(self) -> str:
        """One sentence."""
        tried = ", ".join(f"{bits}: {100 * count / self.images:.2f} %" for bits, count in sorted(self.correct.items()))
        return f"{self.bits} bits: {self.rule} ({self.images:,} images of {100 / self.images:.2f} points each; {tried})"


def choose_bits(
    convert: Callable[[int], Conversion],
    pixels: NDArray[Any],
    labels: NDArray[Any],
    steps: int,
    backend: Backend,
    *,
    margin: float = 0.5,
    progress: Progress | None = None,
) -> tuple[BitsChoice, Conversion]:
    """The smallest width that keeps the accuracy, and the conversion at that width.

    Parameters
    ----------
    convert : callable
        The conversion at a number of bits.
    pixels, labels, backend, progress
        As in :func:`~sparsespike.export.choose_steps.choose_steps`.
    steps : int
        T.
    margin : float
        Accuracy that may be lost against 24 bits, in points of a percent.

    Raises
    ------
    ConfigError
        If the margin is not a finite number >= 0, or ``steps`` < 1.
    """
    if not 0 <= margin <= 100:
        raise ConfigError(f"margin: found {margin}, expected points of accuracy, 0 to 100")
    if steps < 1:
        raise ConfigError(f"choice of bits: found steps = {steps}, expected at least 1")
    found = {MAX_BITS: convert(MAX_BITS)}
    correct: dict[int, int] = {}

    def within(bits: int) -> bool:
        conversion = convert(bits)
        correct[bits] = correct_by_step(conversion.graph, pixels, labels, steps, backend, progress)[-1]
        lost = Fraction(100 * (correct[MAX_BITS] - correct[bits]), len(labels))
        if lost <= exact(margin):
            found[bits] = conversion
        return lost <= exact(margin)

    correct[MAX_BITS] = correct_by_step(found[MAX_BITS].graph, pixels, labels, steps, backend, progress)[-1]
    too_few, enough = MIN_BITS - 1, MAX_BITS
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        too_few, enough = (too_few, middle) if within(middle) else (middle, enough)
    return BitsChoice(enough, margin, steps, correct, len(labels)), found[enough]
