"""A convolutional model of your own in Lava: converted, run in floating and in fixed point, and exported as a program.

The model is a plain ``nn.Sequential`` with batch normalisation and an average pool, trained on the 8x8 digits. Kernels stay
kernels in the graph. Needs the extras ``train`` and ``lava``; takes half a minute::

    python examples/own_model_to_lava.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sparsespike.ann.data import load
from sparsespike.ann.encoding import Encoding
from sparsespike.backends.lava.exporting import write_program
from sparsespike.backends.registry import get_backend
from sparsespike.export.calibrate import Calibration
from sparsespike.export.snm import convert_snm

STEPS = 32

torch.manual_seed(0)
data = load("digits")
model = nn.Sequential(
    *(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AvgPool2d(2)),
    *(nn.Conv2d(8, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(64, 10)),
)
x, y = torch.from_numpy(data.train.images / np.float32(16)), torch.from_numpy(data.train.labels)
optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
for _ in range(60):
    optimiser.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimiser.step()
model.eval()

encoding = Encoding(value_range=(0, 16), unit=16, mean=(0.0,), std=(1.0,))
graph = convert_snm(model, encoding, Calibration(data.train.images[:512]), bits=8, input_shape=data.shape, v_init=0.5).graph
print(f"{graph.nnz:,} synapses")

pixels, labels = data.test.images[:20].reshape(20, -1).astype(np.int64), data.test.labels[:20]
results = [get_backend(name).run(graph, pixels, STEPS) for name in ("native", "lava", "lava-fixed")]
print(f"{'backend':12}{'membranes':>11}{'right':>7}{'spikes':>10}{'events':>12}")
for result in results:
    right = int((result.predictions[:, -1] == labels).sum())
    spikes = sum(int(result.spikes[name].events.sum()) for name in graph.spiking)
    events = sum(int(counted.sum()) for counted in result.events.values())
    print(f"{result.backend:12}{result.dtype:>11}{right:7}{spikes:10,}{events:12,}")
assert all(np.array_equal(result.readout, results[0].readout) for result in results)

with tempfile.TemporaryDirectory() as folder:
    write_program(graph, Path(folder))
    print("program for Lava alone:", ", ".join(sorted(path.name for path in Path(folder).iterdir())))
