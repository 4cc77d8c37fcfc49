"""``sparsespike mapping``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsespike.backends.mapping import CHIPS, estimate
from sparsespike.backends.native import NativeBackend
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
        "Loihi 2: at least 1 of 128 cores, a lower bound of cores alone",
        "not published",
        "4,096",
        "Davies",
        "Assumed: the input",
    ):
        assert text in shown.out
    assert "Obstacles: population 'hidden1' is reset by subtraction, and neurons of Loihi 1 are reset to zero" in shown.out
    printed = sparsespike("mapping", tmp_path / "graph.safetensors", "--chip", "loihi1", "--json")
    assert json.loads(printed.out) == [json.loads(json.dumps(estimate(graph, CHIPS["loihi1"]).to_dict()))]


def test_limits_that_are_not_verified_are_marked(sparsespike: Run, tmp_path: Path) -> None:
    save_graph(small_network()[0], tmp_path / "graph.safetensors")
    lines = sparsespike("mapping", tmp_path / "graph.safetensors").out.splitlines()
    for chip in CHIPS.values():
        start = next(i for i, line in enumerate(lines) if line == f"Limits of {chip.name}")
        for name, limit in chip.limits.items():
            row = next(line for line in lines[start:] if line.split()[:1] == [name])
            marks = [word for word in row.split() if word in ("yes", "no")]
            assert marks == ([] if limit is None else ["yes" if limit.verified else "no"])


def test_messages_of_the_mean_image(sparsespike: Run, tmp_path: Path) -> None:
    graph, inputs = small_network()
    save_graph(graph, tmp_path / "graph.safetensors")
    np.save(tmp_path / "inputs.npy", inputs)
    arguments = ("mapping", tmp_path / "graph.safetensors", "--chip", "loihi1", "--json")
    shown = sparsespike(*arguments, "--data", tmp_path / "inputs.npy", "--images", len(inputs), "--steps", 8)
    assert shown.code == 0, shown.err
    run = NativeBackend().run(graph, inputs, 8)
    for row in json.loads(shown.out)[0]["populations"]:
        name = row["name"]
        if name == graph.readout.name:
            assert row["messages_per_image"] is None
            continue
        # One core each, so a spike is one message to every population that hears its neuron.
        heard = sum(np.minimum(projection.connection.fan_out, 1) for projection in graph.out_of(name))
        assert row["cores"] == 1
        assert row["messages_per_image"] == pytest.approx(float((run.spikes[name].events * heard).sum() / len(inputs)), rel=1e-12)
        assert row["messages_per_image"] > 0
    refused = sparsespike(*arguments, "--steps", 8)
    assert refused.code == 2
    assert "say how many --images" in refused.err


def test_unknown_chip_is_one_clear_error(sparsespike: Run, tmp_path: Path) -> None:
    ended = sparsespike("mapping", tmp_path / "graph.safetensors", "--chip", "akida")
    assert ended.code == 2
    assert "--chip 'akida': expected one of loihi1, loihi2" in ended.err
