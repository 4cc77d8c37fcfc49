"""``sparsespike doctor``: which backends and extras work here, and what to do about those that do not."""

from __future__ import annotations

import importlib
import importlib.metadata
import platform
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from typing import Annotated, Any

import numpy as np
import typer

from sparsespike.backends.base import RunResult
from sparsespike.backends.lava.environment import lava_python, lava_version
from sparsespike.backends.lava.install import install_lava
from sparsespike.backends.registry import NAMES, backend_names, distributions, get_backend, hidden
from sparsespike.cli.console import err, print_json, print_table
from sparsespike.common.errors import SparseSpikeError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

EXTRAS = {
    "torch": "train",
    "torchvision": "train",
    "sklearn": "train",
    "brian2": "brian2",
    "lava.magma": "lava",
    "matplotlib": "report",
    "nir": "nir",
}
DISTRIBUTIONS = {"sklearn": "scikit-learn", "lava.magma": "lava-nc"}
SLOW = "brian2-cython"
"""The backend that is run if asked for: it compiles for a minute or two."""
STEPS = 8


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    what: str
    works: bool
    found: str
    advice: str = ""


def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
    install: Annotated[
        bool, typer.Option("--install-lava", help="First make an environment for Lava: Python 3.10 with lava-nc, about 400 MB.")
    ] = False,
    slow: Annotated[
        bool, typer.Option("--slow", help="Run brian2-cython too, which compiles for a minute or two the first time.")
    ] = False,
) -> None:
    """Run a small network on every backend, for real, and check the optional packages.

    Lava runs on Python 3.10 alone. On another Python, --install-lava makes an environment of its own for it, in which the
    backends lava and lava-fixed then run. Backends of other packages are run like our own.

    The backend brian2-cython is run with --slow alone.

    Exit code 1 if a backend is installed but gives wrong results; a missing extra is advice, not an error.

    Example: sparsespike doctor
    """
    if install:
        with err.status("installing Lava"):
            python = install_lava()
        err.print(f"Lava is installed: {python}", highlight=False, markup=False)
    findings = [_python(), *(_package(module) for module in EXTRAS), *_torch_kernels(), _compiler(), _native_kernel()]
    expected: RunResult | None = None
    for name in backend_names():
        if name == SLOW and not slow:
            findings.append(_not_run(name))
            continue
        with err.status(f"running a small network on {name}"):
            finding, result = _backend(name, expected)
        expected = expected or result
        findings.append(finding)
    findings += [Finding("backend of another package", False, "hidden", message) for message in hidden()]
    if as_json:
        print_json([asdict(finding) for finding in findings])
    else:
        rows = [(f.what, "ok" if f.works else "no", f.found, f.advice) for f in findings]
        print_table(f"sparsespike {importlib.metadata.version('sparsespike')}", ("what", "", "found", "what to do"), rows)
    if any(finding.found.startswith("wrong") for finding in findings):
        raise typer.Exit(1)


def _python() -> Finding:
    version = platform.python_version()
    if sys.version_info[:2] == (3, 10) or _lava() is not None:
        return Finding("python", True, version)
    return Finding("python", True, version, "Lava 0.10.0 runs on Python 3.10 only: sparsespike doctor --install-lava")


def _lava() -> str | None:
    """Version of the Lava that its backends use, and where it is if not here; None if there is none."""
    python = lava_python()
    try:
        version = lava_version(python)
    except SparseSpikeError:
        return None
    return version if python == sys.executable else f"{version}, in {python}"


def _package(module: str) -> Finding:
    extra = EXTRAS[module]
    name = DISTRIBUTIONS.get(module, module)
    if extra == "lava" and (lava := _lava()):
        return Finding(name, True, lava)
    advice = f"pip install 'sparsespike[{extra}]'" + (" (on Python 3.10)" if extra == "lava" else "")
    try:
        # Lava and Brian2 change the whole process when imported: their backends import them where that does no harm.
        version = importlib.metadata.version(name)
        if module not in ("lava.magma", "brian2"):
            importlib.import_module(module)
    except importlib.metadata.PackageNotFoundError:
        return Finding(name, False, "not installed", advice)
    except Exception as error:  # a broken installation can raise anything at import; the report must still be made
        return Finding(name, False, f"{version}, but its import fails: {error}", f"reinstall: {advice}")
    return Finding(name, True, version)


def _torch_kernels() -> list[Finding]:
    try:
        mkl = importlib.import_module("torch.backends.mkl")
    except ImportError:
        return []
    if mkl.is_available():
        return [Finding("torch sparse kernels", True, "MKL")]
    return [
        Finding("torch sparse kernels", True, "torch was built without MKL", "training uses the numba kernels, which need none")
    ]


def _compiler() -> Finding:
    path = next((found for name in ("g++", "clang++", "c++") if (found := shutil.which(name))), None)
    if path:
        return Finding("C++ compiler", True, path)
    return Finding("C++ compiler", False, "none", "needed by brian2-cython and brian2-cpp only; Debian, Ubuntu: apt install g++")


def _native_kernel() -> Finding:
    from sparsespike.backends.native.library import available  # numba comes with it, and takes long to import

    library, what = available()
    if library is not None:
        return Finding("native kernel", True, what)
    advice = "numba is used, slower for whole test sets; install a C compiler and reinstall sparsespike"
    return Finding("native kernel", True, f"numba; the compiled kernel: {what}", advice)


def _not_run(name: str) -> Finding:
    """What is known of a backend without running it."""
    try:
        get_backend(name)
    except SparseSpikeError as error:
        return Finding(f"backend {name}", False, type(error).__name__, str(error))
    return Finding(
        f"backend {name}", True, "installed, not run", "sparsespike doctor --slow runs it: a minute or two of compiling"
    )


def _backend(name: str, expected: RunResult | None) -> tuple[Finding, RunResult | None]:
    """Run the small network; its first result is what the later ones must equal."""
    graph, inputs = small_network()
    author = "sparsespike" if name in NAMES else ", ".join(distributions(name))
    start = time.perf_counter()
    try:
        result = get_backend(name).run(graph, inputs, STEPS, record=graph.spiking)
    except SparseSpikeError as error:
        return Finding(f"backend {name}", False, type(error).__name__, str(error)), None
    except Exception as error:  # a backend of others can raise anything; the report must still be made
        advice = f"{error}; please report this to the authors of {author}"
        return Finding(f"backend {name}", False, type(error).__name__, advice), None
    seconds = time.perf_counter() - start
    if expected is not None and not _same(result, expected):
        advice = f"please report this to the authors of {author}"
        return Finding(f"backend {name}", False, f"wrong: differs from {expected.backend}", advice), result
    return Finding(f"backend {name}", True, f"{result.version}, {result.dtype}, {seconds:.1f} s for the small network"), result


def _same(a: RunResult, b: RunResult) -> bool:
    pairs: list[tuple[Any, Any]] = [(a.readout, b.readout)]
    pairs += [(a.rasters.get(name), b.rasters[name]) for name in b.rasters]
    pairs += [(a.events_by_step.get(key), b.events_by_step[key]) for key in b.events_by_step]
    return all(np.array_equal(x, y) for x, y in pairs)


def small_network() -> tuple[SpikingGraph, np.ndarray[Any, np.dtype[np.int64]]]:
    """A fixed 6-5-4-3 network with a skip connection, and 3 images for it."""
    generator = np.random.default_rng(7)
    sizes = {"input": 6, "hidden1": 5, "hidden2": 4, "output": 3}

    def connect(pre: str, post: str) -> Projection:
        return Projection(pre, post, CSRConnection.from_scipy(generator.integers(-3, 6, (sizes[pre], sizes[post]))))

    populations = [
        Population(name="input", shape=(6,), kind="input", value_range=(0, 9)),
        Population(name="hidden1", shape=(5,), kind="if", threshold=np.full(5, 24), v_init=np.full(5, 12), bias=np.arange(-2, 3)),
        Population(name="hidden2", shape=(4,), kind="if", threshold=np.full(4, 4), v_init=np.full(4, 2)),
        Population(name="output", shape=(3,), kind="readout"),
    ]
    pairs = [("input", "hidden1"), ("hidden1", "hidden2"), ("hidden2", "output"), ("hidden1", "output")]
    return SpikingGraph(populations, [connect(*pair) for pair in pairs]), generator.integers(0, 10, (3, 6))
