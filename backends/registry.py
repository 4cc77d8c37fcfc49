"""Backends by name. The third-party package behind one is imported when that backend is made."""

from __future__ import annotations

from sparsespike.backends.base import Backend
from sparsespike.common.errors import ConfigError

NAMES = ("native", "brian2", "brian2-cpp", "lava")


def get_backend(name: str) -> Backend:
    """The backend called ``name``: ``native``, ``brian2`` (runtime, numpy), ``brian2-cpp`` (C++ standalone) or ``lava``.

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
    if name == "lava":
        from sparsespike.backends.lava import LavaBackend

        return LavaBackend()
    raise ConfigError(f"backend {name!r} is unknown; expected one of {', '.join(NAMES)}")
