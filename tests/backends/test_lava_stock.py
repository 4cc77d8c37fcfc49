"""The lowering to Lava's own LIF and Sparse: equal to the reference where they can express a graph, refused where not."""

import itertools
import subprocess

import numpy as np
import pytest

from sparsespike.backends.lava.environment import lava_python
from sparsespike.backends.lava.stock import stock_reasons, write_stock_program
from sparsespike.backends.testing import CASES, reference
from sparsespike.common.errors import BackendError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

RUNNER = """
import runpy, sys
sys.modules["sparsespike"] = None
for line in sys.stdin:
    sys.argv = line.split()
    runpy.run_path(sys.argv[0], run_name="__main__")
"""


def fires(name, n, **fields):
    arrays = {"threshold": np.full(n, 40), "v_init": np.full(n, 20)} | fields
    return Population(name=name, shape=(n,), kind="if", reset="zero", **arrays)


def chain_of_three(seed, largest):
    """Three populations with biases of both signs; the second one is two of them side by side."""
    rng = np.random.default_rng(seed)
    sizes = {"input": 6, "a": 9, "b": 7, "c": 5, "d": 6, "readout": 3}
    populations = [
        Population(name="input", shape=(6,), kind="input", value_range=(-4, 7)),
        fires("a", 9, bias=rng.integers(-2, 6, 9), threshold=2 * rng.integers(2, 21, 9), v_init=rng.integers(-9, 30, 9)),
        fires("b", 7, bias=rng.integers(-3, 4, 7)),
        fires("c", 5),
        fires("d", 6, bias=rng.integers(-3, 4, 6), v_init=np.array([0, 10, 30, 33, -7, 20])),
        Population(name="readout", shape=(3,), kind="readout", v_init=np.array([5, 0, -5]), bias=np.array([3, 0, -2])),
    ]
    pairs = ("input", "a"), ("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "readout")
    projections = [
        Projection(pre, post, CSRConnection.from_scipy(rng.integers(-largest, largest + 1, (sizes[pre], sizes[post]))))
        for pre, post in pairs
    ]
    return SpikingGraph(populations, projections), rng.integers(-4, 8, (2, 6))


def run_program(lines):
    done = subprocess.run([lava_python(), "-c", RUNNER], input="\n".join(lines), capture_output=True, text=True, timeout=300)
    return done.returncode, done.stderr


def test_stock_program_equals_the_reference(tmp_path):
    cases = {
        "odd": chain_of_three(0, 31),
        "wide": chain_of_three(1, 127),
        "one": (CASES["no_hidden"]().graph, np.array([[2, 5]])),
    }
    lines = []
    for name, (graph, inputs) in cases.items():
        write_stock_program(graph, tmp_path / name)
        np.save(tmp_path / name / "in.npy", inputs)
        lines.append(f"{tmp_path / name}/run.py {tmp_path / name}/in.npy --steps 12 --spikes --out {tmp_path / name}/out.npz")
    code, error = run_program(lines)
    assert code == 0, error
    for name, (graph, inputs) in cases.items():
        expected = reference(graph, inputs, 12)
        with np.load(tmp_path / name / "out.npz") as found:
            assert sorted(found.files) == sorted(["readout", "predictions", *(f"spikes/{each}" for each in graph.spiking)])
            assert np.array_equal(found["readout"], expected.readout[:, -1])
            assert np.array_equal(found["predictions"], expected.predictions[:, -1])
            for each in graph.spiking:
                assert np.array_equal(found[f"spikes/{each}"], expected.rasters[each])
                assert expected.rasters[each].any()


def test_stock_program_refuses_images_in_another_order(tmp_path):
    image = Population(name="input", shape=(2, 3, 4), kind="input", value_range=(0, 7))
    readout = Population(name="readout", shape=(2,), kind="readout")
    weights = CSRConnection.from_scipy(np.arange(2, 50).reshape(24, 2) * 2)
    write_stock_program(SpikingGraph([image, readout], [Projection("input", "readout", weights)]), tmp_path)
    np.save(tmp_path / "in.npy", np.zeros((1, 3, 4, 2), int))
    code, error = run_program([f"{tmp_path}/run.py {tmp_path}/in.npy --steps 2 --out {tmp_path}/out.npz"])
    assert code == 1
    assert "found int64 of shape (1, 3, 4, 2), expected integers (images, 24) or (images, 2, 3, 4), steps >= 1" in error


@pytest.mark.parametrize(
    ("case", "reasons"),
    [
        (
            "single_neuron",
            ["population 'hidden' is reset by subtraction, and LIF sets its membrane to 0: export to 'lava', which subtracts"],
        ),
        ("signed_memory", ["population 'signed' is of kind 'signed_if'", "'early' is reset by", "'late' is reset by"]),
        (
            "bias_modes",
            ["'once' is reset", "'once' has a bias that is added once", "'every' is reset", "'readout' has a bias that"],
        ),
        ("aec_two_digits", ["the input emits once", "population 'hidden' is of kind 'aec', and LIF fires at most one spike"]),
        ("skips", ["projection 'input' -> 'b' spans 2 depths", "projection 'a' -> 'readout' spans 3 depths"]),
        ("wide_weights", ["is reset by subtraction", "projection 'input' -> 'hidden' has weights -8388607..8388607"]),
    ],
)
def test_what_stock_processes_lack_is_named(case, reasons, tmp_path):
    graph = CASES[case]().graph
    with pytest.raises(BackendError) as caught:
        write_stock_program(graph, tmp_path)
    for reason in reasons:
        assert reason in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("fields", "early"),
    [
        ({"v_init": np.array([39])}, False),
        ({"v_init": np.array([40])}, True),
        ({"v_init": np.array([35]), "bias": np.array([-4])}, False),  # one step early it stands at 39
        ({"v_init": np.array([35]), "bias": np.array([-5])}, True),
    ],
)
def test_a_neuron_that_would_fire_before_its_first_step(fields, early):
    populations = [
        Population(name="input", shape=(1,), kind="input", value_range=(0, 1)),
        fires("a", 1),
        fires("b", 1),
        fires("c", 1, **fields),
        Population(name="readout", shape=(1,), kind="readout"),
    ]
    names = [population.name for population in populations]
    projections = [Projection(*pair, CSRConnection.from_scipy([[3]])) for pair in itertools.pairwise(names)]
    reasons = stock_reasons(SpikingGraph(populations, projections))
    assert bool(reasons) == early
    assert not early or "population 'c' would fire before its first step" in reasons[0]


def test_what_lava_would_clip_or_wrap_ends_the_program(tmp_path):
    graph = SpikingGraph(
        [
            Population(name="input", shape=(1,), kind="input", value_range=(0, 9000)),
            fires("a", 1, threshold=np.array([131070]), v_init=np.array([0])),
            Population(name="readout", shape=(1,), kind="readout"),
        ],
        [
            Projection("input", "a", CSRConnection.from_scipy([[-1]])),
            Projection("a", "readout", CSRConnection.from_scipy([[1]])),
        ],
    )
    write_stock_program(graph, tmp_path)
    for value, steps, message in (
        (4000, 33, f"population 'a', step 32: the word {4000 * 33 * 64} leaves 24 bits"),
        (4097, 1, f"population 'a', neuron 0: bias and input current are the word {-4097 * 64} together"),
    ):
        np.save(tmp_path / "in.npy", np.array([[value]]))
        code, error = run_program([f"{tmp_path}/run.py {tmp_path}/in.npy --steps {steps} --out {tmp_path}/out.npz"])
        assert (code, message in error) == (1, True), error
