"""A Brian2 reference of a spiking graph: the same spikes as the native engine, and what it says when one spike is missing.

The graph is one of the conformance suite, with skip connections of different delays; any graph file will do. Needs the extra
``brian2``; takes some seconds::

    python examples/brian2_reference.py
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from sparsespike.backends.brian2 import Brian2Backend
from sparsespike.backends.compare import first_divergence
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing import CASES
from sparsespike.energy.ledger import Ledger

graph, inputs, steps = CASES["skips"]()
brian2 = Brian2Backend().run(graph, inputs, steps, record=graph.spiking)
native = NativeBackend().run(graph, inputs, steps, record=graph.spiking)

print(f"{'population':12}{'depth':>6}{'spikes in Brian2':>18}{'in native':>11}{'same raster':>13}")
for name in graph.spiking:
    same = np.array_equal(brian2.rasters[name], native.rasters[name])
    counts = (result.spikes[name].events.sum() for result in (brian2, native))
    print("{:12}{:6}{:18}{:11}{:>13}".format(name, graph.depth[name], *counts, "yes" if same else "no"))

ledger = Ledger.from_results(graph, [brian2, native])
print(f"\n{'projection':24}{'delay':>6}{'events in Brian2':>18}{'in native':>11}{'left over':>11}")
for entry in ledger.entries:
    pair = f"{entry.pre} -> {entry.post}"
    measured = entry.measured["brian2"], entry.measured["native"]
    print("{:24}{:6}{:18}{:11}{!s:>11}".format(pair, graph.delay(entry.pre, entry.post), *measured, entry.residual("brian2")))

# A simulator that loses a spike is found out, and told where.
name = graph.spiking[0]
image, step, neuron = (indices[0] for indices in np.nonzero(brian2.rasters[name]))
raster = brian2.rasters[name].copy()
raster[image, step, neuron] = 0
broken = replace(brian2, rasters={**brian2.rasters, name: raster})
print(f"\nas it is: {first_divergence(graph, native, brian2, inputs)}")
print(f"one spike taken away: {first_divergence(graph, native, broken, inputs)}")
