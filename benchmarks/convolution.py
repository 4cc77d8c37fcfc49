"""A spiking VGG on native, without expansion, against a dense simulation of the same network in torch.

    python benchmarks/convolution.py --data imagefolder:PATH --run runs/vgg-small-cs-qcfs [--images 256] [--steps 16] [--rounds 5]

The network of a run of ``sparsespike finetune --method cs-qcfs``, converted with 8-bit weights. torch convolves the spikes of a
batch in every step, in float32, which is exact here (integers below 2^24, proven by the graph's bounds); a pool that conversion
composed into a convolution is taken out again, as a person would write it, and the first layer's constant current is computed
once. Both give the spikes of every image and population, and these must be equal. One core each, all in turns.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from alternatives.timing import Alternative, in_turns, timed
from numpy.typing import NDArray
from torch.nn.functional import avg_pool2d, conv2d

from sparsespike.ann.checkpoint import load_model
from sparsespike.ann.comparison import markdown_table
from sparsespike.ann.data import load
from sparsespike.ann.encoding import Encoding
from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.cli.benchmark import machine
from sparsespike.common.files import write_text
from sparsespike.export.bounds import bounds
from sparsespike.export.connections import Connection, Conv2dConnection
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.qcfs import convert_qcfs

RESULTS = Path(__file__).parent / "results"
BATCH = 64
FLOAT32_EXACT = 2**24
Product = Callable[[torch.Tensor], torch.Tensor]


def product(connection: Connection) -> Product:
    """From what a population emits, shape (B, N), to the current that arrives, as torch computes it densely."""
    if not isinstance(connection, Conv2dConnection):
        weights = torch.from_numpy(connection.to_csr().to_scipy().toarray().astype(np.float32))
        return lambda emitted: emitted @ weights
    kernel, stride, padding, pool = connection.kernel, connection.stride, connection.padding, _composed_pool(connection)
    weights = torch.from_numpy(kernel[:, :, ::pool, ::pool].astype(np.float32))
    stride, padding = (stride[0] // pool, stride[1] // pool), (padding[0] // pool, padding[1] // pool)

    def convolve(emitted: torch.Tensor) -> torch.Tensor:
        image = emitted.reshape(-1, *connection.input_shape)
        if pool > 1:
            image = avg_pool2d(image, pool, divisor_override=1)
        current = conv2d(image, weights, stride=stride, padding=padding, dilation=connection.dilation, groups=connection.groups)
        return current.flatten(1)

    return convolve


def _composed_pool(connection: Conv2dConnection) -> int:
    """Size of the average pool that conversion composed into a convolution: 2, or 1 if there is none."""
    kernel = connection.kernel
    if any(size % 2 for size in (*kernel.shape[2:], *connection.stride, *connection.padding)):
        return 1
    small = kernel[:, :, ::2, ::2]
    return 2 if np.array_equal(kernel, small.repeat(2, axis=2).repeat(2, axis=3)) else 1


def dense(graph: SpikingGraph, images: NDArray[np.uint8], steps: int) -> tuple[dict[str, NDArray[np.int64]], NDArray[np.int64]]:
    """Spikes of each population by image, shape (B,), and predictions, of a chain of ``if`` populations."""
    ways = [product(graph.into(name)[0].connection) for name in graph.order[1:]]
    populations = [graph.population(name) for name in graph.order[1:]]
    fields = [
        [torch.from_numpy(np.asarray(array, np.float32)) for array in (p.threshold, p.v_init, p.bias) if array is not None]
        for p in populations
    ]
    spikes = {name: np.zeros(len(images), np.int64) for name in graph.spiking}
    predictions = []
    for start in range(0, len(images), BATCH):
        part = slice(start, start + BATCH)
        first = ways[0](torch.from_numpy(images[part].astype(np.float32)))
        membranes = [field[-2].expand(len(first), -1).clone() for field in fields]
        for _ in range(steps):
            current = first
            for k, (population, field) in enumerate(zip(populations, fields, strict=True)):
                membranes[k] += current + field[-1]
                if population.kind != "readout":
                    emitted = (membranes[k] >= field[0]).float()
                    membranes[k] -= emitted * field[0]
                    spikes[population.name][part] += emitted.sum(dim=1).long().numpy()
                    current = ways[k + 1](emitted)
        predictions.append(membranes[-1].argmax(dim=1).numpy())
    return spikes, np.concatenate(predictions)


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model, known = load_model(options.run)
    graph = convert_qcfs(model, Encoding.from_dict(known["encoding"]), bits=8).graph
    for name, bound in bounds(graph, options.steps).items():
        assert max(bound.membrane, bound.current) < FLOAT32_EXACT, f"{name}: float32 is not exact"
    test = load(options.data).test
    chosen = np.linspace(0, len(test), options.images, endpoint=False).astype(int)
    images, labels = test.images[chosen].reshape(len(chosen), -1), test.labels[chosen]
    load_before = os.getloadavg()[0]
    results: dict[str, Any] = {}

    def native(threads: int, counting: Any) -> Alternative:
        def work() -> None:
            results[counting] = run_blocks(NativeBackend(threads, counting=counting), graph, images, options.steps)

        return Alternative(f"native, {counting}, {threads} core{'s' * (threads > 1)}", timed(len(images), work))

    def simulate() -> None:
        results["torch"] = dense(graph, images, options.steps)

    alternatives = [native(1, "computed"), native(2, "computed"), native(1, "measured")]
    alternatives.append(Alternative(f"torch, dense conv2d, batch {BATCH}, float32, 1 core", timed(len(images), simulate)))
    in_turns(alternatives, options.rounds)
    ours, (spikes, predictions) = results["computed"], results["torch"]
    for name in graph.spiking:
        assert np.array_equal(ours.spikes_by_image[name].positive, spikes[name]), f"{name}: torch has other spikes"
    assert np.array_equal(ours.predictions[:, -1], predictions), "torch has other predictions"
    events = sum(float(count.mean()) for (pre, _), count in ours.events.items() if pre != graph.input.name)
    record = {
        "images": len(images),
        "steps": options.steps,
        "accuracy": float((predictions == labels).mean()),
        "synapses": sum(p.connection.nnz for p in graph.projections),
        "events_per_image": events,
        "load": [load_before, os.getloadavg()[0]],
        "seconds": {each.name: [seconds.run for seconds in each.measured] for each in alternatives},
        "conditions": machine(),
    }
    write_text(RESULTS / "convolution.json", json.dumps(record, indent=1) + "\n")
    text = _report(alternatives, record)
    print(text)
    write_text(RESULTS / "convolution.md", text)


def _report(alternatives: Sequence[Alternative], record: dict[str, Any]) -> str:
    slowest = alternatives[-1]
    rows = [
        (
            each.name,
            *(f"{1 / seconds:.0f}" for seconds in (each.fastest, each.median)),
            *(f"{a / b:.2f}" for a, b in ((slowest.fastest, each.fastest), (slowest.median, each.median))),
        )
        for each in alternatives
    ]
    heads = ("", "images/s (fastest)", "(median)", "times torch's (fastest)", "(median)")
    conditions = ", ".join(f"{name} {value}" for name, value in record["conditions"].items())
    return (
        "# A spiking VGG\n\n`python benchmarks/convolution.py`; what is measured is said there.\n\n"
        f"{record['synapses']:,} synapses, {record['events_per_image']:,.0f} synaptic events an image, T = {record['steps']}, "
        f"{record['images']} images, spikes and predictions equal.\n\n{markdown_table(heads, rows)}\n"
        f"Load at the start {record['load'][0]:.1f}, at the end {record['load'][1]:.1f}. {conditions}.\n"
    )


if __name__ == "__main__":
    main()
