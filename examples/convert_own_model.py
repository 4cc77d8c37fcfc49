"""A network of your own, pruned by torch, becomes a spiking graph, and two simulators agree on every synaptic event.

Nothing in the model is of this package: a plain ``nn.Sequential`` with ReLU, pruned with ``torch.nn.utils.prune`` and trained on
the 8x8 digits. SNM converts it as it is, without more training. Needs the extras ``train`` and ``brian2``; takes some seconds::

    python examples/convert_own_model.py
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn
from torch.nn.utils import prune

from sparsespike.ann.data import load
from sparsespike.ann.encoding import Encoding
from sparsespike.backends.registry import get_backend
from sparsespike.energy.ledger import Ledger
from sparsespike.export.calibrate import Calibration
from sparsespike.export.snm import convert_snm

STEPS = 32
IMAGES = 10  # run on both simulators

torch.manual_seed(0)
data = load("digits")
model = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 60), nn.ReLU(), nn.Linear(60, 10))
for layer in (model[1], model[3]):
    prune.random_unstructured(layer, "weight", amount=0.8)

# The model's real inputs are pixel / 16; conversion folds that into the first weights, so the graph takes the pixels themselves.
encoding = Encoding(value_range=(0, 16), unit=16, mean=(0.0,), std=(1.0,))
x, y = torch.from_numpy(data.train.images / np.float32(16)), torch.from_numpy(data.train.labels)
optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(150):
    optimiser.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimiser.step()
with torch.no_grad():
    scores = model(torch.from_numpy(data.test.images / np.float32(16)))
ann = float(np.mean(scores.argmax(dim=1).numpy() == data.test.labels))

calibration = Calibration(data.train.images[:512])
graph = convert_snm(model, encoding, calibration, bits=12, input_shape=data.shape, v_init=0.5).graph
print(f"{graph.nnz:,} synapses of whole numbers in {len(graph.projections)} projections")

pixels = data.test.images.reshape(len(data.test), -1).astype(np.int64)
predictions = get_backend("native").run(graph, pixels, STEPS).predictions[:, -1]
print(f"test accuracy: {ann:.2%} before, {np.mean(predictions == data.test.labels):.2%} as spikes with T = {STEPS}")

results = [get_backend(name).run(graph, pixels[:IMAGES], STEPS) for name in ("native", "brian2")]
ledger = Ledger.from_results(graph, results)
print(ledger.describe())
columns = ["native_measured_events", "brian2_measured_events", "analytic_graph_events", "covariance_events"]
print(ledger.to_frame().set_index(["pre", "post"])[columns].to_string(float_format="{:,.1f}".format))
