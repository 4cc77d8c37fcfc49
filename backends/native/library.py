"""The compiled kernel ``simd.c``: found, checked and called through ctypes, which lets other threads run meanwhile."""

from __future__ import annotations

import ctypes
import math
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.common.errors import BackendError

VERSION = 3
"""Of the functions and structures below; ``simd.c`` has the same."""
LANES = 64
"""Images side by side: the bits of a word."""
STEPS = 8
"""Steps of a tile: the words of a cache line."""
INSTRUCTION_SETS = ("plain", "AVX2", "AVX-512")
NAME = "sparsespike.backends.native._simd"


class Arrival(ctypes.Structure):
    """A projection as its postsynaptic neurons gather it; see ``simd.c``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("pointers", "sources", "offsets", "weights")),
        ("geometry", ctypes.c_int64 * 6),
        *((name, ctypes.c_void_p) for name in ("room_sources", "room_weights", "positive", "negative")),
        ("n_pre", ctypes.c_int64),
    )


class Departure(ctypes.Structure):
    """A projection as its presynaptic spikes scatter it; see ``simd.c``."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("pointers", "targets", "weights")),
        ("geometry", ctypes.c_int64 * 12),
        *((name, ctypes.c_int64) for name in ("n_pre", "n_post")),
        *((name, ctypes.c_void_p) for name in ("room_targets", "room_weights")),
    )


class Populace(ctypes.Structure):
    """A population and its steps; see ``Population`` in ``simd.c``."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("kind", "zero_reset", "neurons", "steps", "tile", "fresh")),
        ("lanes", ctypes.c_uint64),
        *((name, ctypes.c_void_p) for name in ("membranes", "constant", "threshold", "threshold_neg", "scattered", "net")),
        *((name, ctypes.c_void_p) for name in ("flow", "bias", "decay_current", "decay_voltage")),
        *((name, ctypes.c_void_p) for name in ("positive", "negative", "positive_counts", "negative_counts", "readout")),
    )


@dataclass(frozen=True)
class Library:
    """The loaded kernel.

    Attributes
    ----------
    functions : ctypes library
        ``simd_population`` and the others; arguments as in ``simd.c``.
    isa : int
        Instruction set that is used, an index of ``INSTRUCTION_SETS``; results do not depend on it.
    """

    functions: Any
    isa: int

    @property
    def description(self) -> str:
        """For people."""
        return f"compiled C, {INSTRUCTION_SETS[self.isa]}"


def load() -> Library:
    """The kernel, for the best instruction set of this processor.

    Raises
    ------
    BackendError
        If it is not there, cannot be loaded, or was built from other sources than these.
    """
    library, reason = _found()
    if library is None:
        raise BackendError(
            f"backend 'native': the compiled kernel cannot be used: {reason}; install a C compiler "
            "(Debian, Ubuntu: apt install gcc) and reinstall sparsespike, or choose kernel 'numba'"
        )
    return library


def available() -> tuple[Library | None, str]:
    """The kernel, and what it is; or None, and why it cannot be used."""
    library, reason = _found()
    return library, library.description if library else reason


@cache
def _found() -> tuple[Library | None, str]:
    spec = find_spec(NAME)
    if spec is None or spec.origin is None:
        return None, "it was not built when sparsespike was installed (no C compiler, or one that failed)"
    try:
        functions = ctypes.CDLL(spec.origin)
        version = _declared(functions).simd_version()
    except (OSError, AttributeError) as error:
        return None, f"{spec.origin} cannot be loaded ({error})"
    if version != VERSION:
        return None, f"{spec.origin} has version {version}, expected {VERSION}: it was built from other sources"
    return Library(functions, functions.simd_best()), ""


def _declared(functions: Any) -> Any:
    """Give every function its argument types, so that a wrong call is an error in Python."""
    number, array = ctypes.c_int64, ctypes.c_void_p
    arguments: dict[str, list[Any]] = {
        "simd_version": [],
        "simd_best": [],
        "simd_population": [number, number, number, ctypes.POINTER(Populace), ctypes.POINTER(Arrival), number],
        "simd_scatter": [number, ctypes.POINTER(Departure), array, number, array],
        "simd_values": [number, number, number, ctypes.POINTER(Arrival), array, array],
        "simd_enter": [number, number, number, number, number, array, array, array, array],
        "simd_spread": [number, number, number, array, array],
        "simd_decode": [number, number, array, number, array, array],
        "simd_encode": [number, number, number, ctypes.c_uint64, *[array] * 6],
        "simd_classes": [number, number, number, array, array],
        "simd_sum_counts": [number, number, number, array, array, array],
        "simd_sum_images": [number, number, number, array, array],
        "simd_sum_steps": [number, number, number, number, array, array, array],
        "simd_sum_spikes": [number, number, number, array, array, array],
    }
    for name, types in arguments.items():
        function = getattr(functions, name)
        function.argtypes = types
        function.restype = number if name in ("simd_version", "simd_best") else None
    return functions


def address(array: NDArray[Any] | None) -> int | None:
    """Where a C-contiguous array lies, or None. The caller keeps the array alive for as long as the address is used."""
    if array is None:
        return None
    if not array.flags.c_contiguous:
        raise ValueError("expected a C-contiguous array")
    where: int = array.__array_interface__["data"][0]  # three times as quick as array.ctypes
    return where


class Room:
    """Arrays of one thread, used again for block after block: fresh memory would cost more than what is done in it."""

    def __init__(self) -> None:
        self._buffers: dict[str, NDArray[np.uint8]] = {}

    def zeros(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """Zeros that begin at a cache line, valid until the next call with this name."""
        array = self.empty(name, shape, dtype)
        array.fill(0)
        return array

    def empty(self, name: str, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
        """As ``zeros``, with anything in it."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if name not in self._buffers or len(self._buffers[name]) < size + 63:
            self._buffers.pop(name, None)  # before there is the larger one
            self._buffers[name] = np.empty(size + 63, np.uint8)
        start = -self._buffers[name].ctypes.data % 64
        array: NDArray[Any] = self._buffers[name][start : start + size].view(dtype).reshape(shape)
        return array
