"""Backends against each other and against what else one would use, on one network, in one run.

    python benchmarks/backends.py [--quick] [--rounds 5] [--skip brian2 lava sweep] [--out benchmarks/results]

The network: 3072-3072-3072-10, 1 % of the links, soft reset, T = 32, about 10, 17 and 27 % of the neurons firing in a step and
290,000 synaptic events an image; weights rounded to 8 bits, so that everybody computes with the same integers. The first
projection's constant current is computed beforehand (native counts it in its time) and added in every step by all alike.

All alternatives are measured in turns, round by round, so that what else runs on the machine slows all of them alike; reported
are the fastest round and the median. Everyone works on one core, but where two are named; Lava has its processes. Times are per
image, without what is done once (compiling, building, lowering, starting); for native and Lava the time with that is given too.
Each alternative's spikes are held against native's.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from alternatives.brian2 import brian2_by_hand, brian2_lowering
from alternatives.lava import lava_lowering, lava_stock
from alternatives.matrices import scipy_csr, torch_csr
from alternatives.native import native
from alternatives.network import STEPS, Network, benchmark_network
from alternatives.report import comparisons, table
from alternatives.sweep import plot, sweep
from alternatives.timing import Alternative, in_turns

from sparsespike.ann.comparison import markdown_table
from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.cli.benchmark import machine
from sparsespike.common.files import write_text


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few images and rounds: does it run at all?")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--skip", nargs="*", default=[], choices=("brian2", "lava", "sweep"))
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rounds = 2 if options.quick else options.rounds
    network = benchmark_network(128 if options.quick else 1024)
    conditions = {
        **machine(),
        **{package: _version(package) for package in ("brian2", "lava-nc")},
        "load at the start": os.getloadavg()[0],
    }
    folder = Path(tempfile.mkdtemp(prefix="sparsespike-benchmark-"))
    try:
        alternatives = _alternatives(network, options.quick, options.skip, folder)
        in_turns(alternatives, rounds)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    whole = run_blocks(NativeBackend(), network.graph, network.images[:64], STEPS)
    events = sum(float(whole.events[key].mean()) for key in whole.events if key[0] != "input")
    times, records = table(alternatives, events)
    aims = comparisons(alternatives)
    records_of_sweep = [] if "sweep" in options.skip else sweep(options.quick)
    conditions["load at the end"] = os.getloadavg()[0]
    stated = ", ".join(
        f"{name} {value:.1f}" if isinstance(value, float) else f"{name} {value}" for name, value in conditions.items()
    )
    text = (
        "# Backends\n\n`python benchmarks/backends.py`; what is measured is said there.\n\n"
        f"## One image ({events:,.0f} synaptic events, T = {STEPS})\n\n{times}\n"
        f"## How many times faster\n\n{markdown_table(('', 'fastest', 'median'), aims)}\n"
    )
    if records_of_sweep:
        text += _sweep_section(records_of_sweep)
        options.out.mkdir(parents=True, exist_ok=True)
        plot(records_of_sweep, options.out / "backends.svg")
    text += f"{rounds} rounds. {stated}.\n"
    print(text)
    write_text(options.out / "backends.md", text)
    document = {"conditions": conditions, "rounds": rounds, "events_per_image": events, "alternatives": records}
    document |= {"aims": aims, "sweep": records_of_sweep}
    write_text(options.out / "backends.json", json.dumps(document, indent=1) + "\n")


def _alternatives(network: Network, quick: bool, skip: list[str], folder: Path) -> list[Alternative]:
    few, many = (16, 32) if quick else (128, len(network.images))
    network.save(folder / "network.npz", few)
    alternatives = [native(network, 1, "computed"), native(network, 2, "computed"), native(network, 1, "measured")]
    alternatives += [scipy_csr(network, 128), torch_csr(network, 128)]
    if "brian2" not in skip:
        alternatives += [brian2_by_hand(network, few, folder), brian2_lowering(network, few)]
    if "lava" not in skip:
        alternatives += [lava_lowering(network, few, "chain"), lava_lowering(network, many, "fused")]
        alternatives += [lava_stock(0, folder), lava_stock(8, folder)]
    return alternatives


def _sweep_section(records: list[dict[str, Any]]) -> str:
    heads = ("varied", "size", "density", "rate", "batch", "counting", "events_per_s")
    points = [
        (r["axis"], r["size"], r["density"], r["rate"], r["batch"], r["counting"], f"{r['events_per_s']:.2e}") for r in records
    ]
    return f"## Native, one core\n\n![events per second](backends.svg)\n\n{markdown_table(heads, points)}\n"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()
