"""What theory says a sparse spiking network costs, against what a simulator counts.

The usual estimate of synaptic events is T x mean firing rate x synapses. It is exact only if how often a neuron fires has nothing
to do with how many synapses it has. In a trained sparse topology it has: the difference is N cov(spikes, fan-out), and the ledger
finds nothing left over. Needs the extra ``train``; takes some seconds::

    python examples/counts_against_theory.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from sparsespike.ann.checkpoint import load_model
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import load
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.train import train
from sparsespike.backends.native import NativeBackend
from sparsespike.energy.ledger import Ledger
from sparsespike.export.qcfs import convert_qcfs

STEPS = 16

with tempfile.TemporaryDirectory() as folder:
    config = TrainConfig(sparsity=0.95, hidden=(200, 200), topology="bsw", activation="qcfs", levels=8, lam=2.0, epochs=10)
    trained = train(config, Path(folder))
    network, known = load_model(Path(folder))
graph = convert_qcfs(network, Encoding.from_dict(known["encoding"])).graph

test = load("digits").test
pixels = test.images.reshape(len(test), -1).astype(np.int64)
result = NativeBackend(counting="measured").run(graph, pixels, STEPS)
accuracy = np.mean(result.predictions[:, -1] == test.labels)
print(f"{graph.nnz:,} synapses, test accuracy {trained.test_accuracy:.2%} before, {accuracy:.2%} as spikes with T = {STEPS}\n")

ledger = Ledger.from_results(graph, [result])
print(f"{'projection':24}{'theory':>14}{'measured':>12}{'error':>9}{'covariance':>14}{'left over':>11}")
for pre, post in ((p.pre, p.post) for p in graph.projections):
    entry = ledger.entry(pre, post)
    measured, residual = entry.measured["native"], entry.residual("native")
    theory, covariance = float(entry.analytic_graph), float(entry.covariance)
    print(f"{pre + ' -> ' + post:24}{theory:14,.1f}{measured:12,}{theory / measured - 1:9.1%}{covariance:14,.1f}{residual!s:>11}")
print(f"\n{ledger.describe()}")
