"""Backends of other packages: real distributions on ``sys.path``, found by their entry points."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsespike.backends.base import RunResult
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.registry import NAMES, backend_names, distributions, get_backend, hidden
from sparsespike.backends.testing import CASES, assert_equal, check_conformance, reference
from sparsespike.common.errors import BackendError, ConfigError, MissingExtraError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.graphfile import save_graph

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_backend"
MODULE = """
from dataclasses import replace

from sparsespike.backends.native import NativeBackend


class Backend(NativeBackend):
    name = "{name}"

    def run(self, graph, inputs, steps, **options):
        return replace(super().run(graph, inputs, steps, **options), backend=self.name)
"""
WRONG = """
from dataclasses import replace

from sparsespike.backends.native import NativeBackend


class Backend(NativeBackend):
    name = "{name}"

    def run(self, graph, inputs, steps, **options):
        result = super().run(graph, inputs, steps, **options)
        readout = result.readout.copy()
        readout[1, 2:, 0] += 1
        return replace(result, backend=self.name, readout=readout)
"""
CRASHES = MODULE + "\n    def run(self, *arguments, **options):\n        raise ZeroDivisionError('at once')\n"

Install = Callable[..., str]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """``install("acme", "mine", source)`` makes distribution acme, which offers the backend ``mine``, importable."""
    modules = []

    def make(distribution: str, name: str, source: str = MODULE, attribute: str = "Backend") -> str:
        site = tmp_path / distribution
        metadata = site / f"{distribution}-1.0.dist-info"
        metadata.mkdir(parents=True)
        module = f"offered_by_{distribution}"
        modules.append(module)
        (site / f"{module}.py").write_text(source.replace("{name}", name))
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[sparsespike.backends]\n{name} = {module}:{attribute}\n")
        monkeypatch.syspath_prepend(site)
        return module

    yield make
    for module in modules:
        sys.modules.pop(module, None)


def network() -> SpikingGraph:
    """A network for the digits: 64 pixels of 0..16, 12 hidden neurons, 10 classes."""
    rng = np.random.default_rng(3)
    return SpikingGraph(
        [
            Population(name="input", shape=(64,), kind="input", value_range=(0, 16)),
            Population(name="hidden", shape=(12,), kind="if", threshold=np.full(12, 90), v_init=np.full(12, 45)),
            Population(name="readout", shape=(10,), kind="readout"),
        ],
        [
            Projection("input", "hidden", CSRConnection.from_scipy(rng.integers(-3, 4, (64, 12)))),
            Projection("hidden", "readout", CSRConnection.from_scipy(rng.integers(-3, 4, (12, 10)))),
        ],
        {"dataset": "digits"},
    )


@pytest.mark.parametrize(
    ("source", "attribute"), [(MODULE, "Backend"), (MODULE + "\n\ndef make():\n    return Backend(threads=1)\n", "make")]
)
def test_a_class_or_a_function_is_a_backend(install: Install, source: str, attribute: str) -> None:
    assert backend_names() == NAMES
    module = install("acme", "mine", source, attribute)
    assert backend_names() == (*NAMES, "mine")
    assert distributions("mine") == ("acme",)
    assert module not in sys.modules  # naming a backend imports nothing
    case = CASES["skips"]()
    assert_equal(get_backend("mine").run(*case), reference(*case))
    assert type(get_backend("mine")).__module__ == module


def test_names_are_in_order(install: Install) -> None:
    for distribution, name in (("acme", "zebra"), ("apex", "ant")):
        install(distribution, name)
    assert backend_names() == (*NAMES, "ant", "zebra")
    with pytest.raises(ConfigError, match=r"'nest' is unknown; expected one of native, .*, lava-fixed, ant, zebra$"):
        get_backend("nest")


def test_a_built_in_name_is_ours(install: Install) -> None:
    install("acme", "native")
    assert backend_names() == NAMES
    assert type(get_backend("native")) is NativeBackend
    (message,) = hidden()
    assert "backend 'native' of distribution acme is hidden by the built-in one" in message


def test_two_distributions_of_one_name(install: Install) -> None:
    install("acme", "mine")
    install("apex", "mine")
    assert backend_names() == (*NAMES, "mine")
    with pytest.raises(ConfigError, match=r"'mine' is offered by the distributions acme, apex, expected one; uninstall"):
        get_backend("mine")


@pytest.mark.parametrize(
    ("source", "attribute", "reason"),
    [
        ("import a_package_that_nobody_has", "Backend", "import fails with ModuleNotFoundError: No module named 'a_package_"),
        ("1 / 0", "Backend", "import fails with ZeroDivisionError: division by zero; repair or uninstall it"),
        (MODULE, "Frontend", "import fails with AttributeError: .*Frontend"),
        ("Backend = 3", "Backend", "found 3, expected a class, or a function"),
        ("def Backend(size): pass", "Backend", "making it fails with TypeError: .*size"),
        ("class Backend:\n    name = 'mine'", "Backend", "found Backend without check and run, expected the methods of"),
        (MODULE + "    run = None", "Backend", "found Backend without run, expected the methods of"),
        (MODULE + "    name = 'native'", "Backend", "found name = 'native' in it, expected 'mine', the name of its entry point"),
    ],
)
def test_a_broken_package_is_named(install: Install, source: str, attribute: str, reason: str) -> None:
    module = install("acme", "mine", source, attribute)
    install("apex", "other")
    where = rf"^backend 'mine' of distribution acme \({module}:{attribute}\): "
    with pytest.raises(BackendError, match=where + ".*" + reason):
        get_backend("mine")
    assert get_backend("other").name == "other"  # the broken one is in nobody's way


def test_what_a_package_misses_it_says_itself(install: Install) -> None:
    source = (
        "from sparsespike.common.errors import MissingExtraError\n\n\ndef Backend():\n    raise MissingExtraError('install it')\n"
    )
    install("acme", "mine", source)
    with pytest.raises(MissingExtraError, match=r"^install it$"):
        get_backend("mine")


def test_the_command_line_runs_them(install: Install, sparsespike: Any, tmp_path: Path) -> None:
    save_graph(network(), tmp_path / "graph.safetensors")
    install("acme", "mine")
    install("apex", "wrong", WRONG)
    chosen = ("--backend", "native", "--backend", "mine")
    for command in ("simulate", "compare"):
        ended = sparsespike(command, tmp_path / "graph.safetensors", "--images", 4, "--steps", 6, *chosen)
        assert ended.code == 0, ended.err
    ended = sparsespike("compare", tmp_path / "graph.safetensors", "--images", 4, "--steps", 6, *chosen, "--backend", "wrong")
    assert ended.code == 1
    assert "membrane of readout (depth 2), image 1, local step 2, neuron 0: native 11, wrong 12" in ended.err


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"backend": "other"}, "backend: found 'other', expected the backend's name"),
        ({"wall_seconds": {"run": 1.0}}, "wall_seconds: found ['run'], expected at least build and run"),
    ],
)
def test_the_suite_wants_what_every_report_needs(fields: dict[str, Any], message: str) -> None:
    class Careless(NativeBackend):
        def run(self, *arguments: Any, **options: Any) -> RunResult:
            return replace(super().run(*arguments, **options), **fields)

    with pytest.raises(AssertionError, match=re.escape(f"backend 'native', case 'single_neuron', input 'events': {message}")):
        check_conformance(Careless())


def test_doctor_runs_them(install: Install, sparsespike: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # no compiler, for speed: that brian2-cpp works is tested elsewhere
    install("acme", "mine")
    install("apex", "wrong", WRONG)
    install("away", "absent", "import a_package_that_nobody_has")
    install("bold", "native")
    install("cute", "crashes", CRASHES)
    ended = sparsespike("doctor", "--json")
    assert ended.code == 1  # for the wrong result
    findings = {finding["what"]: finding for finding in json.loads(ended.out)}
    assert findings["backend mine"]["works"]
    assert findings["backend native"]["works"]
    for what, found, advice in (
        ("backend wrong", "wrong: differs from native", "please report this to the authors of apex"),
        ("backend absent", "BackendError", "distribution away"),
        ("backend crashes", "ZeroDivisionError", "at once; please report this to the authors of cute"),
        ("backend of another package", "hidden", "'native' of distribution bold"),
    ):
        assert not findings[what]["works"]
        assert findings[what]["found"] == found
        assert advice in findings[what]["advice"]


def test_the_example_as_a_user_runs_it() -> None:
    ended = subprocess.run([sys.executable, EXAMPLE / "scipy_backend.py"], capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    first, *lines = ended.stdout.splitlines()
    refused = {name for name, make in CASES.items() if {p.kind for p in make().graph.populations} & {"signed_if", "lif", "aec"}}
    assert first == f"passed {len(CASES) - len(refused)} of {len(CASES)} cases, refused {len(refused)}:"
    assert {line.split(":")[0].strip() for line in lines} == refused
    assert all(any(f"is of kind '{kind}'" in line for kind in ("signed_if", "lif", "aec")) for line in lines)


def test_the_example_as_it_is_installed(install: Install, sparsespike: Any, tmp_path: Path) -> None:
    """Under the name, and from the object, that its pyproject.toml gives."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    ((name, value),) = project["project"]["entry-points"]["sparsespike.backends"].items()
    module, _, attribute = value.partition(":")
    assert project["tool"]["setuptools"]["py-modules"] == [module]
    install("sparsespike_scipy", name, (EXAMPLE / f"{module}.py").read_text(), attribute)
    save_graph(network(), tmp_path / "graph.safetensors")
    both = ("--backend", "native", "--backend", name, "--images", 4, "--steps", 6)
    for mode in ("events", "current"):
        ended = sparsespike("simulate", tmp_path / "graph.safetensors", *both, "--input", mode)
        assert ended.code == 0, ended.err
    assert sparsespike("compare", tmp_path / "graph.safetensors", *both).code == 0
    assert set(check_conformance(get_backend(name))) < set(CASES)
