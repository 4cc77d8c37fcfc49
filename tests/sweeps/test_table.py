"""The table of a sweep: settings before what was measured, those that no network has left out."""

from __future__ import annotations

import dataclasses

import numpy as np

from sparsespike.backends.native import NativeBackend
from sparsespike.energy.record import Record
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.sweeps.table import as_csv, table


def record() -> Record:
    graph = SpikingGraph(
        [
            Population(name="input", shape=(3,), kind="input", value_range=(0, 9)),
            Population(name="h", shape=(4,), kind="if", threshold=np.full(4, 10)),
            Population(name="readout", shape=(2,), kind="readout"),
        ],
        [
            Projection("input", "h", CSRConnection.from_scipy(np.ones((3, 4), np.int64))),
            Projection("h", "readout", CSRConnection.from_scipy(np.ones((4, 2), np.int64))),
        ],
    )
    run = NativeBackend().run(graph, np.full((2, 3), 9), 20)
    return Record.of(graph, run, np.zeros(2), 1, {"dataset": "made", "model": "mlp", "method": "snm", "sparsity": 0, "L": None})


def test_settings_that_some_network_has_stand_before_what_was_measured() -> None:
    plain = record()
    tuned = dataclasses.replace(plain, what={**plain.what, "finetune_lr": 0.1, "L": 8, "topology": None})
    frame = table([({"study": "a"}, plain), ({"study": "b"}, tuned)])
    settings = ["study", "dataset", "model", "method", "sparsity", "L", "finetune_lr"]
    assert frame.columns[: len(settings) + 1].tolist() == [*settings, "images"]
    assert "topology" not in frame
    first, second = as_csv(frame).splitlines()[1:]
    assert first.startswith("a,made,mlp,snm,0,,,2,20,50,100,")
    assert second.startswith("b,made,mlp,snm,0,8,0.1,2,20,50,100,")
