"""Networks with average pools: the paper charges the layer behind the pool, the graph the projection that holds both."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch
from torch import nn

from sparsespike.ann.activations import QCFS
from sparsespike.ann.encoding import Encoding
from sparsespike.backends.native import NativeBackend
from sparsespike.common.errors import ConfigError
from sparsespike.energy.flops import pooled_flops
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.record import Record
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.qcfs import convert_qcfs


@pytest.fixture(scope="module")
def graph() -> SpikingGraph:
    """Convolution 1 to 3 channels of 8 x 8, pool, convolution 3 to 4 of 4 x 4, pool, 16 to 5; one weight of it is 0."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3, padding=1), QCFS(4, 1.0), nn.AvgPool2d(2), nn.Conv2d(3, 4, 3, padding=1), QCFS(4, 1.0)]
    model = nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(16, 5)).eval()
    with torch.no_grad():
        model[7].weight[0, 0] = 0
    return convert_qcfs(model, Encoding((0, 255), 255, (0.0,), (1.0,)), input_shape=(1, 8, 8), bits=24).graph


def test_conversion_notes_the_layer_behind_a_pool(graph: SpikingGraph) -> None:
    first, second = graph.spiking
    assert pooled_flops(graph) == {(first, second): 9 * 4 * 4 * 3 * 4, (second, "readout"): 16 * 5 - 1}
    assert pooled_flops(SpikingGraph(graph.populations, graph.projections)) == {}


def test_ledger_and_record_charge_it(graph: SpikingGraph) -> None:
    images = np.random.default_rng(0).integers(0, 256, (3, 64))
    result = NativeBackend().run(graph, images, 8)
    ledger = Ledger.from_results(graph, [result])
    first, second = graph.spiking
    for key, flops in (((first, second), 9 * 4 * 4 * 3 * 4), ((second, "readout"), 79)):
        entry = ledger.entry(*key)
        assert entry.ann_flops == flops
        assert entry.analytic_paper() == entry.mean_spikes * flops
        # Four pixels share a pooled one: the composed map has more synapses than the layer, and the identity still holds.
        assert entry.pool == entry.mean_spikes * (entry.nominal - flops) > 0
        assert entry.analytic_graph == entry.analytic_paper() + entry.rate_term() - entry.border + entry.pool
        assert entry.residual("native") == 0
    record = Record.of(graph, result, np.zeros(3, int), 0, {"dataset": "d", "model": "m", "method": "qcfs", "sparsity": 0.0})
    assert [entry.ann_flops for entry in record.entries()] == [entry.ann_flops for entry in ledger.entries]


def test_what_is_given_goes_before_what_is_noted(graph: SpikingGraph) -> None:
    result = NativeBackend().run(graph, np.zeros((1, 64), int), 2)
    key = graph.projections[-1].key
    assert Ledger.from_results(graph, [result], ann_flops={key: 5}).entry(*key).ann_flops == Fraction(5)


@pytest.mark.parametrize("noted", [{"nobody": 3}, {"readout": -1}, {"readout": 0.5}, [3], {"readout": True}])
def test_a_note_that_does_not_fit_is_refused(graph: SpikingGraph, noted: object) -> None:
    changed = SpikingGraph(graph.populations, graph.projections, {"ann_flops": noted})
    with pytest.raises(ConfigError, match=r"provenance 'ann_flops': found .*, expected a whole number of operations"):
        pooled_flops(changed)
