"""What holds for the whole project: doctests run, and importing one part does not pull in what it must not."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import subprocess
import sys

import pytest

import sparsespike.ann
import sparsespike.backends
import sparsespike.cli
import sparsespike.common
import sparsespike.energy
import sparsespike.export
import sparsespike.sweeps

PACKAGES = (
    sparsespike.common,
    sparsespike.ann,
    sparsespike.export,
    sparsespike.backends,
    sparsespike.energy,
    sparsespike.sweeps,
    sparsespike.cli,
)


def _modules() -> list[str]:
    # Some modules are imported in a worker process only, where Lava or Brian2 may change what they want; __main__ runs; the
    # compiled kernel is a library of C functions, which Python does not import.
    return [
        module.name
        for package in PACKAGES
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + ".")
        if not module.name.endswith(("__main__", "worker", "lava.network", "native._simd"))
        and "lava.processes" not in module.name
    ]


@pytest.mark.parametrize("name", _modules())
def test_doctests(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name)).failed == 0


@pytest.mark.parametrize(
    "name",
    [
        "sparsespike.export.graphfile",
        "sparsespike.backends.registry",
        "sparsespike.energy.ledger",
        "sparsespike.sweeps.executors",
        "sparsespike.sweeps.table",
    ],
)
def test_no_torch_behind(name: str) -> None:
    code = f"import sys, {name}; sys.exit('torch' in sys.modules or 'sparsespike.ann' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
