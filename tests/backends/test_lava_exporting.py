"""The exported Lava program, run where this package cannot be imported, against the reference."""

import subprocess

import numpy as np
import pytest

from sparsespike.backends.lava.environment import lava_python
from sparsespike.backends.lava.exporting import write_program
from sparsespike.backends.testing import CASES, Case, reference
from sparsespike.common.errors import BackendError, ConfigError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.population import NEVER

# Several networks in one interpreter, in which this package does not exist: importing Lava takes longer than running them.
RUNNER = """
import runpy, sys
sys.modules["sparsespike"] = None
for line in sys.stdin:
    sys.argv = line.split()
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
CHOSEN = (
    "bias_modes",
    "signed_memory",
    "reset_zero",
    "skips",
    "input_once",
    "convolution",
    "lif_current",
    "lif_beside_others",
    "aec_order",
    "aec_skips",
    "aec_forced",
)


def run_programs(lines):
    """Standard output and error of ``run.py ...`` lines."""
    done = subprocess.run([lava_python(), "-c", RUNNER], input="\n".join(lines), capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout, done.stderr


def never_firing():
    """A neuron that never fires, with a current that leaves 24 bits in time."""
    graph = SpikingGraph(
        [
            Population(name="input", shape=(1,), kind="input", value_range=(0, 255)),
            Population(name="hidden", shape=(2,), kind="if", threshold=np.array([NEVER, 600])),
            Population(name="readout", shape=(1,), kind="readout"),
        ],
        [
            Projection("input", "hidden", CSRConnection.from_scipy([[255, 1]])),
            Projection("hidden", "readout", CSRConnection.from_scipy([[3], [5]])),
        ],
    )
    return Case(graph, np.array([[255], [7]]), 20)


@pytest.mark.parametrize("model", ["floating_pt", "fixed_pt"])
def test_program_equals_the_reference_without_this_package(tmp_path, model):
    cases = {name: CASES[name]() for name in CHOSEN} | {"never_firing": never_firing()}
    lines = []
    for name, (graph, inputs, steps) in cases.items():
        folder = tmp_path / name
        assert [path.name for path in write_program(graph, folder, model)] == ["run.py", "network.json", "network.npz"]
        images = np.tile(inputs, (70, 1)) if name == "bias_modes" else inputs.reshape(-1, *graph.input.shape)
        np.save(folder / "in.npy", images)
        given = "" if graph.slots else f" --steps {steps}"
        lines.append(f"{folder}/run.py {folder}/in.npy --out {folder}/out.npz{given}")
    code, output, error = run_programs(lines)
    assert code == 0, error
    assert output.count(" steps: ") == len(cases)
    for name, (graph, inputs, steps) in cases.items():
        expected = reference(graph, np.tile(inputs, (70, 1)) if name == "bias_modes" else inputs, steps)
        with np.load(tmp_path / name / "out.npz") as found:
            wanted = {"readout": expected.readout, "predictions": expected.predictions[:, -1]}
            wanted |= {f"spikes/{population}": counts.events for population, counts in expected.spikes.items()}
            wanted |= {f"events/{pre}/{post}": counts for (pre, post), counts in expected.events_by_step.items()}
            assert sorted(found.files) == sorted(wanted)
            for key, array in wanted.items():
                assert np.array_equal(found[key], array), (name, key)


def test_program_refuses_wrong_inputs_and_leaves_nothing_running(tmp_path):
    graph, inputs, steps = CASES["aec_skips"]()
    write_program(graph, tmp_path)
    line = f"{tmp_path}/run.py {tmp_path}/in.npy --out {tmp_path}/out.npz"
    for values, more, message in (
        (inputs.astype(float), "", "inputs: found float64 of shape (5, 2), expected integers (images, 2)"),
        (inputs[:, :1], "", "inputs: found int64 of shape (5, 1), expected integers (images, 2)"),
        (inputs[:, None], "", "inputs: found int64 of shape (5, 1, 2), expected integers (images, 2)"),
        (inputs + 100, "", "inputs: expected at least one image, and values in -3..9"),
        (inputs, f" --steps {steps + 1}", f"steps: found {steps + 1}, expected {steps}"),
    ):
        np.save(tmp_path / "in.npy", values)
        code, _, error = run_programs([line + more])
        assert (code, message in error) == (1, True), error


def test_program_in_fixed_point_ends_when_a_word_overflows(tmp_path):
    graph, _, _ = never_firing()
    hidden = Population(
        name="hidden", shape=(2,), kind="if", threshold=np.array([2**23 - 2, 600]), v_init=np.array([-(2**23) + 1, 0])
    )
    projections = [Projection("input", "hidden", CSRConnection.from_scipy([[-1, -1]])), graph.projections[1]]
    write_program(SpikingGraph([graph.input, hidden, graph.readout], projections), tmp_path, "fixed_pt")
    np.save(tmp_path / "in.npy", np.array([[0], [9]]))
    code, _, error = run_programs([f"{tmp_path}/run.py {tmp_path}/in.npy --out {tmp_path}/out.npz --steps 3"])
    assert code == -9
    assert (
        "population 'hidden', image 1, Lava time step 2: the membrane of neuron 0 is -8388616, expected at most 8388607" in error
    )
    assert not (tmp_path / "out.npz").exists()


def test_export_in_fixed_point_of_a_graph_that_does_not_fit(tmp_path):
    with pytest.raises(BackendError, match="export to Lava in fixed point: projection 'input' -> 'hidden' has weights"):
        write_program(CASES["wide_weights"]().graph, tmp_path, "fixed_pt")
    assert list(tmp_path.iterdir()) == []


def test_export_to_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="file: cannot be written to"):
        write_program(CASES["tie"]().graph, tmp_path / "file")
