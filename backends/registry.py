"""Backends by name. The third-party package behind one is imported when that backend is made."""

from __future__ import annotations

from sparsespike.backends.base import Backend
from sparsespike.common.errors import ConfigError

NAMES = ("native", "brian2", "brian2-cpp", "lava", "lava-fixed")


def get_backend(name: str) -> Backend:
    """The backend called ``name``: ``native``, ``brian2`` (runtime, numpy), ``brian2-cpp`` (C++ standalone), ``lava`` (floating
    point) or ``lava-fixed`` (fixed point, as on Loihi 2).

    Raises
    ------
    ConfigError
        If the name is unknown.
    MissingExtraError
        If the package behind it is not installed.
    """
    if name == "native":
        from sparsespike.backends.native import NativeBackend

        return NativeBackend()
    if name in ("brian2", "brian2-cpp"):
        from sparsespike.backends.brian2 import Brian2Backend

        return Brian2Backend(mode="numpy" if name == "brian2" else "cpp")
    if name in ("lava", "lava-fixed"):
        from sparsespike.backends.lava import LavaBackend

        return LavaBackend(model="floating_pt" if name == "lava" else "fixed_pt")
    raise ConfigError(f"backend {name!r} is unknown; expected one of {', '.join(NAMES)}")
