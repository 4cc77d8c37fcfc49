"""``sparsespike export``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsespike.cli.doctor import small_network
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


def test_unknown_target_is_one_clear_error(sparsespike: Run, tmp_path: Path) -> None:
    ended = sparsespike("export", tmp_path / "graph.safetensors", "--to", "nest", "--out", tmp_path)
    assert ended.code == 2
    assert "--to 'nest': expected one of brian2" in ended.err
