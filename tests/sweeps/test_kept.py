"""Blocks of a run that are kept: what fails or is killed takes nothing else with it, and what is done is not done again."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsespike.backends.bulk import BulkResult, run_blocks
from sparsespike.backends.lava import LavaBackend
from sparsespike.backends.lava.environment import lava_python
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing import CASES
from sparsespike.common.errors import BackendError, ConfigError, MembraneOverflowError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.sweeps.bulkfile import save_bulk
from sparsespike.sweeps.kept import run_kept

LARGEST = 2**31 - 1


def counts(result: BulkResult) -> bytes:
    """All but the times, as the bytes of a file."""
    with tempfile.TemporaryDirectory() as folder:
        save_bulk(Path(folder, "counts"), result)
        return Path(folder, "counts").read_bytes()


def amplifier() -> SpikingGraph:
    """The readout adds 2^30 times the input: with the largest input it reaches 2^62 in the third step."""
    return SpikingGraph(
        [
            Population(name="input", shape=(1,), kind="input", value_range=(0, LARGEST)),
            Population(name="sum", shape=(1,), kind="readout"),
        ],
        [Projection("input", "sum", CSRConnection.from_scipy(np.array([[2**30]])))],
    )


def test_blocks_are_run_once_and_give_what_one_run_gives(tmp_path: Path) -> None:
    graph, inputs, steps = CASES["negative_inputs"]()
    whole = counts(run_blocks(NativeBackend(), graph, inputs, steps))
    seen: list[int] = []
    first = run_kept(NativeBackend(), graph, inputs, steps, folder=tmp_path / "a" / "b", block=2, progress=seen.append)
    assert counts(first) == whole
    files = sorted((tmp_path / "a" / "b").iterdir())
    contents = [file.read_bytes() for file in files]
    again = run_kept(NativeBackend(), graph, inputs, steps, folder=tmp_path / "a" / "b", block=2, progress=seen.append)
    assert counts(again) == whole
    assert again.wall_seconds == first.wall_seconds  # of the run that was made, to the last bit
    assert seen == [2, 2, 1] * 2
    assert sorted((tmp_path / "a" / "b").iterdir()) == files
    assert [file.read_bytes() for file in files] == contents


def test_other_graphs_backends_steps_modes_and_images_are_other_blocks(tmp_path: Path) -> None:
    graph, inputs, steps = CASES["images_apart"]()
    other_graph, other_inputs, other_steps = CASES["single_neuron"]()
    runs: list[tuple[Any, ...]] = [
        (NativeBackend(), graph, inputs, steps, "events"),
        (NativeBackend(), graph, inputs, steps, "current"),
        (NativeBackend(), graph, inputs, steps + 1, "events"),
        (NativeBackend(), graph, inputs[::-1], steps, "events"),
        (NativeBackend(counting="computed"), graph, inputs, steps, "events"),
        (NativeBackend(), other_graph, other_inputs, other_steps, "events"),
    ]
    for number, (*run, mode) in enumerate(runs):
        kept = run_kept(*run, folder=tmp_path, block=1000, input=mode)
        assert counts(kept) == counts(run_blocks(*run, input=mode))
        assert len(list(tmp_path.iterdir())) == number + 1


def test_a_block_that_fails_takes_no_other_with_it(tmp_path: Path) -> None:
    inputs = np.arange(7)[:, None]
    inputs[[2, 6]] = LARGEST
    with pytest.raises(MembraneOverflowError, match="'sum', image 0, step 2") as caught:
        run_kept(NativeBackend(), amplifier(), inputs, 5, folder=tmp_path, block=2)
    assert str(caught.value).endswith(
        "\nThis was the block of images 2 to 3, and 1 blocks after it. The results of the other 4 of 7 images are kept in "
        f"{tmp_path}: the same run does what is missing."
    )
    assert len(list(tmp_path.iterdir())) == 2
    made = {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}
    inputs[[2, 6]] = 9
    result = run_kept(NativeBackend(), amplifier(), inputs, 5, folder=tmp_path, block=2)
    assert counts(result) == counts(run_blocks(NativeBackend(), amplifier(), inputs, 5))
    assert made.items() <= {file: file.stat().st_mtime_ns for file in tmp_path.iterdir()}.items()


def test_where_nothing_is_kept_nothing_is_said_of_it(tmp_path: Path) -> None:
    graph, inputs, _ = CASES["single_neuron"]()
    with pytest.raises(BackendError, match=r"found steps = 0, expected at least 1$"):
        run_kept(NativeBackend(), graph, inputs, 0, folder=tmp_path, block=2)
    assert list(tmp_path.iterdir()) == []


def test_a_worker_that_is_killed_takes_no_other_block_with_it(tmp_path: Path) -> None:
    """Lava's first worker is killed when it starts, as the kernel does when memory runs out."""
    python = tmp_path / "python"
    kill = f'case "$2" in *lava.worker*) mkdir {tmp_path}/started 2>/dev/null && kill -9 $$;; esac'
    python.write_text(f'#!/bin/sh\n{kill}\nexec {lava_python()} "$@"\n')
    python.chmod(0o755)
    graph, inputs, steps = CASES["single_neuron"]()
    backend, inputs = LavaBackend(python=str(python)), inputs[:4]
    with pytest.raises(BackendError, match=r"the worker ended with exit code -9 \(.* out of memory.* run fewer images") as caught:
        run_kept(backend, graph, inputs, steps, folder=tmp_path / "kept", block=2, input="events")
    assert "block of images 0 to 1. The results of the other 2 of 4 images are kept in" in str(caught.value)
    (kept,) = (tmp_path / "kept").iterdir()
    made = kept.stat().st_mtime_ns
    result = run_kept(backend, graph, inputs, steps, folder=tmp_path / "kept", block=2, input="events")
    assert kept.stat().st_mtime_ns == made
    native = run_blocks(NativeBackend(), graph, inputs, steps, input="events")
    assert counts(replace(result, backend="native", version=native.version, dtype="int64")) == counts(native)


def test_wrong_arguments(tmp_path: Path) -> None:
    graph, inputs, steps = CASES["single_neuron"]()
    with pytest.raises(BackendError, match="found block = 0, expected at least 1"):
        run_kept(NativeBackend(), graph, inputs, steps, folder=tmp_path, block=0)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write .*file/.*; choose a folder that can be written to"):
        run_kept(NativeBackend(), graph, inputs, steps, folder=tmp_path / "file", block=2)
