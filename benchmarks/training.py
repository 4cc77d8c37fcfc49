"""Time and memory of sparse training against dense: whole steps, and one change of topology.

    python benchmarks/training.py [--quick] [--threads 2] [--out benchmarks/results]

On a machine that does other work, too, set OMP_WAIT_POLICY=PASSIVE: threads that spin while they wait take the processor from
those they wait for, on all sides.

A step is forward, backward and optimizer (SGD with momentum and weight decay, fused) of a network of three hidden layers, all as
wide as the input, and a dense classifier of 10 classes. The alternatives:

* sparse: the layers of this library (CSR), links drawn uniformly at random;
* masked: full weights times a mask, the same links (the usual way);
* dense: plain ``torch.nn.Linear`` without a mask.

All alternatives are measured in turns, round by round, so that what else runs on the machine slows all of them alike.
Reported are the median over the rounds and the fastest round, the least disturbed one. Memory is the peak of the resident size
(Linux: VmHWM) while a process of its own makes the network and does the work three times, less its size before.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numba
import numpy as np
import torch
from torch import Tensor, nn

from sparsespike.ann.comparison import markdown_table
from sparsespike.ann.evolution import evolve_model
from sparsespike.ann.masked import MaskedLinear
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.topology import Topology, er, recipe
from sparsespike.cli.benchmark import machine
from sparsespike.common.files import write_text

CLASSES = 10
HIDDEN_LAYERS = 3
Work = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """One alternative of a measurement."""

    kind: str
    width: int
    density: float
    batch: int = 0

    def work(self) -> Work:
        """What is timed, ready to be called again and again."""
        return {"sparse": step, "masked": step, "dense": step}.get(self.kind, update)(self)


def network(case: Case) -> nn.Module:
    """The network of a step, with weights of the right size."""
    generator = np.random.default_rng(0)
    widths = (case.width,) * (HIDDEN_LAYERS + 1)
    if case.kind == "dense":
        shapes = [*itertools.pairwise(widths), (case.width, CLASSES)]
        layers: list[nn.Module] = []
        for n, m in shapes:
            layers += [nn.Linear(n, m), nn.ReLU()]
        return nn.Sequential(*layers[:-1])
    topologies = [er((case.width, case.width), 1 - case.density, generator) for _ in range(HIDDEN_LAYERS)]
    if case.kind == "masked":
        parts: list[nn.Module] = []
        for topology in topologies:
            masked = MaskedLinear(topology)
            masked.reset_parameters(generator)
            parts += [masked, nn.ReLU()]
        return nn.Sequential(*parts, nn.Linear(case.width, CLASSES))
    model = MLP(MLPSpec((*widths, CLASSES)), topologies)
    model.reset_parameters(generator)
    return model


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """The optimizer of the trainer."""
    return torch.optim.SGD(model.parameters(), 0.025, 0.9, weight_decay=5e-4, fused=True)


def step(case: Case) -> Work:
    """A whole training step."""
    torch.manual_seed(0)
    model = network(case)
    optimizer = optimizer_of(model)
    # Sparse layers take activations by features, as the trainer lays them out; the dense ones by images, as torch does.
    x = torch.randn(case.width, case.batch).t() if case.kind == "sparse" else torch.randn(case.batch, case.width)
    targets = torch.randint(0, CLASSES, (case.batch,))

    def run() -> None:
        loss = nn.functional.cross_entropy(model(x), targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]  # torch
        optimizer.step()

    return run


def update(case: Case) -> Work:
    """One change of topology of one layer (CHTs: sampled removal, CH2-L3n scores, sampled regrowth), weights and momentum too."""
    generator = np.random.default_rng(0)
    layer = er((case.width, case.width), 1 - case.density, generator)
    if case.kind == "update: dense matrices":
        return dense_update(layer)
    config = recipe("chts", 1 - case.density)
    spec = MLPSpec((case.width, case.width, CLASSES))
    model = MLP(spec, [layer])
    model.reset_parameters(generator)
    optimizer = optimizer_of(model)
    model(torch.zeros(1, case.width)).sum().backward()
    optimizer.step()
    return lambda: evolve_model(model, optimizer, config, 0.5, generator)


def dense_update(layer: Topology) -> Work:
    """The same change as matrices: mask, weights and scores of outputs x inputs in float32, by torch (Algorithm 1 of CHTs).

    Both choices, of the links that stay and of the new ones, take the highest keys p / E with exponential noise E: sampling
    without replacement in proportion to p.
    """
    mask = torch.from_numpy(layer.to_dense()).float()
    momentum = torch.zeros_like(mask)
    weight = torch.randn_like(mask) * mask
    links = int(mask.sum())
    removed = int(0.3 * links)

    def sample(scores: Tensor, count: int) -> Tensor:
        keys = scores / torch.empty_like(scores).exponential_()
        chosen = torch.zeros(scores.numel())
        chosen[keys.flatten().topk(count, sorted=False).indices] = 1.0
        return chosen.view_as(scores)

    def community(common: Tensor, degree: Tensor) -> Tensor:
        return (common > 0) * (1 + common) / (1 + (degree - common - 1).clamp_(min=0))

    def run() -> tuple[Tensor, Tensor, Tensor]:
        kept = sample(weight.abs() ** 2, links - removed)
        scores = community(kept @ kept.t(), kept.sum(1)) @ kept
        scores += kept @ community(kept.t() @ kept, kept.sum(0)).t()
        scores *= 1 - kept
        new = kept + sample(scores, removed)
        return new, weight * new * mask, momentum * new * mask

    return run


@dataclass(frozen=True)
class Timing:
    """Seconds of one alternative."""

    median: float
    fastest: float


def in_turns(cases: list[Case], rounds: int, budget: float) -> dict[Case, Timing]:
    """Time alternatives; each turn repeats one for about ``budget`` seconds, once at least."""
    works = {case: case.work() for case in cases}
    times: dict[Case, list[float]] = {case: [] for case in cases}
    repeats = {}
    for case, run in works.items():
        run()  # compiles
        began = time.perf_counter()
        run()
        repeats[case] = max(1, int(budget / (time.perf_counter() - began)))
    for _ in range(rounds):
        for case, run in works.items():
            began = time.perf_counter()
            for _ in range(repeats[case]):
                run()
            times[case].append((time.perf_counter() - began) / repeats[case])
    return {case: Timing(statistics.median(values), min(values)) for case, values in times.items()}


def peak_memory(case: Case, threads: int) -> float:
    """MB that a case needs, measured in a process of its own."""
    arguments = [sys.executable, __file__, "--threads", str(threads), "--probe", json.dumps(asdict(case))]
    return int(subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True).stdout) / 1000


def probe(case: Case) -> None:
    """The process of :func:`peak_memory`: libraries are loaded and code is compiled at width 64, then the peak is begun anew."""
    replace(case, width=64).work()()
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _resident("VmRSS")
    work = case.work()
    for _ in range(3):
        work()
    print(_resident("VmHWM") - before)


def _resident(field: str) -> int:
    """A size of this process in kB, as Linux tells it; ``ru_maxrss`` would keep the one of the parent."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(rf"{field}:\s*(\d+) kB", status)[0])


def crossover(densities: list[float], sparse: list[float], other: float) -> str:
    """The density at which sparse takes as long as ``other``, between measured ones by a straight line in the logarithms."""
    for i in range(1, len(densities)):
        if sparse[i - 1] < other <= sparse[i]:
            share = np.log(other / sparse[i - 1]) / np.log(sparse[i] / sparse[i - 1])
            return f"{100 * densities[i - 1] * (densities[i] / densities[i - 1]) ** share:.0f} %"
    return f"below {100 * densities[0]:g} %" if sparse[0] >= other else f"above {100 * densities[-1]:g} %"


def measure_steps(widths: list[int], densities: list[float], rounds: int, threads: int) -> tuple[list[Any], list[Any], list[Any]]:
    """Whole steps: rows of the table, rows of the crossovers, and everything as plain values."""
    rows: list[Any] = []
    switches: list[Any] = []
    records: list[Any] = []
    for width, batch in itertools.product(widths, (32, 128)):
        dense, masked = Case("dense", width, 1.0, batch), Case("masked", width, 0.01, batch)
        sparse = [Case("sparse", width, density, batch) for density in densities]
        timing = in_turns([dense, masked, *sparse], rounds, 0.1)
        for case, t in timing.items():
            # Memory at the largest batch; the density of a mask changes nothing.
            memory = peak_memory(case, threads) if batch == 128 and case in (dense, masked, sparse[0]) else None
            ratios = [""] * 2
            if case in sparse:
                best = min(timing[dense].median, timing[masked].median), min(timing[dense].fastest, timing[masked].fastest)
                ratios = [f"{best[0] / t.median:.1f}", f"{best[1] / t.fastest:.1f}"]
            density = f"{100 * case.density:g}" if case in sparse else ""
            used = "" if memory is None else f"{memory:,.0f}"
            rows.append((case.kind, width, batch, density, f"{1e3 * t.median:.2f}", f"{1e3 * t.fastest:.2f}", *ratios, used))
            records.append({**asdict(case), **asdict(t), "peak_memory_MB": memory})
        times = [timing[case].fastest for case in sparse]
        switches.append((width, batch, *(crossover(densities, times, timing[case].fastest) for case in (masked, dense))))
    return rows, switches, records


def measure_updates(widths: list[int], densities: list[float], rounds: int, threads: int) -> tuple[list[Any], list[Any]]:
    """Changes of topology: rows of the table, and everything as plain values."""
    rows: list[Any] = []
    records: list[Any] = []
    for width, density in itertools.product(widths, densities):
        ours, theirs = (Case(kind, width, density) for kind in ("update: sparse", "update: dense matrices"))
        timing = in_turns([ours, theirs], rounds, 0.1)
        memory = {case: peak_memory(case, threads) if density == 0.01 else None for case in timing}
        cells = [f"{1e3 * timing[case].median:.1f}" for case in (ours, theirs)]
        cells += [f"{1e3 * timing[case].fastest:.1f}" for case in (ours, theirs)]
        cells.append(f"{timing[theirs].median / timing[ours].median:.1f}")
        cells.append(f"{timing[theirs].fastest / timing[ours].fastest:.1f}")
        cells += ["" if used is None else f"{used:,.0f}" for used in memory.values()]
        rows.append((f"{width} x {width}", f"{100 * density:g}", *cells))
        records += [{**asdict(case), **asdict(timing[case]), "peak_memory_MB": memory[case]} for case in timing]
    return rows, records


def main() -> None:
    """Measure everything, print the tables and write them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small widths, few rounds: does it run at all?")
    parser.add_argument("--threads", type=int, default=min(2, os.cpu_count() or 1), help="of torch and of numba")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--probe", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    numba.set_num_threads(min(options.threads, numba.get_num_threads()))
    if options.probe is not None:
        probe(Case(**json.loads(options.probe)))
        return
    widths = [128, 256] if options.quick else [1024, 3072]
    densities = [0.01, 0.05, 0.1] if options.quick else [0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8]
    rounds = 2 if options.quick else 5
    waiting = os.environ.get("OMP_WAIT_POLICY", "default")
    conditions = {**machine(), "threads": options.threads, "OMP_WAIT_POLICY": waiting, "load at the start": os.getloadavg()[0]}
    step_rows, switches, steps = measure_steps(widths, densities, rounds, options.threads)
    update_rows, updates = measure_updates(widths, [0.01, 0.05], min(rounds, 3), options.threads)
    conditions["load at the end"] = os.getloadavg()[0]

    tables: dict[str, tuple[Sequence[str], list[Any]]] = {
        "Training step": (
            (
                "layers",
                "width",
                "batch",
                "density_%",
                "median_ms",
                "fastest_ms",
                "times faster (median)",
                "times faster (fastest)",
                "memory_MB",
            ),
            step_rows,
        ),
        "Density at which a sparse step takes as long": (("width", "batch", "as masked", "as dense"), switches),
        "Change of topology of one layer": (
            (
                "layer",
                "density_%",
                "sparse median_ms",
                "matrices median_ms",
                "sparse fastest_ms",
                "matrices fastest_ms",
                "times faster (median)",
                "times faster (fastest)",
                "sparse memory_MB",
                "matrices memory_MB",
            ),
            update_rows,
        ),
    }
    text = "".join(f"## {title}\n\n{markdown_table(columns, rows)}\n" for title, (columns, rows) in tables.items())
    stated = ", ".join(
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}" for name, value in conditions.items()
    )
    note = (
        "Times faster: than the faster of dense and masked at the same width and batch. All alternatives took turns, "
        f"{rounds} rounds (changes of topology: {min(rounds, 3)}). {stated}.\n"
    )
    heading = "# Sparse training against dense\n\n`python benchmarks/training.py`; what is measured is said there.\n\n"
    print(text + note)
    write_text(options.out / "training.md", heading + text + note)
    document = {"conditions": conditions, "rounds": rounds, "steps": steps, "updates": updates}
    write_text(options.out / "training.json", json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()
