"""The exported Brian2 program: runs where sparsespike cannot be imported, and equals the reference."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsespike.backends.brian2.script import write_script
from sparsespike.backends.testing import CASES, Case, reference
from sparsespike.common.errors import ConfigError, MembraneOverflowError
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

# Runs the program that its arguments name, in an interpreter that finds brian2 and does not find this package.
WITHOUT_US = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "sparsespike":
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
assert "sparsespike" not in sys.modules and "brian2" in sys.modules
"""


def run_exported(folder: Path, inputs: np.ndarray, *options: object) -> subprocess.CompletedProcess[str]:
    np.save(folder / "inputs.npy", inputs)
    command = [folder / "run.py", folder / "inputs.npy", "--out", folder / "results.npz", *options]
    return subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", WITHOUT_US, *map(str, command)],
        cwd=folder,
        env={"TMPDIR": str(folder), "PATH": ""},
        capture_output=True,
        text=True,
        timeout=300,
    )


def assert_exported_equals(case: Case, folder: Path, *options: object) -> None:
    graph, inputs, steps = case
    expected = reference(graph, inputs, steps)
    program, data = write_script(graph, folder)
    assert (program.name, data.name) == ("run.py", "network.npz")
    done = run_exported(folder, inputs, "--steps", steps, *options)
    assert (done.returncode, done.stderr) == (0, "")
    found = np.load(folder / "results.npz")
    assert np.array_equal(found["readout"], expected.readout)
    assert np.array_equal(found["predictions"], expected.predictions[:, -1])
    for key, counts in expected.events_by_step.items():
        assert np.array_equal(found["events/" + "/".join(key)], counts)
    for name, counts in expected.spikes.items():
        assert np.array_equal(found[f"spikes/{name}"], counts.events)
    for name in graph.spiking:
        raster = np.zeros_like(expected.rasters[name])
        image, step, neuron, value = found[f"spike_times/{name}"].T
        np.add.at(raster, (image, step, neuron), value.astype(np.int8))
        assert np.array_equal(raster, expected.rasters[name])


@pytest.mark.parametrize("name", ["reset_zero", "aec_skips"])
def test_exported_program_equals_the_reference(name: str, tmp_path: Path) -> None:
    assert_exported_equals(CASES[name](), tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("name", CASES)
def test_exported_program_of_every_case_equals_the_reference(name: str, tmp_path: Path) -> None:
    assert_exported_equals(CASES[name](), tmp_path)


def test_exported_program_refuses_what_does_not_fit(tmp_path: Path) -> None:
    graph, inputs, _ = CASES["aec_skips"]()
    write_script(graph, tmp_path)
    for wrong, options, message in (
        (inputs * 100, (), "found inputs -300..900, expected -3..9"),
        (inputs[:, None], (), "inputs int64 (5, 1, 2); expected integers, (images, 2)"),
        (np.int64(3), (), "inputs int64 (); expected integers, (images, 2)"),
        (inputs[:0], (), "inputs int64 (0, 2); expected"),
        (inputs, ("--steps", 4), "invalid choice: 4"),
    ):
        done = run_exported(tmp_path, wrong, *options)
        assert done.returncode == 2
        assert message in done.stderr


def amplifier(high: int) -> SpikingGraph:
    return SpikingGraph(
        [
            Population(name="input", shape=(1,), kind="input", value_range=(0, high)),
            Population(name="sum", shape=(1,), kind="readout"),
        ],
        [Projection("input", "sum", CSRConnection.from_scipy(np.array([[2**31 - 1]])))],
    )


def test_exported_program_ends_where_float64_is_no_longer_exact(tmp_path: Path) -> None:
    write_script(amplifier(2**20), tmp_path)
    done = run_exported(tmp_path, np.array([[2**20]]), "--steps", 4)
    assert done.returncode == 1
    assert "a membrane of population1 has reached 4503599627370496" in done.stderr
    assert not (tmp_path / "results.npz").exists()
    with pytest.raises(MembraneOverflowError, match=r"'sum' can reach \d+ in one step, expected less than 2\^52"):
        write_script(amplifier(2**22), tmp_path)


def test_folder_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match=r"cannot write .*file/network\.npz: File exists; choose a folder"):
        write_script(amplifier(1), tmp_path / "file")
