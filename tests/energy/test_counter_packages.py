"""Our definitions against the packages' own code, on torch copies of converted networks; in an environment of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.graphfile import save_graph

pytestmark = pytest.mark.full

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "counters.py"
INSTALLED = (
    *("neurobench==2.2.0", "snntorch==1.0.0", "syops==0.0.5", "spikingjelly==0.0.0.0.14"),
    *("progress==1.6.1", "sinabs==3.1.3", "pbr==7.1.3"),
)
RUN = (sys.executable, "-m", "sparsespike.cli")


def convolutional(shape: tuple[int, int, int]) -> SpikingGraph:
    """Borders, a stride, groups, and signed neurons that do fire -1."""
    rng = np.random.default_rng(0)

    def weights(*size: int) -> np.ndarray:
        return rng.integers(-9, 10, size) * (rng.random(size) < 0.5)

    first = Conv2dConnection(kernel=weights(4, 2, 3, 3), input_shape=shape, padding=(1, 1))
    second = Conv2dConnection(kernel=weights(6, 2, 3, 3), input_shape=(4, 6, 6), padding=(1, 1), stride=(2, 2), groups=2)
    populations = [
        Population(name="input", shape=shape, kind="input", value_range=(0, 15)),
        Population(name="conv1", shape=(4, 6, 6), kind="if", threshold=np.full(144, 30), v_init=np.full(144, 15)),
        Population(name="conv2", shape=(6, 3, 3), kind="signed_if", threshold=np.full(54, 6), threshold_neg=np.full(54, 2)),
        Population(name="full", shape=(20,), kind="if", threshold=np.full(20, 8)),
        Population(name="readout", shape=(5,), kind="readout"),
    ]
    connections = [first, second, CSRConnection.from_scipy(weights(54, 20)), CSRConnection.from_scipy(weights(20, 5))]
    names = [population.name for population in populations]
    return SpikingGraph(populations, [Projection(a, b, c) for a, b, c in zip(names[:-1], names[1:], connections, strict=True)])


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the packages alone: torch and numpy are this environment's."""
    folder = tmp_path_factory.mktemp("packages")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *INSTALLED]
    subprocess.run(command, check=True, timeout=600)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Graphs of trained CHT networks, converted by methods 1 and 2, and one with convolutions."""
    made = tmp_path_factory.mktemp("graphs")
    network = ("--hidden", "60,40", "--sparsity", "0.8", "--epochs", "2", "--topology", "er")
    for name, activation, method in (("qcfs", "qcfs", "qcfs"), ("snm", "relu", "snm")):
        for command in (
            ("train", "--out", made / name, "--activation", activation, *network),
            ("convert", made / name, "--method", method, "--out", made / f"{name}.safetensors"),
        ):
            subprocess.run([*RUN, *map(str, command)], check=True, capture_output=True, timeout=600)
    save_graph(convolutional((2, 6, 6)), made / "conv.safetensors")
    return made


@pytest.mark.parametrize("network", ["qcfs", "snm", "conv"])
def test_counts_are_those_of_the_packages(packages: str, folder: Path, network: str) -> None:
    environment = {**os.environ, "PYTHONPATH": packages}
    command = [sys.executable, str(SCRIPT), str(folder / f"{network}.safetensors"), "--images", "6", "--steps", "12"]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    assert ended.returncode == 0, ended.stderr
    document = json.loads(ended.stdout)
    assert document["copy_equals_native"]
    # Counts of 0 would be equal too.
    assert all(count["ACs"] > 0 for count in list(document["ours"]["neurobench"].values())[1:])
    assert document["packages"]["neurobench"] == document["ours"]["neurobench"]
    for name in ("syops", "sinabs"):
        for layer, ours in document["ours"][name].items():
            # Their rates and means are rounded to float64.
            assert document["packages"][name][layer] == pytest.approx(ours, rel=1e-12), (name, layer)
    if network == "conv":
        layer = document["ours"]["syops"]["conv2__full"]
        assert layer["MACs"] > 0, "a layer fed with a -1 is a dense one for syops"
