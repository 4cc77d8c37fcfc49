"""Backends by name: our own, and those that other installed packages offer.

A package offers a backend by an entry point of group ``sparsespike.backends``, whose name is the backend's and whose object is
its class, or a function without arguments that makes it::

    [project.entry-points."sparsespike.backends"]
    mine = "my_package:MyBackend"

The package behind a backend, ours or another's, is imported when that backend is made.
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points
from typing import Any

from sparsespike.backends.base import Backend
from sparsespike.common.errors import BackendError, ConfigError, SparseSpikeError

NAMES = ("native", "brian2", "brian2-cython", "brian2-cpp", "lava", "lava-fixed")
"""The built-in backends."""
TIMED = ("brian2-cpp", "lava", "lava-fixed")
"""Those that run in processes of their own, which a time limit can end."""
GROUP = "sparsespike.backends"
"""Group of the entry points by which other packages offer theirs."""


def backend_names() -> tuple[str, ...]:
    """Names of all backends at hand: the built-in ones, then those of other packages in alphabetical order."""
    return (*NAMES, *sorted(set(_offers()) - set(NAMES)))


def distributions(name: str) -> tuple[str, ...]:
    """Names of the installed distributions that offer a backend of this name; those hidden by a built-in name too."""
    return tuple(sorted(map(_distribution, _offers().get(name, ()))))


def hidden() -> tuple[str, ...]:
    """One message for each backend of other packages that a built-in one of the same name hides."""
    return tuple(
        f"backend {name!r} of distribution {', '.join(distributions(name))} is hidden by the built-in one of this name, which is "
        "used; ask its authors for another name"
        for name in NAMES
        if name in _offers()
    )


def get_backend(name: str, *, max_synapses: int | None = None, time_limit: float | None = None) -> Backend:
    """The backend called ``name``: ``native``, ``brian2``, ``brian2-cython`` and ``brian2-cpp`` (Brian2's runtime with numpy
    or Cython, and C++ standalone), ``lava`` (floating point), ``lava-fixed`` (fixed point, as on Loihi 2), or one that another
    package offers. A built-in name is always ours.

    Parameters
    ----------
    name : str
    max_synapses : int, optional
        Limit of the backends that hold every synapse by itself, convolutions expanded (Brian2 and Lava); their own by default.
    time_limit : float, optional
        Seconds for one run of a backend of ``TIMED``; its own by default: none of ``brian2-cpp``, 600 of Lava.

    Raises
    ------
    ConfigError
        If the name is unknown, two packages offer it, a limit is not positive, or a time limit is given to a backend that has
        none.
    MissingExtraError
        If the package behind it is not installed.
    BackendError
        If another package's backend cannot be imported or made, or is none.
    """
    if time_limit is not None and name not in TIMED:
        raise ConfigError(
            f"backend {name!r}: found a time limit of {time_limit:g} s, expected none: only {', '.join(TIMED)} take one, which "
            "run in processes of their own"
        )
    given = {"max_synapses": max_synapses, "time_limit": time_limit}
    limit: dict[str, Any] = {setting: value for setting, value in given.items() if value is not None}
    if name == "native":
        from sparsespike.backends.native import NativeBackend

        return NativeBackend()
    if name in ("brian2", "brian2-cython", "brian2-cpp"):
        from sparsespike.backends.brian2 import Brian2Backend
        from sparsespike.backends.brian2.backend import MODES

        return Brian2Backend(next(mode for mode, of_mode in MODES.items() if of_mode == name), **limit)
    if name in ("lava", "lava-fixed"):
        from sparsespike.backends.lava import LavaBackend

        return LavaBackend(model="floating_pt" if name == "lava" else "fixed_pt", **limit)
    offers = _offers()
    if name not in offers:
        raise ConfigError(f"backend {name!r} is unknown; expected one of {', '.join(backend_names())}")
    if len(offers[name]) > 1:
        found = ", ".join(distributions(name))
        raise ConfigError(f"backend {name!r} is offered by the distributions {found}, expected one; uninstall the others")
    return _make(offers[name][0])


def _offers() -> dict[str, list[EntryPoint]]:
    """Entry points of our group by their name."""
    offers: dict[str, list[EntryPoint]] = {}
    for entry in entry_points(group=GROUP):
        offers.setdefault(entry.name, []).append(entry)
    return offers


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist else "unknown"


def _make(entry: EntryPoint) -> Backend:
    """The backend behind another package's entry point.

    Raises
    ------
    BackendError
        One message that names the distribution.
    """
    where = f"backend {entry.name!r} of distribution {_distribution(entry)} ({entry.value})"
    try:
        factory = entry.load()
    except Exception as error:  # a module of others may raise anything while it is imported
        raise BackendError(f"{where}: its import fails with {type(error).__name__}: {error}; repair or uninstall it") from error
    if not callable(factory):
        raise BackendError(
            f"{where}: found {factory!r}, expected a class, or a function without arguments that makes the backend"
        )
    try:
        backend: Backend = factory()
    except SparseSpikeError:  # says itself what to do, such as which package is missing
        raise
    except Exception as error:  # and so may its class
        raise BackendError(f"{where}: making it fails with {type(error).__name__}: {error}; repair or uninstall it") from error
    missing = [method for method in ("check", "run") if not callable(getattr(backend, method, None))]
    if missing:
        raise BackendError(
            f"{where}: found {type(backend).__name__} without {' and '.join(missing)}, expected the methods of "
            "sparsespike.backends.base.Backend"
        )
    found = getattr(backend, "name", None)
    if found != entry.name:
        raise BackendError(f"{where}: found name = {found!r} in it, expected {entry.name!r}, the name of its entry point")
    return backend
