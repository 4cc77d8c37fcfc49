"""``--time-limit`` reaches the backends that run in processes of their own, and is refused where none does."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparsespike.backends.lava import LavaBackend
from sparsespike.backends.registry import get_backend
from sparsespike.common.errors import ConfigError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.graphfile import save_graph

Run = Callable[..., Any]


@pytest.fixture
def graph(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Digits to three spiking neurons; no C++ program of it is in the cache."""
    monkeypatch.setenv("SPARSESPIKE_CACHE", str(tmp_path / "cache"))
    populations = [
        Population(name="input", shape=(64,), kind="input", value_range=(0, 16)),
        Population(name="hidden", shape=(3,), kind="if", threshold=[40, 80, 120]),
        Population(name="readout", shape=(10,), kind="readout"),
    ]
    projections = [
        Projection("input", "hidden", CSRConnection.from_scipy([[1, 2, -1]] * 64)),
        Projection("hidden", "readout", CSRConnection.from_scipy([[1] * 10] * 3)),
    ]
    path = tmp_path / "graph.safetensors"
    save_graph(SpikingGraph(populations, projections, {"dataset": "digits"}), path)
    return path


@pytest.mark.parametrize(
    ("backend", "message"),
    [
        ("brian2-cpp", "the build of the C++ program was ended when the time limit of 0.1 s was over"),
        ("lava", "backend 'lava': the run took longer than its time limit of 0.1 s and was ended"),
        ("lava-fixed", "backend 'lava-fixed': the run took longer than its time limit of 0.1 s and was ended"),
    ],
)
def test_a_run_beyond_the_limit_is_one_message_that_names_the_option(
    backend: str, message: str, sparsespike: Run, graph: Path
) -> None:
    ended = sparsespike("compare", graph, "--backend", "native", "--backend", backend, "--images", 1, "--time-limit", 0.1)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
    assert "or allow more: --time-limit SECONDS" in " ".join(ended.err.split())


def test_a_run_without_any_limit(sparsespike: Run, graph: Path) -> None:
    ended = sparsespike("simulate", graph, "--backend", "lava", "--images", 1, "--steps", 3, "--time-limit", "inf", "--json")
    assert ended.code == 0, ended.err
    assert json.loads(ended.out)["reconciled"]


def test_a_limit_for_backends_without_one_is_refused(sparsespike: Run, graph: Path) -> None:
    ended = sparsespike("simulate", graph, "--backend", "native", "--backend", "brian2", "--time-limit", 60)
    assert ended.code == 2
    assert "--time-limit: found backends native, brian2, which have none; it is for brian2-cpp, lava, lava-fixed" in ended.err
    with pytest.raises(ConfigError, match=r"backend 'native': found a time limit of 60 s, expected none: only brian2-cpp, lava"):
        get_backend("native", time_limit=60)


def test_a_limit_that_is_no_time_is_refused(sparsespike: Run, graph: Path) -> None:
    ended = sparsespike("simulate", graph, "--backend", "lava", "--time-limit", 0)
    assert ended.code == 2
    assert "backend 'lava': found time_limit = 0.0, expected seconds > 0" in ended.err
    with pytest.raises(ConfigError, match="found time_limit = nan"):
        LavaBackend(time_limit=float("nan"))
