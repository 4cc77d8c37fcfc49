"""``simulate``: a command that is killed goes on where it was, one that lacks memory or a folder says so."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.graphfile import save_graph

PATIENCE = 60
IMAGES = 200


@pytest.fixture
def arguments(tmp_path: Path) -> list[str]:
    generator = np.random.default_rng(3)
    graph = SpikingGraph(
        [
            Population(name="input", shape=(64,), kind="input", value_range=(0, 255)),
            Population(name="hidden", shape=(20,), kind="if", threshold=np.full(20, 900), v_init=np.full(20, 450)),
            Population(name="readout", shape=(10,), kind="readout"),
        ],
        [
            Projection("input", "hidden", CSRConnection.from_scipy(generator.integers(-5, 9, (64, 20)))),
            Projection("hidden", "readout", CSRConnection.from_scipy(generator.integers(-9, 10, (20, 10)))),
        ],
    )
    save_graph(graph, tmp_path / "graph.safetensors")
    return [
        "simulate",
        str(tmp_path / "graph.safetensors"),
        "--data",
        "digits",
        "--images",
        str(IMAGES),
        "--steps",
        "6",
        "--json",
    ]


def counted(output: str) -> Any:
    (run,) = json.loads(output)["runs"]
    del run["wall_seconds"]
    assert sum(row["synaptic_events"] for row in run["projections"]) > 0
    return run


def test_a_killed_command_goes_on_where_it_was(sparsespike: Callable[..., Any], arguments: list[str], tmp_path: Path) -> None:
    folder = tmp_path / "blocks"
    keeping = [*arguments, "--block", "1", "--keep", str(folder)]

    def kept() -> list[Path]:
        return list(folder.glob("[!.]*"))

    with subprocess.Popen([sys.executable, "-m", "sparsespike.cli", *keeping], stdout=subprocess.DEVNULL) as process:
        deadline = time.monotonic() + PATIENCE
        while len(kept()) < 3:
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        process.kill()
    made = {file: file.stat().st_mtime_ns for file in kept()}
    assert 3 <= len(made) < IMAGES
    ended = sparsespike(*keeping)
    assert ended.code == 0, ended.err
    assert made.items() <= {file: file.stat().st_mtime_ns for file in kept()}.items()
    assert len(kept()) == IMAGES
    assert counted(ended.out) == counted(sparsespike(*arguments).out)


def test_a_folder_that_cannot_be_written_to(sparsespike: Callable[..., Any], arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    ended = sparsespike(*arguments, "--keep", tmp_path / "file")
    assert ended.code == 2
    assert "cannot write" in ended.err
    assert "choose a folder that can be written to" in ended.err
    assert "Traceback" not in ended.err


def test_out_of_memory_is_one_message(sparsespike: Callable[..., Any], arguments: list[str]) -> None:
    """So many steps that no machine has addresses for what is counted in them."""
    ended = sparsespike(*arguments, "--steps", 10**12)
    assert ended.code == 2
    stated, message = ended.err.splitlines()
    assert re.match(r"native: at most [\d,]{14,}\.\d MB of memory", stated)  # said beforehand
    assert message.startswith("error: out of memory (Unable to allocate")
    assert "simulate --block" in message
