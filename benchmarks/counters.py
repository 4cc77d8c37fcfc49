"""Counts of synaptic operations by other packages' own code on one converted network, beside ours of the same names.

    pip install --target PACKAGES --no-deps neurobench==2.2.0 snntorch syops==0.0.5 spikingjelly progress sinabs pbr
    PYTHONPATH=PACKAGES python benchmarks/counters.py GRAPH.safetensors --images 8 --steps 16

The packages get a torch copy of the graph (`torch_copy`): ``nn.Linear`` and ``nn.Conv2d`` with its integer weights in float64,
where every sum is exact, and neurons that fire as the graph says. They are not dependencies: those that cannot be imported are
left out and named. What they count is printed beside `sparsespike.energy.counters`, by projection.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from sparsespike.backends.base import RunResult
from sparsespike.backends.native import NativeBackend
from sparsespike.energy.counters import count_all
from sparsespike.export.connections import Connection, Conv2dConnection
from sparsespike.export.graph import Key, SpikingGraph
from sparsespike.export.graphfile import load_graph


class TorchCopy(nn.Module):
    """A graph of ``if`` and ``signed_if`` populations as a torch module, one call of a layer a step and batch.

    Parameters
    ----------
    graph : SpikingGraph
    steps : int
        T.

    Attributes
    ----------
    layers : ModuleDict of str to Linear or Conv2d
        By ``name_of(key)``; float64, no bias: biases are added to the membranes, as neurons do.
    """

    def __init__(self, graph: SpikingGraph, steps: int) -> None:
        super().__init__()
        kinds = {graph.population(name).kind for name in graph.spiking}
        if not kinds <= {"if", "signed_if"}:
            raise ValueError(f"torch copy: found populations of kind {sorted(kinds)}, expected if and signed_if alone")
        self.graph, self.steps = graph, steps
        self.layers = nn.ModuleDict({name_of(p.key): torch_layer(p.connection) for p in graph.projections})

    def forward(self, images: Tensor) -> Tensor:
        """Membranes of the readout after T steps, shape (B, classes), of integer images of shape (B, N)."""
        graph = self.graph
        membrane = {name: self._start(name, len(images)) for name in graph.order if name != graph.input.name}
        net = {name: torch.zeros_like(membrane[name]) for name in graph.spiking}
        for t in range(self.steps):
            quiet = t > 0 and graph.input.bias_mode == "once"
            sent = {graph.input.name: torch.zeros_like(images) if quiet else images}
            for name in graph.order[1:]:
                population = graph.population(name)
                current = sum(self._current(p.key, sent[p.pre]) for p in graph.into(name))
                added = torch.as_tensor(population.bias) * (t == 0 or population.bias_mode == "every_step")
                membrane[name] = membrane[name] + current + added
                if population.kind != "readout":
                    sent[name], membrane[name], net[name] = self._fire(name, membrane[name], net[name])
        return membrane[graph.readout.name]

    def _start(self, name: str, images: int) -> Tensor:
        return torch.as_tensor(self.graph.population(name).v_init, dtype=torch.float64).repeat(images, 1)

    def _current(self, key: Key, sent: Tensor) -> Tensor:
        layer = self.layers[name_of(key)]
        if isinstance(layer, nn.Conv2d):
            sent = sent.reshape(len(sent), *self.graph.population(key[0]).shape)
        flat: Tensor = layer(sent).flatten(1)
        return flat

    def _fire(self, name: str, membrane: Tensor, net: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        population = self.graph.population(name)
        threshold = torch.as_tensor(population.threshold, dtype=torch.float64)
        spikes = (membrane >= threshold).to(torch.float64)
        after = torch.zeros_like(membrane) if population.reset == "zero" else membrane - threshold
        membrane = torch.where(spikes > 0, after, membrane)
        if population.threshold_neg is not None:
            negative = torch.as_tensor(population.threshold_neg, dtype=torch.float64)
            fired = (spikes == 0) & (membrane <= -negative) & (net > 0)
            after = torch.zeros_like(membrane) if population.reset == "zero" else membrane + negative
            membrane = torch.where(fired, after, membrane)
            spikes = spikes - fired.to(torch.float64)
        return spikes, membrane, net + spikes


def name_of(key: Key) -> str:
    """A projection's name among the layers of the copy; torch allows no dots in it."""
    return "__".join(key).replace(".", "_")


def torch_layer(connection: Connection) -> nn.Module:
    """A connection as ``nn.Conv2d`` or, transposed, as ``nn.Linear`` with its zeros, float64."""
    layer: nn.Linear | nn.Conv2d
    if isinstance(connection, Conv2dConnection):
        c_out, c_per_group, *size = connection.kernel.shape
        layer = nn.Conv2d(
            c_per_group * connection.groups,
            c_out,
            tuple(size),
            stride=connection.stride,
            padding=connection.padding,
            dilation=connection.dilation,
            groups=connection.groups,
            bias=False,
            dtype=torch.float64,
        )
        weights: NDArray[Any] = connection.kernel
    else:
        n_in, n_out = connection.shape
        layer = nn.Linear(n_in, n_out, bias=False, dtype=torch.float64)
        weights = connection.to_csr().to_scipy().toarray().T
    layer.weight.data = torch.tensor(weights.astype(np.float64))
    return layer


def neurobench_counts(copy: TorchCopy, images: Tensor) -> dict[str, dict[str, float]]:
    """NeuroBench's SynapticOperations, layer by layer: it is run once for each layer, with that layer's hook alone."""
    from neurobench.metrics.workload import SynapticOperations
    from neurobench.models import TorchModel

    model = TorchModel(copy)
    model.register_hooks()
    predictions = model(images)
    labels = torch.zeros(len(images))
    hooks, found = list(model.connection_hooks), {}
    names = {id(layer): name for name, layer in copy.layers.items()}
    for hook in hooks:
        model.connection_hooks = [hook]
        metric = SynapticOperations()
        metric(model, predictions, (images, labels))
        found[names[id(hook.layer)]] = {"ACs": metric.AC, "MACs": metric.MAC}
    model.connection_hooks = hooks
    model.cleanup_hooks()
    return found


def syops_counts(copy: TorchCopy, images: Tensor) -> dict[str, dict[str, float]]:
    """syops-counter's hooks of Linear and Conv2d, registered by its own table of modules."""
    from syops.ops import MODULES_MAPPING

    handles = []
    for layer in copy.layers.values():
        layer.__syops__ = np.zeros(4)
        handles.append(layer.register_forward_hook(MODULES_MAPPING[type(layer)]))
    copy(images)
    for handle in handles:
        handle.remove()
    return {name: {"ACs": layer.__syops__[1], "MACs": layer.__syops__[2]} for name, layer in copy.layers.items()}


def sinabs_counts(copy: TorchCopy, images: Tensor) -> dict[str, dict[str, float]]:
    """sinabs' synops hooks of Linear and Conv2d, which give the mean over the batch of each call."""
    from sinabs.hooks import conv_layer_synops_hook, get_hook_data_dict, linear_layer_synops_hook

    found = {name: {"ACs": 0.0, "MACs": 0.0} for name in copy.layers}

    def add(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def hook(layer: nn.Module, inputs: Any, output: Tensor) -> None:
            package = conv_layer_synops_hook if isinstance(layer, nn.Conv2d) else linear_layer_synops_hook
            package(layer, inputs, output)
            found[name]["ACs"] += float(get_hook_data_dict(layer)["layer_synops_per_timestep"]) * len(inputs[0])

        return hook

    handles = [layer.register_forward_hook(add(name)) for name, layer in copy.layers.items()]
    copy(images)
    for handle in handles:
        handle.remove()
    return found


PACKAGES: dict[str, Callable[[TorchCopy, Tensor], dict[str, dict[str, float]]]] = {
    "neurobench": neurobench_counts,
    "syops": syops_counts,
    "sinabs": sinabs_counts,
}


def compare(graph: SpikingGraph, inputs: NDArray[np.int64], steps: int) -> dict[str, Any]:
    """Counts of every package that can be imported, beside ours; sums over images."""
    run: RunResult = NativeBackend().run(graph, inputs, steps, record=graph.spiking)
    copy = TorchCopy(graph, steps)
    images = torch.as_tensor(inputs, dtype=torch.float64)
    with torch.no_grad():
        same = np.array_equal(copy(images).numpy().astype(np.int64), run.readout[:, -1])
        packages = {name: _count(name, copy, images) for name in PACKAGES}
    ours = count_all(graph, run, inputs)
    return {
        "images": len(inputs),
        "steps": steps,
        "copy_equals_native": bool(same),
        "ours": {
            name: {name_of((c.pre, c.post)): {"ACs": float(c.acs), "MACs": float(c.macs)} for c in counts}
            for name, counts in ours.items()
        },
        "packages": packages,
    }


def _count(name: str, copy: TorchCopy, images: Tensor) -> dict[str, dict[str, float]] | str:
    """A package's counts, or why it cannot be imported."""
    try:
        return PACKAGES[name](copy, images)
    except ImportError as error:
        return f"cannot be imported: {error}"


def main() -> None:
    """Read the command line, count, print."""
    parser = argparse.ArgumentParser(description="Counts of other packages beside ours, on a torch copy of one graph.")
    parser.add_argument("graph", type=Path)
    parser.add_argument("--inputs", type=Path, help="images as .npy, integers (B, N); default: random ones")
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--steps", type=int, default=16)
    settings = parser.parse_args()
    torch.set_num_threads(1)
    graph = load_graph(settings.graph)
    low, high = graph.input.value_range or (0, 0)
    random = np.random.default_rng(0).integers(low, high, (settings.images, graph.input.size), endpoint=True)
    inputs = np.load(settings.inputs)[: settings.images] if settings.inputs else random * (random > (low + high) // 4)
    print(json.dumps(compare(graph, inputs.astype(np.int64), settings.steps), indent=1))


if __name__ == "__main__":
    main()
