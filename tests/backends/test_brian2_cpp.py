"""Brian2 as a C++ program: equality with the reference, one build for all runs, and nothing left behind but the program."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import Phase, given, settings
from hypothesis.strategies import SearchStrategy

from sparsespike.backends.brian2 import Brian2Backend, standalone
from sparsespike.backends.brian2.standalone import Request
from sparsespike.backends.testing import CASES, Case, assert_equal, check_conformance, reference
from sparsespike.backends.testing.strategies import aec_graphs, graphs
from sparsespike.common.errors import BackendError, BackendTimeoutError, MembraneOverflowError
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.graphfile import save_graph


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


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty cache and an empty folder of temporary files."""
    monkeypatch.setenv("SPARSESPIKE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    return tmp_path / "cache" / "brian2"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with the program of ``everything`` that lists its spikes, at most 4 images at a time."""
    folder = tmp_path_factory.mktemp("built")
    graph, inputs, steps = everything()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SPARSESPIKE_CACHE", str(folder))
        result = Brian2Backend("cpp", batch=4).run(graph, inputs[:1], steps, record=["signed"])
    assert_equal(result, reference(graph, inputs[:1], steps))
    assert list(result.rasters) == ["signed"]
    assert result.wall_seconds["build"] > result.wall_seconds["run"] > 0
    return folder / "brian2"


@pytest.fixture
def program(built: Path, cache: Path) -> Path:
    """The program of ``built`` in this test's cache."""
    shutil.copytree(built, cache)
    (folder,) = cache.iterdir()
    return folder


def left_behind(tmp_path: Path) -> list[Path]:
    """Files beside the programs of the cache."""
    return [*(tmp_path / "temporary").iterdir(), *(tmp_path / "cache").glob("brian2/.*")]


def replace_binary(program: Path, script: str) -> None:
    (program / "main").unlink()
    (program / "main").write_text(f"#!/bin/sh\n{script}\n")
    (program / "main").chmod(0o755)


def test_one_program_runs_any_images_side_by_side_without_a_compiler(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, program: Path
) -> None:
    graph, inputs, steps = everything()
    expected = reference(graph, inputs, steps)
    assert expected.spikes["signed"].negative.sum() > 0
    assert all(expected.spikes[name].positive.sum() > 50 for name in graph.spiking)
    monkeypatch.setenv("PATH", "")

    for backend in (Brian2Backend("cpp", batch=4), Brian2Backend("cpp", batch=4, processes=2)):
        result = backend.run(graph, inputs, steps, record=graph.spiking)
        assert_equal(result, expected)
        assert (result.backend, result.dtype) == ("brian2-cpp", "float64")
        assert set(result.counting.values()) == {"measured"}
        for projection in graph.projections:
            computed = expected.spikes[projection.pre].events @ projection.connection.to_csr().fan_out
            assert result.events[projection.key].tolist() == computed.tolist()
        assert result.wall_seconds["build"] < 1
    assert list(program.parent.iterdir()) == [program]
    assert left_behind(tmp_path) == []

    with pytest.raises(BackendError, match=r"cannot build a program for these steps and inputs: 'g\+\+' cannot be found"):
        Brian2Backend("cpp", batch=4).run(graph, inputs, steps + 1)


def test_aec_equals_the_reference(tmp_path: Path) -> None:
    """A graph with all skips between two populations: what waits 0, 1 and 2 windows meets. Spikes are counted, not listed."""
    whole, inputs, steps = CASES["aec_skips"]()
    populations = [population for population in whole.populations if population.name != "b"]
    graph = SpikingGraph(populations, [p for p in whole.projections if "b" not in p.key])
    expected = reference(graph, inputs, steps)
    assert all((expected.rasters[name] & bit).any() for name in graph.spiking for bit in (1, 2))
    result = Brian2Backend("cpp", batch=2).run(graph, inputs, steps)
    assert_equal(result, expected)
    assert result.rasters == {}
    assert set(result.counting.values()) == {"measured"}
    assert left_behind(tmp_path) == []


def test_a_program_is_named_by_all_that_it_depends_on(monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _, steps = everything()
    request = Request(graph, steps, "events", 4, rasters=False)
    assert request.name == Request(everything().graph, steps, "events", 4, rasters=False).name
    other_readout = replace(graph.readout, bias=graph.readout.bias + 1)
    other_graph = SpikingGraph([*graph.populations[:-1], other_readout], graph.projections)
    others = [
        replace(request, graph=other_graph),
        replace(request, steps=steps + 1),
        replace(request, input="current"),
        replace(request, capacity=5),
        replace(request, rasters=True),
    ]
    names = {request.name, *(other.name for other in others)}
    monkeypatch.setenv("CXX", "clang++")
    assert len(names | {request.name}) == 7


def test_missing_compiler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "absent-c++ -pipe")
    with pytest.raises(BackendError, match=r"'brian2-cpp' cannot run this graph: 'absent-c\+\+' cannot be found, and"):
        Brian2Backend("cpp").run(*CASES["single_neuron"]())


def test_failing_compiler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    monkeypatch.setenv("CXX", "false")
    with pytest.raises(BackendError, match=r"the build of the C\+\+ program failed; its output ends with:\n") as error:
        Brian2Backend("cpp").run(*CASES["single_neuron"]())
    assert "returned non-zero exit status 1" in str(error.value)
    assert left_behind(tmp_path) == []
    assert list(cache.iterdir()) == []


def test_cache_that_cannot_be_written_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path, read_only: Callable[[Path], None]
) -> None:
    cache.mkdir(parents=True)
    read_only(cache)
    monkeypatch.setenv("CXX", "false")  # how the build ends does not matter here
    with (
        pytest.warns(UserWarning, match=r"cannot be kept in .*cache/brian2 \(Permission denied\).*set SPARSESPIKE_CACHE"),
        pytest.raises(BackendError, match="returned non-zero exit status 1"),
    ):
        Brian2Backend("cpp").run(*CASES["single_neuron"]())
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("largest", "what"),
    [
        (1000, "writing the files of the run"),  # what is asked of the build
        (6000, "the build of the C++ program"),  # Brian2's tables
        pytest.param(200_000, "the build of the C++ program", marks=pytest.mark.full),  # the assembler's object files
    ],
)
def test_no_room_for_the_build_is_one_clear_error(tmp_path: Path, cache: Path, largest: int, what: str) -> None:
    """The system refuses files of more than so many bytes, to the process and all that it starts, as it does on a full disk."""
    program = (
        "import resource\n"
        "from sparsespike.backends.brian2 import Brian2Backend\n"
        "from sparsespike.backends.testing import CASES\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({largest}, {largest}))\n"
        "Brian2Backend('cpp').run(*CASES['single_neuron']())\n"
    )
    environment = {**os.environ, "TMPDIR": str(tmp_path / "temporary")}
    ended = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert ended.stderr.splitlines()[-1] == (
        f"sparsespike.common.errors.BackendError: backend 'brian2-cpp': {what} failed: the disk is full, or a file too large; "
        "free space, or name folders with room: SPARSESPIKE_CACHE for programs, TMPDIR for what a run writes"
    )
    assert left_behind(tmp_path) == []
    assert list(cache.iterdir()) == []


def test_full_disk_under_the_compiler_is_one_clear_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cache: Path) -> None:
    compiler = tmp_path / "compiler"
    compiler.write_text('#!/bin/sh\nexec cat "$0" >/dev/full\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.raises(
        BackendError, match=r"the build of the C\+\+ program failed: the disk is full.* SPARSESPIKE_CACHE"
    ) as error:
        Brian2Backend("cpp").run(*CASES["single_neuron"]())
    assert "\n" not in str(error.value)
    assert left_behind(tmp_path) == []
    assert list(cache.iterdir()) == []


def test_a_program_in_a_cache_that_can_only_be_read_is_used(
    program: Path, tmp_path: Path, read_only: Callable[[Path], None]
) -> None:
    graph, inputs, steps = everything()
    before = sorted(program.parent.rglob("*"))
    read_only(program.parent)
    read_only(program)
    result = Brian2Backend("cpp", batch=4).run(graph, inputs, steps, record=["signed"])
    assert_equal(result, reference(graph, inputs, steps))
    assert sorted(program.parent.rglob("*")) == before
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo before; echo no memory; exit 7", r"the simulation failed; its output ends with:\nbefore\nno memory"),
        ("kill -9 $$", r"the simulation failed: not enough memory, or the system ended it"),
        ("kill -6 $$", r"the simulation failed; its output ends with:\n"),
        ("echo Error opening static array", r"the simulation failed; its output ends with:\nError opening static array"),
    ],
)
def test_failing_simulation_is_one_clear_error(program: Path, tmp_path: Path, script: str, message: str) -> None:
    replace_binary(program, script)
    graph, inputs, steps = everything()
    with pytest.raises(BackendError, match=message):
        Brian2Backend("cpp", batch=4, processes=2).run(graph, inputs, steps, record=["signed"])
    assert left_behind(tmp_path) == []


def test_simulation_that_runs_out_of_memory_says_so(program: Path, tmp_path: Path) -> None:
    (program / "main").rename(program / "real")
    (program / "main").write_text('#!/bin/sh\nulimit -d 300\nexec "$(dirname "$0")/real" "$@"\n')
    (program / "main").chmod(0o755)
    graph, inputs, steps = everything()
    with pytest.raises(
        BackendError, match=r"the simulation failed: not enough memory, .* Brian2Backend\(batch=\.\.\., processes=1\)"
    ):
        Brian2Backend("cpp", batch=4).run(graph, inputs, steps, record=["signed"])
    assert left_behind(tmp_path) == []


def test_a_program_for_another_processor_is_not_used(program: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    graph, _, steps = everything()
    request = Request(graph, steps, "events", 4, rasters=True)
    assert request.name == program.name
    monkeypatch.setattr(standalone, "processor", lambda: "another one")
    assert request.name != program.name


def test_simulation_that_loses_results_is_an_error(program: Path, tmp_path: Path) -> None:
    (program / "main").rename(program / "real")
    # The disk is full when the spikes are written.
    (program / "main").write_text(
        '#!/bin/sh\n"$(dirname "$0")/real" "$@"\nfor f in "$2"*spike_population1_i*; do : >"$f"; done\n'
    )
    (program / "main").chmod(0o755)
    graph, inputs, steps = everything()
    with pytest.raises(BackendError, match=r"the simulation left 0 values in .*spike_population1_i.*, expected \d+; is the disk"):
        Brian2Backend("cpp", batch=4).run(graph, inputs, steps, record=["signed"])
    assert left_behind(tmp_path) == []


def test_every_processor_takes_its_share_of_the_images_unless_told(program: Path, tmp_path: Path) -> None:
    (program / "main").rename(program / "real")
    (program / "main").write_text(f'#!/bin/sh\necho run >>{tmp_path}/runs\nexec "$(dirname "$0")/real" "$@"\n')
    (program / "main").chmod(0o755)
    graph, inputs, steps = everything()
    each = -(-4 // len(os.sched_getaffinity(0)))
    for backend, runs in (
        (Brian2Backend("cpp", batch=4, processes=1), 1),
        (Brian2Backend("cpp", batch=4), -(-4 // each)),
        (Brian2Backend("cpp", batch=4, max_synapses=2 * graph.nnz - 1), 1),
    ):
        (tmp_path / "runs").write_text("")
        assert_equal(backend.run(graph, inputs[:4], steps, record=["signed"]), reference(graph, inputs[:4], steps))
        assert (tmp_path / "runs").read_text() == "run\n" * runs


def test_simulation_beyond_its_time_limit_is_ended(program: Path, tmp_path: Path) -> None:
    replace_binary(program, "sleep 1000 & sleep 1000")
    graph, inputs, steps = everything()
    begin = time.monotonic()
    with pytest.raises(BackendTimeoutError, match=r"the time limit of 0\.7 s was over.*or allow more: --time-limit"):
        Brian2Backend("cpp", batch=4, processes=2, time_limit=0.7).run(graph, inputs, steps, record=["signed"])
    assert time.monotonic() - begin < 20
    assert left_behind(tmp_path) == []
    wait_until(lambda: not processes_in(program))


def works_in(process: Path, folder: Path) -> bool:
    try:
        return str(folder) in str((process / "cwd").readlink())
    except OSError:  # it has ended, or is somebody else's
        return False


def processes_in(folder: Path) -> list[str]:
    """Processes whose working directory is in a folder."""
    return [process.name for process in Path("/proc").glob("[0-9]*") if works_in(process, folder)]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("busy", ["building", "simulating"])
def test_interruption_leaves_no_process_and_no_file(
    tmp_path: Path, cache: Path, request: pytest.FixtureRequest, sent: signal.Signals, busy: str
) -> None:
    endless = f"touch {tmp_path}/started\nexec sleep 1000"
    if busy == "building":
        compiler = tmp_path / "compiler"
        compiler.write_text(f"#!/bin/sh\n{endless}\n")
        compiler.chmod(0o755)
        environment = {**os.environ, "CXX": str(compiler)}
    else:
        replace_binary(request.getfixturevalue("program"), endless)
        environment = dict(os.environ)
    save_graph(everything().graph, tmp_path / "graph.safetensors")
    program = (
        "import numpy as np\n"
        "from sparsespike.backends.brian2 import Brian2Backend\n"
        "from sparsespike.export.graphfile import load_graph\n"
        f"graph = load_graph({str(tmp_path / 'graph.safetensors')!r})\n"
        f"Brian2Backend('cpp', batch=4).run(graph, np.ones((2, 128), int), {everything().steps}, record=['signed'])\n"
    )
    command = [sys.executable, "-W", "ignore", "-c", program]
    environment["TMPDIR"] = str(tmp_path / "temporary")
    process = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, cwd=tmp_path)
    try:
        wait_until((tmp_path / "started").exists)
        assert len(processes_in(cache)) >= 2
    finally:
        process.send_signal(sent)
        process.wait(timeout=60)
    wait_until(lambda: not processes_in(cache) and not left_behind(tmp_path))


def wait_until(condition, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.05)


@pytest.mark.full
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
def test_overflow_in_the_program_is_reported_by_image_and_step(tmp_path: Path) -> None:
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
    assert left_behind(tmp_path) == []


def examples(strategy: SearchStrategy[Case], keep: Callable[[Case], bool]) -> list[Case]:
    """Graphs that hypothesis makes, always the same."""
    found: list[Case] = []

    @settings(max_examples=150, derandomize=True, database=None, phases=[Phase.generate], deadline=None)
    @given(strategy)
    def collect(case: Case) -> None:
        if keep(case):
            found.append(case)

    collect()
    return found


def merged(cases: list[Case], images: int) -> tuple[SpikingGraph, np.ndarray]:
    """Graphs side by side in one, with one input and one readout, and that many images for it."""
    first = cases[0].graph
    ranges = [case.graph.input.value_range for case in cases]
    span = min(low for low, _ in ranges), max(high for _, high in ranges)
    sizes = [sum(case.graph.input.size for case in cases), sum(case.graph.readout.size for case in cases)]
    populations = [replace(first.input, shape=(sizes[0],), v_init=None, bias=None, value_range=span)]
    projections, row, column = [], 0, 0
    for k, (graph, _, _) in enumerate(cases):
        populations += [replace(graph.population(name), name=f"{name}.{k}") for name in graph.spiking]
        for projection in graph.projections:
            weights = projection.connection.to_csr().to_scipy().tocoo()
            from_input, to_readout = projection.pre == graph.input.name, projection.post == graph.readout.name
            shape = sizes[0] if from_input else weights.shape[0], sizes[1] if to_readout else weights.shape[1]
            ends = weights.row + row * from_input, weights.col + column * to_readout
            pre, post = (name if name in ("input", "readout") else f"{name}.{k}" for name in projection.key)
            projections.append((pre, post, sp.coo_matrix((weights.data, ends), shape)))
        row, column = row + graph.input.size, column + graph.readout.size
    bias = np.concatenate([case.graph.readout.bias for case in cases])
    populations.append(replace(first.readout, shape=(sizes[1],), bias=bias, v_init=None))
    joined: dict[tuple[str, str], sp.coo_matrix] = {}
    for pre, post, weights in projections:
        joined[pre, post] = joined[pre, post] + weights if (pre, post) in joined else weights
    inputs = np.concatenate([np.resize(case.inputs, (images, case.graph.input.size)) for case in cases], axis=1)
    return SpikingGraph(populations, [Projection(*key, CSRConnection.from_scipy(w)) for key, w in joined.items()]), inputs


@pytest.mark.full
@pytest.mark.parametrize(("mode", "merging"), [("cython", 2), ("cpp", 6)])  # Cython compiles each object's code on its own
@pytest.mark.parametrize("kind", ["rate", "aec"])
def test_random_graphs_merged_into_one_equal_the_reference(kind: str, mode: Literal["cython", "cpp"], merging: int) -> None:
    if kind == "rate":
        cases = examples(graphs(), lambda case: case.graph.input.bias_mode == "every_step" and len(case.graph.spiking) > 1)
    else:
        cases = examples(aec_graphs(), lambda case: case.graph.slots == 3 and len(case.graph.spiking) > 1)
    assert len(cases) >= merging
    graph, inputs = merged(cases[-merging:], images=4)
    steps = graph.slots or 6
    expected = reference(graph, inputs, steps)
    assert sum(counts.events.sum() for name, counts in expected.spikes.items() if name != "input") > 20
    assert_equal(Brian2Backend(mode, batch=3).run(graph, inputs, steps, record=graph.spiking), expected)
