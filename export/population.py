"""One population of integer neurons: its kind, thresholds, biases and tables."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import GraphError
from sparsespike.export.connections import frozen_array

Kind = Literal["input", "if", "signed_if", "lif", "aec", "readout"]
BiasMode = Literal["every_step", "once"]
Reset = Literal["subtract", "zero"]
KINDS = get_args(Kind)
SPIKING_KINDS = ("if", "signed_if", "lif", "aec")
AEC_TABLES = ("primary_threshold", "compensation_threshold", "primary_payload", "compensation_payload")
DECAY_UNIT = 4096
"""A decay is a number of 4096ths, as on Loihi: 0 keeps everything, 4096 nothing."""
_DEFAULT: Any = None  # replaced by zeros (v_init, bias), one (scale) or what a docstring says when the population is made
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,99}")
SIZE_LIMIT = 2**31 - 1
"""Largest number of neurons in a population: synapses index them as int32."""
MAGNITUDE_LIMIT = 2**53
"""Largest magnitude of an integer field: float64 backends hold it exactly."""
NEVER = 2**53
"""Threshold of a disabled slot of kind ``aec``: the membranes of such graphs are held below it."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Population:
    """N neurons of one kind; every array is in the population's integer unit (real value = integer * scale).

    Parameters
    ----------
    name : str
        1 to 100 letters, digits, ``_``, ``.`` and ``-``, the first not ``.`` or ``-``.
    shape : (N,) or (C, y, x)
        Neurons are numbered in C order.
    kind : {"input", "if", "signed_if", "lif", "aec", "readout"}
        One local step t of each kind:

        * ``input``: emits its integer value every step (``bias_mode="every_step"``) or once (``"once"``); a zero emits nothing.
        * ``if``: v += I + bias; spike +1 if v >= threshold, then v -= threshold (or v = 0, by ``reset``).
        * ``signed_if``: as ``if``, and spike -1 (v += threshold_neg) if v <= -threshold_neg and the net count so far is > 0.
        * ``lif``: u = decayed(u, decay_current) + I; v = decayed(v, decay_voltage) + u + bias; spike and reset as ``if``. The
          current u is 0 at first. What decays is rounded toward zero (``decayed``), as in Loihi's fixed point.
        * ``aec``: all that arrives in the decode window is summed up silently; in the slots t of the encode window the neuron
          fires a primary spike at the first t with v >= primary_threshold[t], which takes that threshold off v, and after it (in
          the same slot at the earliest) one compensation spike likewise. A spike carries the payload of its slot.
        * ``readout``: v += I + bias, never fires; class = argmax v.
    threshold : int64 array, shape (N,), or None
        Positive; for ``if``, ``signed_if`` (even) and ``lif`` (even or odd: doubling a leaky population would change what is
        rounded) only.
    threshold_neg : int64 array, shape (N,), or None
        Positive; for ``signed_if`` only.
    decay_current, decay_voltage : int64 array, shape (N,), or None
        For ``lif`` only: 4096ths of u and v that are lost in a step, 0 to 4096. ``decay_current`` is 4096 (no memory: u = I)
        where it is not given.
    v_init, bias : int64 array, shape (N,), or None
        Initial membrane and bias; None means zeros.
    bias_mode : {"every_step", "once"}
        When the bias is added (for ``input``: when the value is emitted).
    reset : {"subtract", "zero"}
        What a positive spike does to the membrane.
    scale : float64 array, shape (), (C,) or (N,)
        Real value of one integer unit, per population, channel or neuron; reporting only.
    value_range : (int, int) or None
        For ``input`` only: smallest and largest value that may be injected.
    tables : mapping of str to int64 array, shape (slots,)
        For ``aec`` only: ``primary_threshold``, ``compensation_threshold``, ``primary_payload``, ``compensation_payload``. A slot
        without a spike has the payload 0 and the threshold ``NEVER``. Other primary thresholds are positive, other
        compensation thresholds at least 0 (0 fires whenever the primary spike has gone).

    Raises
    ------
    GraphError
        If a field is missing, superfluous, of the wrong length or out of range.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    threshold: NDArray[np.int64] | None = None
    threshold_neg: NDArray[np.int64] | None = None
    decay_current: NDArray[np.int64] | None = None
    decay_voltage: NDArray[np.int64] | None = None
    v_init: NDArray[np.int64] = _DEFAULT
    bias: NDArray[np.int64] = _DEFAULT
    bias_mode: BiasMode = "every_step"
    reset: Reset = "subtract"
    scale: NDArray[np.float64] = _DEFAULT
    value_range: tuple[int, int] | None = None
    tables: Mapping[str, NDArray[np.int64]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        where = f"population {self.name!r}"
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise GraphError(
                f"{where}: expected a name of 1 to 100 letters, digits, '_', '.' or '-' that starts with none of the last two"
            )
        if self.kind not in KINDS:
            raise GraphError(f"{where}: found kind {self.kind!r}, expected one of {', '.join(KINDS)}")
        if self.bias_mode not in get_args(BiasMode):
            raise GraphError(f"{where}: found bias_mode {self.bias_mode!r}, expected every_step or once")
        if self.reset not in get_args(Reset):
            raise GraphError(f"{where}: found reset {self.reset!r}, expected subtract or zero")
        if len(self.shape) not in (1, 3) or any(int(n) != n or n < 1 for n in self.shape):
            raise GraphError(f"{where}: found shape {self.shape}, expected (N,) or (C, y, x) with sizes >= 1")
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if self.size > SIZE_LIMIT:
            raise GraphError(f"{where}: found {self.size} neurons, expected at most {SIZE_LIMIT}; split the population")
        for name in ("v_init", "bias"):
            self._set(name, np.zeros(self.size, np.int64) if getattr(self, name) is None else getattr(self, name))
        self._check_thresholds(where)
        self._check_decays(where)
        self._check_scale(where)
        self._check_input(where)
        self._check_tables(where)

    def _set(self, name: str, values: Any) -> None:
        array = frozen_array(values, np.int64, f"population {self.name!r}, {name}")
        if array.shape != (self.size,):
            raise GraphError(f"population {self.name!r}, {name}: found shape {array.shape}, expected ({self.size},)")
        object.__setattr__(self, name, _bounded(array, f"population {self.name!r}, {name}"))

    def _check_thresholds(self, where: str) -> None:
        for name, kinds in (("threshold", ("if", "signed_if", "lif")), ("threshold_neg", ("signed_if",))):
            values = getattr(self, name)
            if (values is not None) != (self.kind in kinds):
                raise GraphError(
                    f"{where}: {name} is {'missing' if values is None else 'given'} for kind {self.kind!r}; "
                    f"expected it for {' and '.join(kinds)} only"
                )
            if values is None:
                continue
            self._set(name, values)
            if np.any(getattr(self, name) <= 0):
                at = int(np.argmax(getattr(self, name) <= 0))
                raise GraphError(
                    f"{where}, {name}: found {getattr(self, name)[at]} at neuron {at}, expected > 0; "
                    "remove neurons that can never fire, or fold their constant output"
                )
        if self.threshold is not None and self.kind != "lif" and np.any(self.threshold % 2):
            at = int(np.argmax(self.threshold % 2))
            raise GraphError(
                f"{where}, threshold: found the odd value {self.threshold[at]} at neuron {at}, expected even thresholds "
                "(so that half a threshold is an exact initial membrane)"
            )

    def _check_decays(self, where: str) -> None:
        if self.kind == "lif" and self.decay_current is None:
            object.__setattr__(self, "decay_current", np.full(self.size, DECAY_UNIT))
        for name in ("decay_current", "decay_voltage"):
            values = getattr(self, name)
            if (values is not None) != (self.kind == "lif"):
                raise GraphError(
                    f"{where}: {name} is {'missing' if values is None else 'given'} for kind {self.kind!r}; "
                    "expected it for lif only"
                )
            if values is None:
                continue
            self._set(name, values)
            wrong = (getattr(self, name) < 0) | (getattr(self, name) > DECAY_UNIT)
            if wrong.any():
                at = int(np.argmax(wrong))
                raise GraphError(
                    f"{where}, {name}: found {getattr(self, name)[at]} at neuron {at}, expected 0 (keeps everything) to "
                    f"{DECAY_UNIT} (keeps nothing)"
                )

    def _check_scale(self, where: str) -> None:
        scale = np.array(1.0 if self.scale is None else self.scale, dtype=np.float64)
        if scale.shape not in {(), (self.shape[0],), (self.size,)} or not np.all(np.isfinite(scale) & (scale > 0)):
            raise GraphError(
                f"{where}, scale: found shape {scale.shape}, expected finite values > 0 of shape (), ({self.shape[0]},) "
                f"or ({self.size},)"
            )
        scale.flags.writeable = False
        object.__setattr__(self, "scale", scale)

    def _check_input(self, where: str) -> None:
        if (self.value_range is not None) != (self.kind == "input"):
            raise GraphError(f"{where}: found value_range {self.value_range} for kind {self.kind!r}; expected it for input only")
        if self.value_range is not None:
            low, high = (int(value) for value in self.value_range)
            if not -(2**31) < low <= high < 2**31:
                raise GraphError(
                    f"{where}: found value_range {self.value_range}, expected (low, high) with low <= high, in 32 bits"
                )
            object.__setattr__(self, "value_range", (low, high))
        if self.kind == "input" and (self.v_init.any() or self.bias.any()):
            raise GraphError(f"{where}: found a bias or initial membrane, expected none for kind 'input'")

    def _check_tables(self, where: str) -> None:
        expected = set(AEC_TABLES) if self.kind == "aec" else set()
        if set(self.tables) != expected:
            raise GraphError(f"{where}: found tables {sorted(self.tables)}, expected {sorted(expected)} for kind {self.kind!r}")
        tables = {}
        for name in sorted(self.tables):
            label = f"{where}, table {name}"
            tables[name] = _bounded(frozen_array(self.tables[name], np.int64, label), label)
        if len({table.shape for table in tables.values()}) > 1 or any(t.ndim != 1 or len(t) == 0 for t in tables.values()):
            raise GraphError(f"{where}: expected tables of one equal length >= 1 (slots)")
        for spike in ("primary", "compensation") if tables else ():
            _check_slots(tables[f"{spike}_threshold"], tables[f"{spike}_payload"], f"{where}, {spike}", int(spike == "primary"))
        if tables and (self.bias_mode, self.reset) != ("once", "subtract"):
            raise GraphError(
                f"{where}: found bias_mode {self.bias_mode!r}, reset {self.reset!r}, expected 'once', 'subtract' for kind 'aec'"
            )
        object.__setattr__(self, "tables", tables)

    @property
    def size(self) -> int:
        """Number of neurons N."""
        return math.prod(self.shape)


def decayed(values: NDArray[Any], decay: NDArray[np.int64]) -> NDArray[Any]:
    """``sign(x) floor(|x| (4096 - decay) / 4096)``: what is left of values after a step, rounded toward zero.

    The rule of Loihi's LIF in fixed point (lava-nc 0.10.0, ``PyLifModelBitAcc.subthr_dynamics``). The quotient and the rest of
    4096 are multiplied apart, so that no product leaves the range of ``values``; float64 that holds integers below 2^53 is exact.

    Parameters
    ----------
    values : int64 or float64 array, shape (..., N)
    decay : int64 array, shape (N,)
        0 to 4096.
    """
    keep = DECAY_UNIT - decay
    whole, rest = np.divmod(np.abs(values), DECAY_UNIT)
    left: NDArray[Any] = np.sign(values) * (whole * keep + rest * keep // DECAY_UNIT)
    return left


def _check_slots(threshold: NDArray[np.int64], payload: NDArray[np.int64], where: str, least: int) -> None:
    """Refuse slots that are not either disabled, or of a threshold >= ``least`` and a payload > 0."""
    disabled = threshold == NEVER
    wrong = np.flatnonzero(np.where(disabled, payload != 0, (threshold < least) | (payload < 1) | (payload >= 2**31)))
    if len(wrong):
        slot = int(wrong[0])
        raise GraphError(
            f"{where}: found threshold {threshold[slot]} and payload {payload[slot]} in slot {slot}, expected a threshold >= "
            f"{least} and a payload from 1 to 2^31 - 1, or 2^53 and 0 for a slot without a spike"
        )


def _bounded(array: NDArray[np.int64], label: str) -> NDArray[np.int64]:
    """The array itself, after checking every magnitude against ``MAGNITUDE_LIMIT``."""
    low, high = int(array.min(initial=0)), int(array.max(initial=0))
    if max(-low, high) > MAGNITUDE_LIMIT:
        raise GraphError(f"{label}: found values {low}..{high}, expected magnitudes up to 2^53; rescale the population")
    return array
