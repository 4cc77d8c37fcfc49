"""``sparsespike export``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nir
import numpy as np

from sparsespike.backends.testing.lif_cases import lif_population
from sparsespike.cli.doctor import small_network
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.graphfile import save_graph

Run = Callable[..., Any]


def test_export_writes_a_program_and_says_where(sparsespike: Run, tmp_path: Path) -> None:
    graph, _ = small_network()
    save_graph(graph, tmp_path / "graph.safetensors")
    ended = sparsespike("export", tmp_path / "graph.safetensors", "--to", "brian2", "--out", tmp_path / "exported")
    assert ended.code == 0, ended.err
    assert ended.out.split() == [str(tmp_path / "exported" / name) for name in ("run.py", "network.npz")]
    program = (tmp_path / "exported" / "run.py").read_text()
    assert graph.digest() in program
    assert "sparsespike" not in program


def test_export_to_nir_writes_a_network_or_says_what_would_be_lost(sparsespike: Run, tmp_path: Path) -> None:
    graph, _ = small_network()
    save_graph(graph, tmp_path / "soft.safetensors")
    refused = sparsespike("export", tmp_path / "soft.safetensors", "--to", "nir", "--out", tmp_path / "exported")
    assert refused.code != 0
    assert "population 'hidden1': found the reset by subtraction" in " ".join(refused.err.split())
    assert refused.err.rstrip().endswith("Exports to 'lava' and 'brian2' lose nothing")
    assert sparsespike("export", tmp_path / "soft.safetensors", "--to", "lava", "--out", tmp_path / "lava").code == 0
    kept = [replace(p, reset="zero", v_init=None) if p.kind == "if" else p for p in graph.populations]
    save_graph(SpikingGraph(kept, graph.projections), tmp_path / "hard.safetensors")
    ended = sparsespike("export", tmp_path / "hard.safetensors", "--to", "nir", "--out", tmp_path / "exported")
    assert ended.code == 0, ended.err
    assert ended.out.split() == [str(tmp_path / "exported" / "network.nir")]
    assert set(nir.read(str(tmp_path / "exported" / "network.nir")).nodes) >= {"input", "hidden1", "hidden2", "output"}


def test_neurons_that_leak_are_written_to_nir_for_a_step(sparsespike: Run, tmp_path: Path) -> None:
    populations = [
        Population(name="input", shape=(2,), kind="input", value_range=(0, 9)),
        lif_population("hidden", np.array([40, 80]), 1024),
        Population(name="readout", shape=(2,), kind="readout"),
    ]
    eye = CSRConnection.from_scipy(np.eye(2, dtype=np.int64))
    graph = SpikingGraph(populations, [Projection("input", "hidden", eye), Projection("hidden", "readout", eye)])
    save_graph(graph, tmp_path / "leaky.safetensors")
    command = ("export", tmp_path / "leaky.safetensors", "--out", tmp_path / "exported", "--to")
    refused = sparsespike(*command, "nir")
    assert refused.code == 2
    assert "NIR does not round; to write it without the rounding give dt, the time of a step" in " ".join(refused.err.split())
    ended = sparsespike(*command, "nir", "--dt", 1e-3)
    assert ended.code == 0, ended.err
    np.testing.assert_allclose(nir.read(str(tmp_path / "exported" / "network.nir")).nodes["hidden"].tau, 4e-3)
    refused = sparsespike(*command, "lava", "--dt", 1e-3)
    assert refused.code == 2
    assert "--dt is for --to nir" in refused.err


def test_unknown_target_is_one_clear_error(sparsespike: Run, tmp_path: Path) -> None:
    ended = sparsespike("export", tmp_path / "graph.safetensors", "--to", "nest", "--out", tmp_path)
    assert ended.code == 2
    assert "--to 'nest': expected one of brian2" in ended.err
