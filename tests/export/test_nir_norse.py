"""NIR against a peer: Norse runs what is written here as the native backend does, and what Norse writes runs here as in Norse."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from sparsespike.backends.brian2 import Brian2Backend
from sparsespike.backends.compare import first_divergence
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing.lif_cases import lif_population
from sparsespike.common.errors import ModelError
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.nir.layers import KNOWN_STEPS
from sparsespike.export.nir.reading import read_nir
from sparsespike.export.nir.writing import write_nir

DT = 2.0**-10
"""A step of Norse's: about its own 1e-3, and exact in single precision."""
STEPS = 20
MAPPED = (nir.IF, nir.LIF, nir.CubaLIF, nir.Affine, nir.Linear, nir.Conv2d, nir.Flatten)
Array = NDArray[Any]


@pytest.fixture(scope="module")
def norse() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.script` is deprecated", DeprecationWarning)  # Norse, when imported
        import norse.torch
    return norse.torch


@pytest.fixture(scope="module")
def in_norse(norse: Any) -> Callable[[nir.NIRGraph], Any]:
    """A NIR network as a torch module of Norse's neurons."""
    import nirtorch
    from norse.torch.utils import import_nir

    def mapped(node: Any) -> Any:
        return import_nir._import_norse_module(node, dt=DT)

    return lambda network: nirtorch.nir_to_torch(network, dict.fromkeys(MAPPED, mapped))


def csr(rng: np.random.Generator, pre: int, post: int, unit: int = 1) -> CSRConnection:
    return CSRConnection.from_scipy(unit * rng.integers(-4, 7, (pre, post)) * (rng.random((pre, post)) < 0.4))


def plain(shape: tuple[int, ...]) -> SpikingGraph:
    """Two hidden populations, every neuron with its own threshold, biases, and skips to the second and to the readout."""
    rng = np.random.default_rng(3)
    size, hidden = int(np.prod(shape)), (3, *shape[1:]) if len(shape) == 3 else (20,)
    n, volume = int(np.prod(hidden)), len(shape) == 3
    kernel = rng.integers(-3, 5, (3, shape[0], 3, 3))
    first = Conv2dConnection(kernel, (shape[0], shape[-2], shape[-1]), padding=(1, 1)) if volume else csr(rng, size, n)
    per_channel = np.repeat(rng.integers(-2, 4, hidden[0]), n // hidden[0])
    a = {"threshold": 2 * rng.integers(5, 30, n), "bias": per_channel}
    b = {"threshold": 2 * rng.integers(3, 20, 7), "bias": rng.integers(-2, 4, 7)}
    populations = [
        Population(name="input", shape=shape, kind="input", value_range=(0, 9)),
        Population(name="net.a", shape=hidden, kind="if", reset="zero", **a),
        Population(name="b", shape=(7,), kind="if", reset="zero", **b),
        Population(name="readout", shape=(4,), kind="readout", bias=[1, -2, 3, 0]),
    ]
    projections = [
        Projection("input", "net.a", first),
        Projection("input", "b", csr(rng, size, 7)),
        Projection("net.a", "b", csr(rng, n, 7)),
        Projection("b", "readout", csr(rng, 7, 4)),
        Projection("net.a", "readout", csr(rng, n, 4)),
    ]
    return SpikingGraph(populations, projections)


def leaky(decay_current: int) -> SpikingGraph:
    """Halving membranes, and weights of 2^20: nothing is rounded in 20 steps, and single precision holds every membrane.

    Four bits of a weight and twenty of its halves fill the 24 bits; a membrane that has come up from zero again needs no more.
    """
    rng = np.random.default_rng(3)
    unit = 2**STEPS
    populations = [
        Population(name="input", shape=(12,), kind="input", value_range=(0, 1)),
        lif_population("a", unit * rng.integers(3, 9, 20), 2048, decay_current),
        lif_population("b", unit * rng.integers(2, 8, 7), 2048, decay_current),
        Population(name="readout", shape=(4,), kind="readout", bias=[1, -2, 3, 0]),
    ]
    projections = [
        Projection("input", "a", csr(rng, 12, 20, unit)),
        Projection("input", "b", csr(rng, 12, 7, unit)),
        Projection("a", "b", csr(rng, 20, 7, unit)),
        Projection("b", "readout", csr(rng, 7, 4)),
        Projection("a", "readout", csr(rng, 20, 4)),
    ]
    return SpikingGraph(populations, projections)


GRAPHS = {
    "if, flat": lambda: (plain((12,)), STEPS),
    "if, convolution": lambda: (plain((2, 6, 6)), STEPS),
    "lif": lambda: (leaky(4096), STEPS),
    "lif with currents of memory": lambda: (leaky(2048), 9),  # two halvings a step
}


@pytest.mark.parametrize("name", GRAPHS)
def test_norse_fires_as_native(name: str, in_norse: Callable[[nir.NIRGraph], Any], tmp_path: Path) -> None:
    graph, steps = GRAPHS[name]()
    high = graph.input.value_range[1] + 1
    images = np.random.default_rng(4).integers(0, high, (3, graph.input.size))
    expected = NativeBackend().run(graph, images, steps, record=graph.spiking)
    write_nir(graph, tmp_path / "network.nir", dt=DT)
    peer = in_norse(nir.read(str(tmp_path / "network.nir")))
    peer.double()
    rasters: dict[str, list[Any]] = {name: [] for name in graph.spiking}
    for population in graph.spiking:
        module = peer.get_submodule(population.replace(".", "_"))
        module.register_forward_hook(lambda _, __, out, name=population: rasters[name].append(out[0].flatten().tolist()))
    for b, image in enumerate(images):
        state, scores = None, np.zeros(graph.readout.size)
        for population in graph.spiking:
            rasters[population].clear()
        for step in range(steps):
            values, state = peer(torch.tensor(image.reshape(graph.input.shape), dtype=torch.float64), state)
            scores += values.detach().numpy()
            np.testing.assert_array_equal(scores, expected.readout[b, step])
        for population in graph.spiking:
            np.testing.assert_array_equal(rasters[population], expected.rasters[population][b])
    for population in graph.spiking:
        spikes = expected.spikes[population].positive.sum()
        assert 20 < spikes < 0.9 * 3 * steps * graph.population(population).size


def made_by_norse(norse: Any, rng: np.random.Generator) -> Any:
    """A network of Norse's neurons: leaky ones of two time constants, and integrate-and-fire."""

    def linear(inputs: int, outputs: int) -> torch.nn.Linear:
        layer = torch.nn.Linear(inputs, outputs)
        layer.weight.data = torch.tensor(rng.integers(-3, 6, (outputs, inputs)) / 4.0, dtype=torch.float32)
        layer.bias.data = torch.tensor(rng.integers(-1, 3, outputs) / 4.0, dtype=torch.float32)
        return layer

    def box(size: int, rate: float) -> Any:
        """A cell that loses ``rate`` * DT of its membrane in a step."""
        threshold = torch.tensor(rng.integers(2, 7, size) / 8.0, dtype=torch.float32)
        p = norse.LIFBoxParameters(tau_mem_inv=torch.full((size,), rate), v_th=threshold, v_leak=torch.zeros(size))
        return norse.LIFBoxCell(p, dt=DT)

    cell = norse.IAFCell(norse.IAFParameters(v_th=torch.tensor(rng.integers(2, 9, 6) / 2.0, dtype=torch.float32)))
    return norse.SequentialState(linear(5, 12), box(12, 256.0), linear(12, 9), box(9, 512.0), linear(9, 6), cell)


def norses_spikes(norse: Any, module: Any, images: Array, steps: int) -> list[list[Any]]:
    """Spikes of every cell at each step of each image, one after the other."""
    cells = [cell for cell in module if isinstance(cell, (norse.LIFBoxCell, norse.IAFCell))]
    seen: list[list[Any]] = [[] for _ in cells]
    for spikes, cell in zip(seen, cells, strict=True):
        cell.register_forward_hook(lambda _, __, out, spikes=spikes: spikes.append(out[0].flatten().tolist()))
    for image in images:
        state = None
        for _ in range(steps):
            _, state = module(torch.tensor(image, dtype=torch.float32)[None], state)
    return seen


def test_a_network_of_norses_runs_on_the_backends_as_in_norse(norse: Any, tmp_path: Path) -> None:
    """A step takes a quarter and a half: ten of them use up at most 20 bits, so nothing is rounded, here or there."""
    rng = np.random.default_rng(6)
    module, steps = made_by_norse(norse, rng), 10
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nirtorch.extract_nir_graph is being deprecated", DeprecationWarning)  # Norse calls it
        # Norse gives tau = dt / tau_mem_inv, which is the time constant for dt = 1 alone.
        written = norse.to_nir(module, torch.zeros(1, 5), dt=1.0)
    nir.write(tmp_path / "norse.nir", written)
    found = read_nir(tmp_path / "norse.nir", (0, 3), dt=DT)
    graph = found.graph
    assert [graph.population(name).kind for name in graph.spiking] == ["lif", "lif", "if"]
    assert set(found.decay_error.values()) == {0.0}
    assert set(found.weight_error.values()) == {0.0}
    images = rng.integers(0, 4, (4, 5))
    result = NativeBackend().run(graph, images, steps, record=graph.spiking)
    assert first_divergence(graph, result, Brian2Backend().run(graph, images, steps, record=graph.spiking)) is None
    for name, spikes in zip(graph.spiking, norses_spikes(norse, module, images, steps), strict=True):
        np.testing.assert_array_equal(result.rasters[name].reshape(len(images) * steps, -1), spikes, err_msg=name)
    for name in graph.spiking:
        assert 15 < result.spikes[name].positive.sum() < 0.9 * 4 * steps * graph.population(name).size, name


@pytest.mark.parametrize(
    ("options", "pattern"), [({}, r"Norse: (\S+) as its to_nir writes"), ({"dt": 1}, r"(\S+) from to_nir\(\.\.\., dt=1\)")]
)
def test_what_norse_writes_fires_as_in_norse_with_the_step_that_is_said(
    options: dict[str, Any], pattern: str, norse: Any, tmp_path: Path
) -> None:
    """Cells of Norse's own step; a step takes a quarter and a half, which are 4096ths."""
    found = re.search(pattern, KNOWN_STEPS)
    assert found is not None
    rng, steps = np.random.default_rng(2), 12

    def linear(inputs: int, outputs: int) -> torch.nn.Linear:
        layer = torch.nn.Linear(inputs, outputs)
        layer.weight.data = torch.tensor(rng.normal(0.2, 0.6, (outputs, inputs)), dtype=torch.float32)
        layer.bias.data = torch.tensor(rng.normal(0.1, 0.2, outputs), dtype=torch.float32)
        return layer

    def box(size: int, rate: float) -> Any:
        threshold = torch.tensor(rng.uniform(0.1, 0.5, size), dtype=torch.float32)
        return norse.LIFBoxCell(norse.LIFBoxParameters(torch.full((size,), rate), v_th=threshold, v_leak=torch.zeros(size)))

    module = norse.SequentialState(linear(5, 12), box(12, 250.0), linear(12, 9), box(9, 500.0))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "nirtorch.extract_nir_graph is being deprecated", DeprecationWarning)
        nir.write(tmp_path / "norse.nir", norse.to_nir(module, torch.zeros(1, 5), **options))
    graph = read_nir(tmp_path / "norse.nir", (0, 1), dt=float(found[1])).graph
    images = rng.integers(0, 2, (6, 5))
    run = NativeBackend().run(graph, images, steps, record=graph.spiking)
    for name, spikes in zip(graph.spiking, norses_spikes(norse, module, images, steps), strict=True):
        np.testing.assert_array_equal(run.rasters[name].reshape(len(images) * steps, -1), spikes, err_msg=name)
        assert 0.1 < np.mean(spikes) < 0.9, name
    with pytest.raises(ModelError, match=r"There is one right dt.*Norse: 1e-6 as its to_nir writes them unless told"):
        read_nir(tmp_path / "norse.nir", (0, 1), dt=1.0)
