"""``--data`` of simulate, compare and counters: a file of integers; and ``--download`` wherever a data set is named."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.core import TyperGroup

from sparsespike.backends.native import NativeBackend
from sparsespike.cli.doctor import small_network
from sparsespike.cli.main import app
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import save_graph

Run = Callable[..., Any]
STEPS = 6


@pytest.fixture
def graph(tmp_path: Path) -> SpikingGraph:
    graph, _ = small_network()
    save_graph(graph, tmp_path / "graph.safetensors")
    return graph


@pytest.fixture
def images(graph: SpikingGraph) -> np.ndarray:
    low, high = graph.input.value_range or (0, 0)
    return np.random.default_rng(3).integers(low, high + 1, (5, graph.input.size))


def test_a_file_of_integers_is_run(sparsespike: Run, graph: SpikingGraph, images: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "inputs.npy", images)
    command = (tmp_path / "graph.safetensors", "--data", tmp_path / "inputs.npy", "--steps", STEPS)
    ended = sparsespike("simulate", *command, "--json")
    assert ended.code == 0, ended.err
    (run,) = json.loads(ended.out)["runs"]
    expected = NativeBackend().run(graph, images, STEPS)
    events = {(row["pre"], row["post"]): row["synaptic_events_by_image"] for row in run["projections"]}
    assert events == {key: counts.tolist() for key, counts in expected.events.items()}
    assert (run["accuracy"], run["accuracy_by_step"]) == (None, None)
    shown = sparsespike("simulate", *command, "--images", 2)
    assert shown.code == 0, shown.err
    assert "2 images" in shown.out
    assert "acc_%" not in shown.out
    compared = sparsespike("compare", *command, "--json")
    assert compared.code == 0, compared.err
    assert json.loads(compared.out)["images"] == 5
    counted = sparsespike("counters", *command, "--json")
    assert counted.code == 0, counted.err
    assert json.loads(counted.out)["images"] == 5
    chosen = sparsespike("simulate", *command[:3], "--steps", "auto")
    assert chosen.code == 2
    assert "whose validation images would choose; name one with --data, or give a number" in " ".join(chosen.err.split())
    refused = sparsespike("simulate", *command, "--out", tmp_path / "results.json")
    assert refused.code == 2
    assert "the inputs have no labels; give a .npz file with both" in refused.err


def test_labels_in_the_file_give_accuracy(sparsespike: Run, graph: SpikingGraph, images: np.ndarray, tmp_path: Path) -> None:
    predicted = NativeBackend().run(graph, images, STEPS).predictions[:, -1]
    labels = np.where(np.arange(5) < 3, predicted, predicted + 1)
    np.savez(tmp_path / "inputs.npz", images=images, labels=labels)
    results = tmp_path / "results.json"
    command = (tmp_path / "graph.safetensors", "--data", tmp_path / "inputs.npz", "--steps", STEPS, "--out", results)
    assert sparsespike("simulate", *command).code == 0
    assert json.loads(results.read_text())["runs"][0]["accuracy"] == 0.6
    named = SpikingGraph(graph.populations, graph.projections, {"dataset": str(tmp_path / "inputs.npz")})
    save_graph(named, tmp_path / "named.safetensors")
    again = sparsespike("simulate", tmp_path / "named.safetensors", "--steps", STEPS, "--json")
    assert json.loads(again.out)["runs"][0]["accuracy"] == 0.6


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "found no file there, expected a .npy or .npz file"),
        (b"no array", "cannot be read"),
        (b"PK\x03\x04 no archive", "cannot be read"),
        (np.array([None, {}], object), "cannot be read"),
        (np.zeros((5, 6)), "found dtype float64, expected integers"),
        (np.zeros((5, 7), np.int64), "found shape (5, 7), expected"),
        (np.full((5, 6), 999), "found values 999..999, expected"),
        (np.zeros((0, 6), np.int64), "found no image in it"),
        ({"x": np.zeros((5, 6), np.int64)}, "found x, expected 'images', and 'labels' if they are known"),
        ({"images": np.zeros((5, 6), np.int64), "labels": np.zeros(4, np.int64)}, "found labels int64 (4,), expected 5 integers"),
        ({"images": np.zeros((5, 6), np.int64), "labels": np.zeros(5)}, "found labels float64 (5,), expected 5 integers"),
    ],
)
def test_a_file_that_does_not_fit_is_one_clear_error(
    content: Any, message: str, sparsespike: Run, graph: SpikingGraph, tmp_path: Path
) -> None:
    path = tmp_path / ("inputs.npz" if isinstance(content, dict) else "inputs.npy")
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, dict):
        np.savez(path, **content)
    elif content is not None:
        np.save(path, content, allow_pickle=True)
    ended = sparsespike("simulate", tmp_path / "graph.safetensors", "--data", path)
    assert ended.code == 2
    assert f"error: {path}: " in ended.err
    assert message in ended.err
    assert "Traceback" not in ended.err


def test_every_command_that_loads_a_data_set_can_download_it(sparsespike: Run, graph: SpikingGraph, tmp_path: Path) -> None:
    """The message about an absent data set says so."""
    commands = typer.main.get_command(app)
    assert isinstance(commands, TyperGroup)
    options = {name: {option for p in command.params for option in p.opts} for name, command in commands.commands.items()}
    loading = {name for name, names in options.items() if "--data" in names}
    assert loading >= {"simulate", "compare", "counters", "convert", "diagnose"}
    assert {name for name in loading if "--download" not in options[name]} == set()
    ended = sparsespike("compare", tmp_path / "graph.safetensors", "--data", "digits", "--download")
    assert "data set 'digits' has images of 64 values, the graph's input has 6" in ended.err
