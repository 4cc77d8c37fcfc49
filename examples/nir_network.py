"""A network from elsewhere: read from NIR, the exchange format of the neuromorphic frameworks, and run on two simulators.

Here the NIR graph is written by hand; ``nir.read`` gives one that another framework saved. Needs the extras ``nir`` and
``brian2``; takes some seconds::

    python examples/nir_network.py
"""

from __future__ import annotations

import nir
import numpy as np

from sparsespike.backends.registry import get_backend
from sparsespike.energy.ledger import Ledger
from sparsespike.export.nir.reading import read_nir

rng = np.random.default_rng(0)
first = rng.normal(size=(30, 12)) * (rng.random((30, 12)) < 0.3)
second = rng.normal(size=(4, 30))
network = nir.NIRGraph(
    nodes={
        "input": nir.Input(input_type=np.array([12])),
        "linear1": nir.Linear(weight=first),
        "hidden": nir.IF(r=np.ones(30), v_threshold=np.full(30, 8.0), v_reset=np.zeros(30)),
        "linear2": nir.Linear(weight=second),
        "output": nir.Output(output_type=np.array([4])),
    },
    edges=[("input", "linear1"), ("linear1", "hidden"), ("hidden", "linear2"), ("linear2", "output")],
)

read = read_nir(network, value_range=(0, 15), bits=16)
error = max(read.weight_error.values())
print(f"{read.graph.nnz} synapses; exact: {read.exact}; weights off by at most {error:.1e} of the largest")

images = rng.integers(0, 16, (5, 12))
results = [get_backend(name).run(read.graph, images, 20) for name in ("native", "brian2")]
assert np.array_equal(results[0].readout, results[1].readout)
ledger = Ledger.from_results(read.graph, results)
print(f"{'projection':20}{'native':>8}{'brian2':>8}{'theory':>9}{'covariance':>12}{'left over':>11}")
for entry in ledger.entries:
    counts = entry.measured["native"], entry.measured["brian2"], float(entry.analytic_graph), float(entry.covariance)
    print("{:20}{:8}{:8}{:9.1f}{:12.1f}{!s:>11}".format(f"{entry.pre} -> {entry.post}", *counts, entry.residual("brian2")))
