"""Brian2 as a C++ program: equality with the reference, one build for all batches, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from sparsespike.backends.brian2 import Brian2Backend
from sparsespike.backends.testing import CASES, Case, assert_equal, check_conformance, reference
from sparsespike.common.errors import BackendError, MembraneOverflowError
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph


def everything() -> Case:
    """Signed inputs into a convolution, signed neurons, both resets and bias modes, a skip, an empty projection, 5 images."""
    rng = np.random.default_rng(11)
    convolution = Conv2dConnection(rng.integers(-9, 10, (3, 2, 3, 3), np.int32), (2, 8, 8), (2, 2), (1, 1))
    sizes = {"input": 128, "convolved": 48, "signed": 60, "zeroed": 50, "readout": 4}

    def connection(pre: str, post: str, density: float) -> CSRConnection:
        shape = sizes[pre], sizes[post]
        return CSRConnection.from_scipy(rng.integers(-90, 100, shape) * (rng.random(shape) < density))

    def thresholds(name: str, level: int) -> dict[str, np.ndarray]:
        threshold = 2 * rng.integers(level, 2 * level, sizes[name])
        return {"threshold": threshold, "v_init": threshold // 2, "bias": rng.integers(-level // 4, level // 4, sizes[name])}

    signed = thresholds("signed", 60)
    graph = SpikingGraph(
        [
            Population(name="input", shape=(2, 8, 8), kind="input", value_range=(-8, 8)),
            Population(name="convolved", shape=(3, 4, 4), kind="if", **thresholds("convolved", 40)),
            Population(name="signed", shape=(60,), kind="signed_if", threshold_neg=signed["threshold"] // 8, **signed),
            Population(name="zeroed", shape=(50,), kind="if", reset="zero", bias_mode="once", **thresholds("zeroed", 90)),
            Population(name="readout", shape=(4,), kind="readout", bias=rng.integers(-9, 9, 4)),
        ],
        [
            Projection("input", "convolved", convolution),
            Projection("convolved", "signed", connection("convolved", "signed", 0.2)),
            Projection("convolved", "zeroed", connection("convolved", "zeroed", 0.1)),
            Projection("signed", "zeroed", connection("signed", "zeroed", 0.3)),
            Projection("input", "readout", connection("input", "readout", 0)),
            Projection("zeroed", "readout", connection("zeroed", "readout", 0.5)),
        ],
    )
    return Case(graph, rng.integers(-8, 9, (5, 128)) * (rng.random((5, 128)) < 0.6), 12)


def temporary(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(folder))


def test_one_build_runs_all_batches_and_equals_the_reference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    temporary(monkeypatch, tmp_path)
    graph, inputs, steps = everything()
    expected = reference(graph, inputs, steps)
    assert expected.spikes["signed"].negative.sum() > 0
    assert all(expected.spikes[name].positive.sum() > 50 for name in graph.spiking)

    result = Brian2Backend("cpp", batch=2).run(graph, inputs, steps, record=graph.spiking)

    assert_equal(result, expected)
    assert (result.backend, result.dtype) == ("brian2-cpp", "float64")
    assert set(result.counting.values()) == {"measured"}
    for projection in graph.projections:
        computed = expected.spikes[projection.pre].events @ projection.connection.to_csr().fan_out
        assert result.events[projection.key].tolist() == computed.tolist()
    assert result.wall_seconds["build"] > result.wall_seconds["run"] > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("tool", ["make", "c++"])
def test_missing_compiler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tool: str) -> None:
    for name in {"make", "c++"} - {tool}:
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CXX", "c++ -pipe")
    with pytest.raises(BackendError, match=rf"'brian2-cpp' cannot run this graph: '{tool}' cannot be found".replace("+", r"\+")):
        Brian2Backend("cpp").run(*CASES["single_neuron"]())


def test_failing_compiler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    temporary(monkeypatch, tmp_path)
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(BackendError, match=r"the C\+\+ program failed; its output ends with:(.|\n)*compilation failed"):
        Brian2Backend("cpp").run(*CASES["single_neuron"]())
    assert list(tmp_path.iterdir()) == []


def works_in(process: Path, folder: Path) -> bool:
    try:
        return str(folder) in str((process / "cwd").readlink())
    except OSError:  # it has ended, or is somebody else's
        return False


def processes_in(folder: Path) -> list[str]:
    """Processes whose working directory is in a folder."""
    return [process.name for process in Path("/proc").glob("[0-9]*") if works_in(process, folder)]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_build_leaves_no_process_and_no_file(tmp_path: Path, sent: signal.Signals) -> None:
    program = (
        "from sparsespike.backends.brian2 import Brian2Backend\n"
        "from sparsespike.backends.testing import CASES\n"
        "Brian2Backend('cpp').run(*CASES['single_neuron']())\n"
    )
    # The build waits for a compiler that never ends.
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\ntouch {tmp_path}/started\nexec sleep 1000\n")
    compiler.chmod(0o755)
    folder = tmp_path / "temporary"
    folder.mkdir()
    environment = {**os.environ, "TMPDIR": str(folder), "CXX": str(compiler)}
    command = [sys.executable, "-W", "ignore", "-c", program]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        wait_until((tmp_path / "started").exists)
        assert len(processes_in(folder)) >= 2
    finally:
        process.send_signal(sent)
        process.wait(timeout=60)
    wait_until(lambda: not processes_in(folder) and not list(folder.iterdir()))


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


def test_current_mode_equals_the_reference() -> None:
    graph, inputs, steps = CASES["images_apart"]()
    result = Brian2Backend("cpp", batch=2).run(graph, inputs, steps, input="current")
    assert_equal(result, reference(graph, inputs, steps, input="current"))
    assert result.counting == {key: "computed" if key[0] == "input" else "measured" for key in result.events}


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_directed_case(name: str) -> None:
    assert check_conformance(Brian2Backend("cpp", batch=2), {name: CASES[name]}) == {}


@pytest.mark.full
def test_overflow_in_the_program_is_reported_by_image_and_step(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    temporary(monkeypatch, tmp_path)
    graph = SpikingGraph(
        [
            Population(name="input", shape=(1,), kind="input", value_range=(0, 2**20)),
            Population(name="sum", shape=(1,), kind="readout"),
        ],
        [Projection("input", "sum", CSRConnection.from_scipy(np.array([[2**31 - 1]])))],
    )
    # A step adds 2^51 - 2^20: the fourth image is the first that moves, its third step the first beyond 2^52.
    inputs = np.array([[0], [1], [0], [2**20], [2**20]])
    with pytest.raises(MembraneOverflowError, match=r"neuron 0 in population 'sum' reached 2\^52 at image 3, step 2;"):
        Brian2Backend("cpp", batch=2).run(graph, inputs, 4, input="current")
    assert list(tmp_path.iterdir()) == []
