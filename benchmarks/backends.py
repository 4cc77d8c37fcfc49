"""Backends against each other and against what else one would use, on one network, in one run.

    python benchmarks/backends.py [--quick] [--rounds 5] [--skip brian2 lava sweep] [--out benchmarks/results]

The network: 3072-3072-3072-10, 1 % of the links, soft reset, T = 32, about 10, 17 and 27 % of the neurons firing in a step and
290,000 synaptic events an image; weights rounded to 8 bits, so that everybody computes with the same integers. The first
projection's constant current is computed beforehand (native counts it in its time) and added in every step by all alike.

All alternatives are measured in turns, round by round, so that what else runs on the machine slows all of them alike; reported
are the fastest round and the median. Everyone works on one core, but where two are named; Lava has its processes. Times are per
image, without what is done once (compiling, building, starting). Each alternative's spikes are held against native's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from sparsespike.ann.comparison import markdown_table
from sparsespike.backends.base import Backend
from sparsespike.backends.brian2 import Brian2Backend
from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.lava import LavaBackend
from sparsespike.backends.native import NativeBackend
from sparsespike.cli.benchmark import machine
from sparsespike.common.files import write_text
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph

SIZES = (3072, 3072, 3072, 10)
GAINS = (0.45, 1.6, 2.0)
STEPS = 32
PEERS = Path(__file__).parent / "peers"
NATIVE = "native, computed, 1 core"


@dataclass(frozen=True)
class Network:
    """The benchmark network, and images for it."""

    graph: SpikingGraph
    images: NDArray[np.uint8]

    @property
    def current(self) -> NDArray[np.int64]:
        """What the first population receives in every step, shape (images, n)."""
        weights = self.graph.projection("input", "layer1").connection.to_csr().to_scipy()
        return np.asarray(self.images.astype(np.int64) @ weights)

    @property
    def layers(self) -> list[Population]:
        """Populations that fire."""
        return [self.graph.population(name) for name in self.graph.spiking]

    def save(self, path: Path, images: int) -> None:
        """Write what the programs in ``peers`` read."""
        arrays: dict[str, Any] = {"current": self.current[:images], "steps": STEPS}
        for layer, population in enumerate(self.layers):
            arrays[f"theta_{layer}"] = population.threshold
        for layer, (pre, post) in enumerate(pairwise(self.layers), start=1):
            weights = self.graph.projection(pre.name, post.name).connection.to_csr().to_scipy().tocoo()
            arrays |= {f"pre_{layer}": weights.row, f"post_{layer}": weights.col, f"weight_{layer}": weights.data}
        np.savez(path, **arrays)


def benchmark_network(images: int, sizes: Sequence[int] = SIZES, density: float = 0.01) -> Network:
    """Random weights and thresholds as in the head of this file."""
    rng = np.random.default_rng(0)
    populations = [Population(name="input", shape=(sizes[0],), kind="input", value_range=(0, 255))]
    projections = []
    for layer, (n_pre, n_post) in enumerate(pairwise(sizes), start=1):
        links = round(n_pre * n_post * density)
        where = rng.choice(n_pre * n_post, links, replace=False)
        weights = (rng.standard_normal(links) + 0.1) * GAINS[layer - 1] / np.sqrt(n_pre * density)
        unit = 127 / np.abs(weights).max()
        integers = np.rint(weights * unit).astype(np.int64)
        integers[integers == 0] = 1
        matrix = np.zeros(n_pre * n_post, np.int64)
        matrix[where] = integers
        real = rng.uniform(0.7, 1.5, n_post) * 0.8 * (255 / 0.45 if layer == 1 else 1)
        threshold = 2 * np.rint(real * unit / 2).astype(np.int64)
        name = f"layer{layer}"
        populations.append(Population(name=name, shape=(n_post,), kind="if", threshold=threshold, v_init=threshold // 2))
        connection = CSRConnection.from_scipy(matrix.reshape(n_pre, n_post))
        projections.append(Projection(populations[-2].name, name, connection))
    populations.append(Population(name="readout", shape=(sizes[-1],), kind="readout"))
    projections.append(Projection(populations[-2].name, "readout", CSRConnection.from_scipy(np.eye(sizes[-1], dtype=np.int64))))
    return Network(SpikingGraph(populations, projections), rng.integers(0, 256, (images, sizes[0]), dtype=np.uint8))


@dataclass
class Alternative:
    """Something that is timed: ``run`` gives the seconds that one image took."""

    name: str
    run: Callable[[], float]
    seconds: list[float] = field(default_factory=list)
    exact: str = ""

    @property
    def fastest(self) -> float:
        """Seconds per image in the least disturbed round."""
        return min(self.seconds)

    @property
    def median(self) -> float:
        """Seconds per image."""
        return statistics.median(self.seconds)


def timed(images: int, work: Callable[[], object]) -> Callable[[], float]:
    """Seconds per image of a piece of work."""

    def run() -> float:
        began = time.perf_counter()
        work()
        return (time.perf_counter() - began) / images

    return run


def in_turns(alternatives: Sequence[Alternative], rounds: int) -> None:
    """Measure all, round by round."""
    for alternative in alternatives:
        alternative.run()  # compiles, fills caches
    for _ in range(rounds):
        for alternative in alternatives:
            alternative.seconds.append(alternative.run())


def spikes_of(backend: Backend, network: Network, images: int) -> list[int]:
    """Spikes of each layer, summed over neurons and images."""
    result = run_blocks(backend, network.graph, network.images[:images], STEPS)
    return [int(result.spikes[layer.name].positive.sum()) for layer in network.layers]


def native(network: Network, threads: int, counting: str, kernel: str | None = None) -> Alternative:
    """Our own engine, as whole test sets are run."""
    backend = NativeBackend(threads, counting=counting, kernel=kernel)
    images = network.images if counting == "computed" else network.images[:64]
    work = timed(len(images), lambda: run_blocks(backend, network.graph, images, STEPS))
    cores = "1 core" if threads == 1 else f"{threads} cores"
    return Alternative(f"native, {counting}, {cores}", work)


def matrices(name: str, network: Network, batch: int, multiply: Sequence[Callable[[Any], Any]], numbers: Any) -> Alternative:
    """A simulation by sparse matrix times dense spikes, ``batch`` images at once, in float32 (exact: integers below 2^24).

    ``numbers`` is numpy or torch; ``multiply[l]`` gives layer l + 1's current from layer l's spikes, both (neurons, batch).
    """
    thresholds = [numbers.asarray(layer.threshold.astype(np.float32)[:, None]) for layer in network.layers]
    current = numbers.asarray(np.ascontiguousarray(network.current[:batch].T.astype(np.float32)))
    spikes: list[int] = []

    def simulate() -> None:
        membranes = [theta / 2 + 0 * current[:1] for theta in thresholds]
        counts = [0.0] * len(thresholds)
        for _ in range(STEPS):
            drive = current
            for layer, theta in enumerate(thresholds):
                membranes[layer] += drive
                fired = membranes[layer] >= theta
                membranes[layer] -= fired * theta
                counts[layer] += float(fired.sum())
                if layer + 1 < len(thresholds):
                    drive = multiply[layer](fired)
        spikes[:] = map(int, counts)

    alternative = Alternative(name, timed(batch, simulate))
    simulate()
    alternative.exact = "yes" if spikes == spikes_of(NativeBackend(), network, batch) else "no"
    return alternative


def scipy_csr(network: Network, batch: int) -> Alternative:
    """scipy's CSR matrix times a dense matrix."""
    ways = [_weights(network, *pair).T.tocsr().astype(np.float32) for pair in pairwise(network.layers)]
    products = [lambda fired, way=way: way @ fired.astype(np.float32) for way in ways]
    return matrices(f"scipy csr @ dense, batch {batch}", network, batch, products, np)


def torch_csr(network: Network, batch: int) -> Alternative:
    """torch's sparse CSR tensor times a dense one."""
    products = []
    for pair in pairwise(network.layers):
        way = _weights(network, *pair).T.tocsr().astype(np.float32)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # sparse CSR is in beta
            tensor = torch.sparse_csr_tensor(*map(torch.from_numpy, (way.indptr, way.indices, way.data)), size=way.shape)
        products.append(lambda fired, tensor=tensor: tensor @ fired.float())
    return matrices(f"torch sparse_csr @ dense, batch {batch}", network, batch, products, torch)


def _weights(network: Network, pre: Population, post: Population) -> Any:
    return network.graph.projection(pre.name, post.name).connection.to_csr().to_scipy()


def brian2_lowering(network: Network, images: int) -> Alternative:
    """Our lowering to Brian2's C++ standalone mode; its loop over steps alone."""
    backend = Brian2Backend(mode="cpp")

    def run() -> float:
        result = backend.run(network.graph, network.images[:images], STEPS, input="current")
        return result.wall_seconds["simulation"] / images

    alternative = Alternative("Brian2 C++ standalone, our lowering", run)
    alternative.exact = "yes" if spikes_of(backend, network, images) == spikes_of(NativeBackend(), network, images) else "no"
    return alternative


def brian2_by_hand(network: Network, images: int, folder: Path) -> Alternative:
    """The script of ``peers/brian2_by_hand.py``; its loop over steps alone."""
    network.save(folder / "network.npz", images)
    program = folder / "by_hand"
    subprocess.run([sys.executable, PEERS / "brian2_by_hand.py", folder / "network.npz", program], check=True)

    def run() -> float:
        subprocess.run(["./main"], cwd=program, check=True, stdout=subprocess.DEVNULL)
        return float((program / "results" / "last_run_info.txt").read_text().split()[0]) / images

    alternative = Alternative("Brian2 C++ standalone, by hand", run)
    run()
    alternative.exact = "yes" if _by_hand_spikes(program, network) == spikes_of(NativeBackend(), network, images) else "no"
    return alternative


def _by_hand_spikes(program: Path, network: Network) -> list[int]:
    """Counters that the program left on disk: int32, one a neuron."""
    totals = []
    for layer, population in enumerate(network.layers):
        (path,) = (program / "results").glob(f"_array_G{layer}_n_spk_*")
        counts = np.fromfile(path, np.int32)
        assert len(counts) == population.size
        totals.append(int(counts.sum()))
    return totals


def lava_lowering(network: Network, images: int) -> Alternative:
    """Our lowering to Lava, images side by side; without starting and compiling."""
    backend = LavaBackend()

    def run() -> float:
        result = backend.run(network.graph, network.images[:images], STEPS, input="current")
        return result.wall_seconds["run"] / images

    alternative = Alternative(f"Lava, our lowering, batch {images}", run)
    alternative.exact = "yes" if spikes_of(backend, network, images) == spikes_of(NativeBackend(), network, images) else "no"
    return alternative


def lava_stock(bits: int, folder: Path) -> Alternative:
    """The script of ``peers/lava_stock.py``: stock LIF and Sparse; an image takes a step more for each layer."""

    def run() -> float:
        command = [sys.executable, PEERS / "lava_stock.py", folder / "network.npz", str(bits), "34"]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, start_new_session=True)
        return float(done.stdout.split()[-1]) / 1e3 * (STEPS + len(SIZES) - 2)

    return Alternative(f"Lava stock LIF + Sparse, {bits} message bits, image by image", run, exact="not comparable")


def sweep(quick: bool) -> list[dict[str, Any]]:
    """Events per second on one core, over density, rate, size and batch, around one network."""
    base = {"size": 1024 if quick else 3072, "density": 0.01, "rate": 0.1, "batch": 64}
    axes: dict[str, list[Any]] = {
        "density": [0.002, 0.005, 0.01, 0.02, 0.05],
        "rate": [0.001, 0.003, 0.01, 0.03, 0.1, 0.3],
        "size": [256, 512, 1024] if quick else [512, 1024, 3072, 6144, 12288],
        "batch": [1, 8, 64, 256],
    }
    records = []
    for axis, values in axes.items():
        for value in values:
            point = {**base, axis: value}
            graph, images = rate_network(point["size"], point["density"], point["rate"], point["batch"])
            for counting in ("computed", "measured"):
                backend = NativeBackend(1, counting=counting)
                run = timed(1, lambda backend=backend, graph=graph, images=images: run_blocks(backend, graph, images, STEPS))
                run()
                seconds = min(run() for _ in range(2 if quick else 3))
                events = int(run_blocks(backend, graph, images, STEPS).events["driven", "layer"].sum())
                records.append({"axis": axis, **point, "counting": counting, "events_per_s": events / seconds})
    return records


def rate_network(size: int, density: float, rate: float, batch: int) -> tuple[SpikingGraph, NDArray[np.int64]]:
    """A population that fires at a given rate, each neuron at its own times, and its projection to one that never fires."""
    rng = np.random.default_rng(1)
    theta = 2000
    fan_out = max(1, round(size * density))
    pointers = fan_out * np.arange(size + 1)
    indices = np.concatenate([np.sort(rng.choice(size, fan_out, replace=False)) for _ in range(size)])
    weights = rng.integers(1, 128, len(indices)) * rng.choice((-1, 1), len(indices))
    never = np.full(size, 2**40)
    driven = {"threshold": np.full(size, theta), "v_init": rng.integers(0, theta, size)}
    graph = SpikingGraph(
        [
            Population(name="input", shape=(size,), kind="input", value_range=(0, theta)),
            Population(name="driven", shape=(size,), kind="if", **driven),
            Population(name="layer", shape=(size,), kind="if", threshold=never),
            Population(name="readout", shape=(1,), kind="readout"),
        ],
        [
            Projection("input", "driven", _diagonal(size)),
            Projection("driven", "layer", CSRConnection(pointers, indices, weights, size)),
            Projection("layer", "readout", CSRConnection.from_scipy(np.ones((size, 1), np.int64))),
        ],
    )
    return graph, np.minimum(theta, rng.poisson(rate * theta, (batch, size)))


def _diagonal(size: int) -> CSRConnection:
    return CSRConnection(np.arange(size + 1), np.arange(size), np.ones(size, np.int64), size)


def plot(records: Sequence[dict[str, Any]], path: Path) -> None:
    """Events per second over each axis."""
    from matplotlib.figure import Figure

    axes = list(dict.fromkeys(record["axis"] for record in records))
    figure = Figure(figsize=(3.2 * len(axes), 3), layout="constrained")
    for panel, axis in zip(figure.subplots(1, len(axes), sharey=True), axes, strict=True):
        for counting in ("computed", "measured"):
            points = [(r[axis], r["events_per_s"]) for r in records if r["axis"] == axis and r["counting"] == counting]
            panel.loglog(*zip(*points, strict=True), marker="o", label=f"native, {counting}")
        panel.set_xlabel(axis)
        panel.grid(alpha=0.3)
    figure.axes[0].set_ylabel("synaptic events per second and core")
    figure.axes[0].legend()
    figure.savefig(path)


def tables(alternatives: Sequence[Alternative], events: float) -> tuple[str, list[dict[str, Any]]]:
    """The Markdown table and its rows as plain values."""
    ours = next(each for each in alternatives if each.name == NATIVE)
    rows, records = [], []
    for each in alternatives:
        ratios = each.fastest / ours.fastest, each.median / ours.median
        rows.append(
            (
                each.name,
                f"{1e3 * each.fastest:.3f}",
                f"{1e3 * each.median:.3f}",
                f"{events / each.fastest:.2e}",
                *(f"{ratio:.2f}" for ratio in ratios),
                each.exact,
            )
        )
        records.append({"name": each.name, "seconds": each.seconds, "exact": each.exact, "times_native": ratios})
    heads = ("", "fastest_ms", "median_ms", "events_per_s", "times native's (fastest)", "(median)", "same spikes")
    return markdown_table(heads, rows), records


def comparisons(alternatives: Sequence[Alternative]) -> list[tuple[str, str, str]]:
    """The aims: what, how many times faster (fastest, median)."""
    by_name = {each.name.split(", batch")[0]: each for each in alternatives}
    stock = [each for name, each in by_name.items() if name.startswith("Lava stock")]
    pairs = [
        ("native, 1 core, than Brian2 C++ standalone by hand (aim 10, then 16)", "Brian2 C++ standalone, by hand", NATIVE),
        ("native, 1 core, than torch sparse_csr", "torch sparse_csr @ dense", NATIVE),
        ("native, 1 core, than scipy", "scipy csr @ dense", NATIVE),
        (
            "our Brian2 lowering than the script by hand (aim 1)",
            "Brian2 C++ standalone, by hand",
            "Brian2 C++ standalone, our lowering",
        ),
    ]
    rows = []
    for title, slow, fast in pairs:
        if slow in by_name and fast in by_name:
            a, b = by_name[slow], by_name[fast]
            rows.append((title, f"{a.fastest / b.fastest:.2f}", f"{a.median / b.median:.2f}"))
    if stock and "Lava, our lowering" in by_name:
        ours = by_name["Lava, our lowering"]
        fastest, median = min(each.fastest for each in stock), min(each.median for each in stock)
        rows.append(
            (
                "our Lava lowering, batched, than stock image by image (aim 20)",
                f"{fastest / ours.fastest:.1f}",
                f"{median / ours.median:.1f}",
            )
        )
    return rows


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images and rounds: does it run at all?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip", nargs="*", default=[], choices=("brian2", "lava", "sweep"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds, few = (2, 16) if options.quick else (options.rounds, 128)
    network = benchmark_network(128 if options.quick else 1024)
    conditions = {
        **machine(),
        **{package: _version(package) for package in ("brian2", "lava-nc")},
        "load at the start": os.getloadavg()[0],
    }
    folder = Path(tempfile.mkdtemp(prefix="sparsespike-benchmark-"))
    try:
        network.save(folder / "network.npz", few)
        alternatives = [native(network, 1, "computed"), native(network, 2, "computed"), native(network, 1, "measured")]
        alternatives += [scipy_csr(network, 128), torch_csr(network, 128)]
        if "brian2" not in options.skip:
            alternatives += [brian2_by_hand(network, few, folder), brian2_lowering(network, few)]
        if "lava" not in options.skip:
            alternatives += [lava_lowering(network, few), lava_stock(0, folder), lava_stock(8, folder)]
        in_turns(alternatives, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    whole = run_blocks(NativeBackend(), network.graph, network.images[:64], STEPS)
    events = sum(float(whole.events[key].mean()) for key in whole.events if key[0] != "input")
    table, records = tables(alternatives, events)
    aims = comparisons(alternatives)
    records_of_sweep = [] if "sweep" in options.skip else sweep(options.quick)
    conditions["load at the end"] = os.getloadavg()[0]
    stated = ", ".join(
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}" for name, value in conditions.items()
    )
    text = (
        "# Backends\n\n`python benchmarks/backends.py`; what is measured is said there.\n\n"
        f"## One image ({events:,.0f} synaptic events, T = {STEPS})\n\n{table}\n"
        f"## How many times faster\n\n{markdown_table(('', 'fastest', 'median'), aims)}\n"
    )
    if records_of_sweep:
        points = [
            (r["axis"], r["size"], r["density"], r["rate"], r["batch"], r["counting"], f"{r['events_per_s']:.2e}")
            for r in records_of_sweep
        ]
        heads = ("varied", "size", "density", "rate", "batch", "counting", "events_per_s")
        text += f"## Native, one core\n\n![events per second](backends.svg)\n\n{markdown_table(heads, points)}\n"
        options.out.mkdir(parents=True, exist_ok=True)
        plot(records_of_sweep, options.out / "backends.svg")
    text += f"{rounds} rounds. {stated}.\n"
    print(text)
    write_text(options.out / "backends.md", text)
    document = {"conditions": conditions, "rounds": rounds, "events_per_image": events, "alternatives": records}
    document |= {"aims": aims, "sweep": records_of_sweep}
    write_text(options.out / "backends.json", json.dumps(document, indent=1) + "\n")


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
