"""Images side by side: the compiled kernel equals the reference on every instruction set, gathering and scattering."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tracemalloc
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sparsespike.backends.bulk import BulkResult, run_blocks
from sparsespike.backends.native import NativeBackend, blocks, library
from sparsespike.backends.native.lanes import CURRENTS, MEMBRANES, lower_lanes
from sparsespike.backends.testing import CASES, Case, assert_equal, check_conformance, reference
from sparsespike.backends.testing.strategies import aec_graphs, convolutions, graphs
from sparsespike.cli.doctor import _native_kernel
from sparsespike.common.errors import BackendError
from sparsespike.export.bounds import bounds
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

BEST = library.load().isa
ROOT = Path(__file__).parents[2]
each_set = pytest.mark.parametrize("isa", range(BEST + 1), ids=lambda isa: library.INSTRUCTION_SETS[isa])
each_way = pytest.mark.parametrize("scatter_ns", [0.0, np.inf], ids=["scatter", "gather"])


def side_by_side(isa: int = BEST, threads: int = 1) -> NativeBackend:
    backend = NativeBackend(threads, counting="computed", kernel="c")
    backend.library = replace(library.load(), isa=isa)
    return backend


def layered(widths: list[int], images: int, steps: int, *, weight: int = 90, signed: bool = False, seed: int = 0) -> Case:
    """Random layers in which about a tenth of the neurons fire in each step; ``weight`` sets how wide the integers must be."""
    rng = np.random.default_rng(seed)
    populations = [Population(name="input", shape=(widths[0],), kind="input", value_range=(-3, 20))]
    projections = []
    for i, (n_pre, n_post) in enumerate(pairwise(widths)):
        threshold = 4 * weight * rng.integers(2, 6, n_post)
        fields = {"threshold": threshold, "v_init": rng.integers(0, threshold + 1), "bias": rng.integers(-weight, weight, n_post)}
        if signed:
            fields["threshold_neg"] = np.full(n_post, weight // 4 + 1)
        last = i == len(widths) - 2
        kind = "readout" if last else "signed_if" if signed else "if"
        populations.append(Population(name=f"p{i}", shape=(n_post,), kind=kind, **({} if last else fields)))
        weights = rng.integers(-weight, weight + weight // 3, (n_pre, n_post)) * (rng.random((n_pre, n_post)) < 0.2)
        projections.append(Projection(populations[-2].name, f"p{i}", CSRConnection.from_scipy(weights)))
    return Case(SpikingGraph(populations, projections), rng.integers(-3, 21, (images, widths[0])), steps)


@each_set
@each_way
def test_conforms_on_every_case(isa: int, scatter_ns: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "SCATTER_NS", (scatter_ns,) * 3)
    assert check_conformance(side_by_side(isa)) == {}


@given(
    st.one_of(graphs(max_steps=20), aec_graphs(max_slots=11), convolutions(max_steps=10)),
    st.sampled_from(("events", "current")),
    st.integers(0, BEST),
    st.sampled_from((0.0, 2.0, np.inf)),
)
@settings(deadline=None, max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_equals_the_reference_on_random_graphs(
    monkeypatch: pytest.MonkeyPatch, case: Case, mode: str, isa: int, scatter_ns: float
) -> None:
    monkeypatch.setattr(blocks, "SCATTER_NS", (scatter_ns,) * 3)
    graph, inputs, steps = case
    result = side_by_side(isa).run(graph, inputs, steps, record=graph.spiking, input=mode)
    assert_equal(result, reference(graph, inputs, steps, input=mode))


@each_set
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize(
    ("weight", "steps", "currents", "membranes"),
    [(90, 13, 0, 0), (90, 2**23, 0, 1), (2**13, 13, 1, 0), (2**25, 13, 1, 1), (2**30, 13, 2, 1)],
)
def test_every_width_of_currents_and_membranes_is_exact(
    isa: int, signed: bool, weight: int, steps: int, currents: int, membranes: int
) -> None:
    """The steps that the bounds are made for set the width; a few are enough to run."""
    graph, inputs, ran = layered([30, 40, 35, 5], 70, 13, weight=weight, signed=signed)
    layers = lower_lanes(graph, bounds(graph, steps))
    assert {(layer.currents, layer.membranes) for layer in layers if layer.population.name == "p1"} == {(currents, membranes)}
    backend = side_by_side(isa)
    course = blocks.Course(backend.library, graph, layers, ran)
    backend._course = lambda *_: course
    expected = reference(graph, inputs, ran)
    assert 0.02 < expected.spikes["p1"].events.mean() / ran < 0.6
    assert not signed or expected.spikes["p1"].negative.any()
    assert_equal(backend.run(graph, inputs, ran, record=["p0", "p1"]), expected)


@each_set
@each_way
@pytest.mark.parametrize("reach", [2**15 - 1, 2**15, 2**31 - 1, 2**31])
def test_currents_at_the_very_edge_of_a_type(isa: int, scatter_ns: float, reach: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two neurons fire at once and together bring exactly the largest current, or its negative."""
    monkeypatch.setattr(blocks, "SCATTER_NS", (scatter_ns,) * 3)
    half = reach // 2
    graph = SpikingGraph(
        [
            Population(name="x", shape=(2,), kind="input", value_range=(0, 1)),
            Population(name="h", shape=(2,), kind="if", threshold=np.array([2, 2])),
            Population(name="k", shape=(2,), kind="if", threshold=np.array([2 * half, 2**53 - 2])),
            Population(name="y", shape=(1,), kind="readout"),
        ],
        [
            Projection("x", "h", CSRConnection.from_scipy(np.diag([2, 2]))),
            Projection("h", "k", CSRConnection.from_scipy(np.array([[reach - half, half - reach], [half, -half]]))),
            Projection("k", "y", CSRConnection.from_scipy(np.array([[3], [5]]))),
        ],
    )
    inputs = np.array([[1, 1], [1, 0], [0, 1], [0, 0]])
    (layer,) = (layer for layer in lower_lanes(graph, bounds(graph, 5)) if layer.population.name == "k")
    assert CURRENTS[layer.currents] == (np.int16 if reach < 2**15 else np.int32 if reach < 2**31 else np.int64)
    assert MEMBRANES[layer.membranes] == (np.int64 if reach > 2**20 else np.int32)
    assert_equal(side_by_side(isa).run(graph, inputs, 5, record=graph.spiking), reference(graph, inputs, 5))


@pytest.mark.parametrize("images", [1, 63, 64, 65, 200])
@pytest.mark.parametrize("mode", ["events", "current"])
def test_bulk_sums_equal_those_of_counted_events(images: int, mode: str) -> None:
    """Every field but ``counting``, ``wall_seconds``: of blocks that are full, and that are not."""
    graph, inputs, steps = layered([30, 40, 35, 5], images, 11, signed=True)
    seen: list[int] = []
    fast = run_blocks(side_by_side(threads=2), graph, inputs, steps, input=mode, progress=seen.append)
    slow = run_blocks(NativeBackend(), graph, inputs, steps, input=mode)
    assert sum(seen) == images
    assert set(fast.counting.values()) == {"computed"}
    assert plain(fast) == plain(slow)


@pytest.mark.parametrize("name", CASES)
def test_bulk_sums_of_every_case_equal_those_of_counted_events(name: str) -> None:
    graph, inputs, steps = CASES[name]()
    assert plain(run_blocks(side_by_side(), graph, inputs, steps)) == plain(run_blocks(NativeBackend(), graph, inputs, steps))


@given(graphs())
@settings(deadline=None, max_examples=50)
def test_bulk_sums_of_random_graphs_equal_those_of_counted_events(case: Case) -> None:
    graph, inputs, steps = case
    assert plain(run_blocks(side_by_side(), graph, inputs, steps)) == plain(run_blocks(NativeBackend(), graph, inputs, steps))


def plain(result: BulkResult) -> dict[str, object]:
    """All that must be equal, as lists."""
    spikes = {
        field: {name: (each.positive.tolist(), each.negative.tolist()) for name, each in getattr(result, field).items()}
        for field in ("spikes", "spikes_by_image", "spikes_by_step")
    }
    arrays = {
        field: {key: each.tolist() for key, each in getattr(result, field).items()}
        for field in ("events", "events_by_step", "neuron_updates", "bias_additions", "messages")
    }
    named = {field: getattr(result, field) for field in ("backend", "version", "dtype", "steps", "images")}
    return {**spikes, **arrays, **named, "predictions": result.predictions.tolist()}


@each_set
@pytest.mark.parametrize("largest", [2**15 - 1, 2**15, 2**20])
def test_inputs_at_the_very_edge_of_a_type(isa: int, largest: int) -> None:
    weights = np.array([[3, -5, 7], [2, 9, -4]])
    graph = SpikingGraph(
        [
            Population(name="x", shape=(2,), kind="input", value_range=(-largest, largest)),
            Population(name="h", shape=(3,), kind="if", threshold=2 * np.array([largest, 3 * largest, 5])),
            Population(name="y", shape=(1,), kind="readout"),
        ],
        [
            Projection("x", "h", CSRConnection.from_scipy(weights)),
            Projection("h", "y", CSRConnection.from_scipy(np.array([[1], [2], [4]]))),
        ],
    )
    inputs = np.array([[largest, largest], [-largest, largest], [largest, -largest], [-largest, -largest], [0, 1]])
    assert_equal(side_by_side(isa).run(graph, inputs, 9, record=["h"]), reference(graph, inputs, 9))
    fast, slow = (run_blocks(backend, graph, inputs, 9) for backend in (side_by_side(isa), NativeBackend()))
    assert plain(fast) == plain(slow)


@pytest.mark.parametrize("threads", [2, 5])
def test_results_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    case = layered([30, 40, 35, 5], 300, 9)
    one, many = (side_by_side(threads=n).run(*case, record=["p0"]) for n in (1, threads))
    assert_equal(many, one)


@each_set
def test_few_events_are_scattered_and_many_gathered(isa: int) -> None:
    """By measured activity, in each block: the same projection is scattered where almost nothing fires."""
    graph, inputs, steps = layered([30, 400, 350, 5], 64, 16)
    backend = side_by_side(isa)
    course = backend._course(graph, steps)
    chosen: list[tuple[int, int]] = []

    class Watched(blocks.Course):
        def _choose(self, layer: object, fired: object) -> object:
            ways = super()._choose(layer, fired)
            chosen.append((len(ways[0]), len(ways[1])))
            return ways

    watched = Watched(course.library, graph, course.layers, steps)
    watched.run(inputs, lambda *_: None)
    assert chosen[1] == (1, 0)
    chosen.clear()
    watched.run(0 * inputs[:1], lambda *_: None)
    assert chosen[1] == (0, 1)


@pytest.mark.parametrize(
    ("widths", "images", "steps", "signed", "largest"),
    [
        ([10, 20, 10], 64, 6000, False, "a long readout"),
        ([10, 20, 1500], 64, 100, False, "a wide readout"),
        ([100, 600, 500, 10], 300, 40, True, "spikes"),
        ([3072, 300, 10], 200, 8, False, "inputs"),
        ([4, 6, 3], 9000, 12, False, "results"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
@pytest.mark.parametrize("counting", ["computed", "measured"])
def test_memory_stays_below_what_is_stated(
    widths: list[int], images: int, steps: int, signed: bool, largest: str, counting: str
) -> None:
    graph, inputs, steps = layered(widths, images, steps, signed=signed)
    inputs = inputs.astype(np.int8)
    for threads in (1, 2):
        backend = NativeBackend(threads, counting=counting)
        run_blocks(backend, graph, inputs[:1], 2)
        stated = backend.memory(graph, steps, images, block=128)
        tracemalloc.start()
        try:
            run_blocks(backend, graph, inputs, steps, block=128)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < stated
        if threads == 1:  # whether two threads have their largest arrays at the same time is chance
            assert stated / 5 < peak


def test_memory_of_convolutions_stays_below_what_is_stated() -> None:
    rng = np.random.default_rng(0)
    shape = (64, 6, 6)
    image = Population(name="x", shape=shape, kind="input", value_range=(0, 20))
    hidden = Population(name="y", shape=shape, kind="if", threshold=np.full(64 * 36, 4000))
    kernel = rng.integers(-90, 100, (64, 64, 3, 3))
    projections = [
        Projection("x", "y", Conv2dConnection(kernel, shape, padding=(1, 1))),
        Projection("y", "z", CSRConnection.from_scipy(rng.integers(-9, 10, (64 * 36, 10)))),
    ]
    graph = SpikingGraph([image, hidden, Population(name="z", shape=(10,), kind="readout")], projections)
    inputs = rng.integers(0, 20, (64, *shape)).astype(np.uint8)
    for counting in ("computed", "measured"):
        backend = NativeBackend(1, counting=counting)
        tracemalloc.start()
        try:
            run_blocks(backend, graph, inputs, 4)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < backend.memory(graph, 4, 64)


def test_says_when_it_counted_instead() -> None:
    """Without the kernel, or where int64 is not proven wide enough, events are measured one by one."""
    graph, inputs, steps = CASES["skips"]()
    assert set(side_by_side().run(graph, inputs, steps).counting.values()) == {"computed"}
    without = NativeBackend(counting="computed", kernel="numba").run(graph, inputs, steps)
    assert set(without.counting.values()) == {"measured"}
    unproven = SpikingGraph(
        [
            Population(name="x", shape=(1,), kind="input", value_range=(0, 2**31 - 1)),
            Population(name="y", shape=(1,), kind="readout"),
        ],
        [Projection("x", "y", CSRConnection.from_scipy(np.array([[2**29]])))],
    )
    assert set(side_by_side().run(unproven, np.array([[3]]), 2).counting.values()) == {"computed"}
    assert set(side_by_side().run(unproven, np.array([[3]]), 9).counting.values()) == {"measured"}


def test_refuses_unknown_arguments() -> None:
    with pytest.raises(BackendError, match="found counting = 'guessed', expected 'measured' or 'computed'"):
        NativeBackend(counting="guessed")
    with pytest.raises(BackendError, match="found kernel = 'fortran', expected 'c' or 'numba'"):
        NativeBackend(kernel="fortran")
    with pytest.raises(ValueError, match="C-contiguous"):
        library.address(np.zeros((4, 4))[:, 1])


@pytest.mark.parametrize("broken", ["absent", "unreadable", "other version"])
def test_a_kernel_that_cannot_be_used_is_named_and_numba_takes_over(
    broken: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if broken == "other version":
        monkeypatch.setattr(library, "VERSION", 0)
    else:
        monkeypatch.setattr(library, "NAME", "sparsespike.backends.native._nothing")
    if broken == "unreadable":
        (tmp_path / "broken.so").write_bytes(b"no library")
        spec = type("Spec", (), {"origin": str(tmp_path / "broken.so")})
        monkeypatch.setattr(library, "find_spec", lambda _: spec)
    library._found.cache_clear()
    reasons = {
        "absent": "not built",
        "unreadable": r"broken\.so cannot be loaded",
        "other version": "built from other sources",
    }
    try:
        with pytest.raises(
            BackendError, match=f"the compiled kernel cannot be used: .*{reasons[broken]}.*; install a C compiler"
        ):
            NativeBackend(kernel="c")
        result = NativeBackend(counting="computed").run(*CASES["skips"]())
        assert set(result.counting.values()) == {"measured"}
        finding = _native_kernel()
        assert finding.works
        assert re.search(f"^numba; the compiled kernel: .*{reasons[broken]}", finding.found)
    finally:
        library._found.cache_clear()


def test_doctor_names_the_instruction_set() -> None:
    assert _native_kernel().found == f"compiled C, {library.INSTRUCTION_SETS[BEST]}"


def test_installs_without_a_compiler(tmp_path: Path) -> None:
    """The build goes on, and makes nothing, where the compiler fails; what it makes otherwise is what all tests above run."""
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "backends" / "native", tmp_path / "backends" / "native", ignore=shutil.ignore_patterns("*.so"))
    command = [sys.executable, "setup.py", "-q", "build_ext", "--build-lib", "out", "--inplace"]
    done = subprocess.run(
        command, cwd=tmp_path, env={**os.environ, "CC": "false"}, capture_output=True, text=True, check=True, timeout=120
    )
    assert "_simd" in done.stdout + done.stderr
    assert list(tmp_path.rglob("*.so")) == []
