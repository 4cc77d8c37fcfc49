"""Damaged, hostile and foreign files given to the commands: one message that names the file, and exit code 2."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsespike.ann.checkpoint import load_model, save_model
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.train import train
from sparsespike.cli.doctor import small_network
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import save_graph

Command = Callable[..., Any]


def truncate(content: bytes) -> bytes:
    return content[: len(content) * 2 // 3]


def flip(content: bytes) -> bytes:
    return content[:-9] + bytes([content[-9] ^ 1]) + content[-8:]


def newer(content: bytes) -> bytes:
    changed = content.replace(b'\\"format_version\\":1', b'\\"format_version\\":9')
    assert changed != content
    return changed


class Explosive:
    """Ends the process when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[[int], None], tuple[int]]:
        return os._exit, (66,)


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    graph, _ = small_network()
    path = tmp_path_factory.mktemp("graph") / "small.safetensors"
    save_graph(SpikingGraph(graph.populations, graph.projections, {"dataset": "digits"}), path)
    return path.read_bytes()


@pytest.mark.parametrize("command", [("inspect",), ("simulate",), ("compare", "--backend", "native", "--backend", "brian2")])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "truncated"),
        (flip, "the file is damaged: copy or export it again"),
        (newer, "format_version: found 9, expected at most 1; the file was written by a newer sparsespike"),
        (lambda content: b"", "header length: found 0 bytes, expected 8"),
        (lambda content: b"\xff" * 7 + b"\x7f" + content, "header length"),
        (lambda content: pickle.dumps(Explosive()), "header"),
    ],
    ids=["truncated", "corrupted", "newer", "empty", "endless header", "pickle"],
)
def test_a_bad_graph_file_is_one_message(
    sparsespike: Command, tmp_path: Path, content: bytes, command: tuple[str, ...], damage: Callable[[bytes], bytes], message: str
) -> None:
    path = tmp_path / "bad.safetensors"
    path.write_bytes(damage(content))
    ended = sparsespike(command[0], path, *command[1:])
    assert ended.code == 2
    assert ended.out == ""
    (line,) = ended.err.splitlines()
    assert line.startswith(f"error: graph file '{path}': ")
    assert message in line


def test_a_graph_path_that_is_no_file_is_one_message(sparsespike: Command, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe", Path("/dev/zero"), tmp_path / "nowhere"):
        ended = sparsespike("inspect", path)
        assert ended.code == 2
        assert ended.err.startswith(f"error: graph file '{path}': ")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(hidden=(24, 16), sparsity=0.5, activation="qcfs", epochs=1)
    return train(config, tmp_path_factory.mktemp("run") / "small").folder


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_not_converted(sparsespike: Command, run: Path, tmp_path: Path, value: float) -> None:
    model, known = load_model(run)
    with torch.no_grad():
        model.sparse_layers[0].values[3] = value
    save_model(tmp_path / "bad.safetensors", model, {name: each for name, each in known.items() if name != "format_version"})
    ended = sparsespike("convert", tmp_path / "bad.safetensors", "--out", tmp_path / "graph.safetensors")
    assert ended.code == 2
    assert "not finite" in ended.err
    assert "values" in ended.err
    assert not (tmp_path / "graph.safetensors").exists()


def test_a_damaged_model_is_one_message(sparsespike: Command, run: Path, tmp_path: Path) -> None:
    whole = (run / "model.safetensors").read_bytes()
    path = tmp_path / "model.safetensors"
    for damaged, message in ((truncate(whole), "damaged"), (pickle.dumps(Explosive()), "damaged"), (b"", "damaged")):
        path.write_bytes(damaged)
        ended = sparsespike("convert", path)
        assert ended.code == 2
        (line,) = ended.err.splitlines()
        assert line.startswith(f"error: file {path} is {message}")


def test_a_graph_is_no_model_and_a_model_is_no_graph(sparsespike: Command, run: Path, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "graph.safetensors").write_bytes(content)
    converted = sparsespike("convert", tmp_path / "graph.safetensors")
    assert converted.code == 2
    assert "sparsespike-model" in converted.err
    inspected = sparsespike("inspect", run / "model.safetensors")
    assert inspected.code == 2
    assert "error: graph file" in inspected.err
