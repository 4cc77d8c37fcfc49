"""``sparsespike mapping``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sparsespike.backends.mapping import CHIPS, estimate
from sparsespike.cli.doctor import small_network
from sparsespike.export.graphfile import save_graph

Run = Callable[..., Any]


def test_tables_and_json_say_the_same(sparsespike: Run, tmp_path: Path) -> None:
    graph, _ = small_network()
    save_graph(graph, tmp_path / "graph.safetensors")
    shown = sparsespike("mapping", tmp_path / "graph.safetensors")
    assert shown.code == 0, shown.err
    for text in (
        "Loihi 1: 3 of 128 cores",
        "Loihi 2: at least 1 of 128 cores",
        "not published",
        "4,096",
        "Davies",
        "Assumed: the input",
    ):
        assert text in shown.out
    assert "Obstacles: population 'hidden1' is reset by subtraction, and neurons of Loihi 1 are reset to zero" in shown.out
    printed = sparsespike("mapping", tmp_path / "graph.safetensors", "--chip", "loihi1", "--json")
    assert json.loads(printed.out) == [json.loads(json.dumps(estimate(graph, CHIPS["loihi1"]).to_dict()))]


def test_unknown_chip_is_one_clear_error(sparsespike: Run, tmp_path: Path) -> None:
    ended = sparsespike("mapping", tmp_path / "graph.safetensors", "--chip", "akida")
    assert ended.code == 2
    assert "--chip 'akida': expected one of loihi1, loihi2" in ended.err
