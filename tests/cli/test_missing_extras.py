"""Without the optional packages: what needs one says so at once, and what needs none works.

The packages are hidden from real processes of the command line, and from the interpreters that these start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import nir
import numpy as np
import pytest

from sparsespike.cli.doctor import small_network
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.graphfile import save_graph
from sparsespike.export.nir.reading import read_nir

HIDE = """
import importlib.abc, importlib.metadata, os, sys

hidden = os.environ["HIDDEN_PACKAGES"].split(",")


class Hidden(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in hidden:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


def from_name(name, found=importlib.metadata.Distribution.from_name):
    if name in hidden:
        raise importlib.metadata.PackageNotFoundError(name)
    return found(name)


sys.meta_path.insert(0, Hidden())
importlib.metadata.Distribution.from_name = from_name
"""
EVERYTHING = ("torch", "torchvision", "sklearn", "scikit-learn", "brian2", "lava", "lava-nc", "matplotlib")
PROGRAM = "import sys; from sparsespike.cli.main import main; main()"


class Ended(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Without = Callable[..., Ended]


@pytest.fixture
def without(tmp_path: Path) -> Without:
    """``without(("torch",), "train", ...)`` runs a command in a process of its own that finds no torch."""
    (tmp_path / "hide").mkdir()
    (tmp_path / "hide" / "sitecustomize.py").write_text(HIDE)
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "hide"), "COLUMNS": "200"}

    def run(packages: tuple[str, ...], *arguments: object, program: str = PROGRAM) -> Ended:
        done = subprocess.run(
            [sys.executable, "-c", program, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
            env=environment | {"HIDDEN_PACKAGES": ",".join(packages)},
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def graph_file(tmp_path: Path) -> Path:
    """A graph that takes the test digits."""
    projection = Projection(
        "input", "readout", CSRConnection.from_scipy([[(i + j) % 7 - 3 for j in range(10)] for i in range(64)])
    )
    graph = SpikingGraph(
        [
            Population(name="input", shape=(64,), kind="input", value_range=(0, 16)),
            Population(name="readout", shape=(10,), kind="readout"),
        ],
        [projection],
        {"dataset": "digits"},
    )
    save_graph(graph, tmp_path / "graph.safetensors")
    return tmp_path / "graph.safetensors"


def test_a_network_of_nir_needs_torch_for_convolutions_alone(without: Without, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    ones = np.ones(8)
    leaky = nir.LIF(tau=4e-3 * ones, r=ones, v_leak=0 * ones, v_threshold=ones, v_reset=0 * ones)
    last = nir.Linear(rng.normal(size=(3, 8)))
    nir.write(tmp_path / "flat.nir", nir.NIRGraph.from_list(nir.Affine(rng.normal(size=(8, 5)), rng.normal(size=8)), leaky, last))
    convolution = nir.Conv2d((2, 2), rng.normal(size=(2, 1, 1, 1)), 1, 0, 1, 1, np.zeros(2))
    flatten = nir.Flatten({"input": np.array([2, 2, 2])}, 0, -1)
    nir.write(tmp_path / "convolution.nir", nir.NIRGraph.from_list(convolution, flatten, leaky, last))
    without_torch = partial(without, ("torch", "torchvision"), "convert")
    ended = without_torch("flat.nir", "--dt", 1e-3, "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["digest"] == read_nir(tmp_path / "flat.nir", (0, 255), dt=1e-3).graph.digest()
    refused = without_torch("convolution.nir", "--dt", 1e-3)
    assert refused.code == 2
    assert "package 'torch' cannot be imported" in refused.err
    assert "pip install 'sparsespike[train]'" in refused.err


@pytest.mark.parametrize(
    ("hidden", "command", "package", "extra"),
    [
        (("torch", "torchvision"), ("train", "--out", "run"), "torch", "train"),
        (("torch", "torchvision"), ("convert", "run"), "torch", "train"),
        (("torch", "torchvision"), ("topology", "run"), "torch", "train"),
        (("torch", "torchvision"), ("benchmark", "train", "--out", "runs"), "torch", "train"),
        (("torch", "torchvision"), ("demo", "--out", "demo"), "torch", "train"),
        (("matplotlib",), ("demo", "--out", "demo"), "matplotlib.figure", "report"),
        (("lava", "lava-nc"), ("demo", "--out", "demo"), "lava-nc", "lava"),
        (("sklearn", "scikit-learn"), ("simulate", "graph.safetensors"), "sklearn.datasets", "train"),
        (("brian2",), ("simulate", "graph.safetensors", "--backend", "brian2"), "brian2", "brian2"),
        (("brian2",), ("compare", "graph.safetensors"), "brian2", "brian2"),
        (("lava", "lava-nc"), ("simulate", "graph.safetensors", "--backend", "lava"), "lava-nc", "lava"),
    ],
)
def test_a_missing_extra_is_one_clear_message(
    without: Without,
    graph_file: Path,
    tmp_path: Path,
    hidden: tuple[str, ...],
    command: tuple[str, ...],
    package: str,
    extra: str,
) -> None:
    before = set(tmp_path.iterdir())
    ended = without(hidden, *command)
    assert ended.code == 2
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith("error: ")
    assert f"package {package!r}" in line
    assert f"pip install 'sparsespike[{extra}]'" in line
    assert set(tmp_path.iterdir()) == before  # nothing was begun


def test_the_core_works_without_any_extra_but_the_data(without: Without, graph_file: Path) -> None:
    no_torch = tuple(package for package in EVERYTHING if package not in ("sklearn", "scikit-learn"))
    inspected = without(EVERYTHING, "inspect", graph_file, "--json")
    assert inspected.code == 0, inspected.err
    assert json.loads(inspected.out)["projections"][0]["projection"] == "input -> readout"
    simulated = without(no_torch, "simulate", graph_file, "--images", 3, "--steps", 4, "--json")
    assert simulated.code == 0, simulated.err
    assert json.loads(simulated.out)["reconciled"] is True
    helped = without(EVERYTHING, "--help")
    assert helped.code == 0, helped.err
    assert "doctor" in helped.out


def test_compare_works_without_torch(without: Without, graph_file: Path) -> None:
    ended = without(("torch", "torchvision", "matplotlib"), "compare", graph_file, "--images", 2, "--steps", 3)
    assert ended.code == 0, ended.err
    assert "are equal" in ended.out


def test_doctor_gives_advice_for_all_that_is_missing(without: Without) -> None:
    ended = without(EVERYTHING, "doctor", "--json")
    assert ended.code == 0, ended.err
    findings = {finding["what"]: finding for finding in json.loads(ended.out)}
    for what, extra in (("torch", "train"), ("brian2", "brian2"), ("lava-nc", "lava"), ("matplotlib", "report")):
        assert not findings[what]["works"]
        assert f"sparsespike[{extra}]" in findings[what]["advice"]
    for backend in ("brian2", "brian2-cython", "brian2-cpp", "lava", "lava-fixed"):
        assert not findings[f"backend {backend}"]["works"]
        assert "pip install" in findings[f"backend {backend}"]["advice"]
    assert findings["backend native"]["works"]


def test_the_command_line_loads_no_optional_package(without: Without) -> None:
    """Commands start fast, and an installation of the core has them all."""
    program = f"import sys, sparsespike.cli.main; print(sorted(set(sys.modules) & set({EVERYTHING!r})))"
    assert without((), program=program) == (0, "[]\n", "")


def test_a_graph_that_names_no_data_set_is_asked_for_one(without: Without, tmp_path: Path) -> None:
    """Before anything is loaded."""
    save_graph(small_network()[0], tmp_path / "small.safetensors")
    ended = without(EVERYTHING, "simulate", "small.safetensors")
    assert ended.code == 2
    assert "name one with --data" in ended.err
