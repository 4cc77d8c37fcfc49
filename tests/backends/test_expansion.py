"""The size check before convolutions are expanded: exact, from the kernels alone."""

from __future__ import annotations

import numpy as np
import pytest

from sparsespike.backends.expansion import check_max_synapses, too_many_synapses
from sparsespike.backends.testing import CASES
from sparsespike.common.errors import ConfigError
from sparsespike.export.connections import Conv2dConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph


def test_the_limit_is_exact_and_says_what_is_expanded() -> None:
    graph = CASES["convolution"]().graph
    synapses = [projection.connection.to_csr().nnz for projection in graph.projections]
    total = sum(synapses)
    assert too_many_synapses(graph, max_synapses=total, bytes_per_synapse=50) == []
    (reason,) = too_many_synapses(graph, max_synapses=total - 1, bytes_per_synapse=2**30)
    assert reason.startswith(f"found {total:,} synapses ({sum(synapses[:2]):,} of them by expanding its convolutions)")
    assert f"about {total:,}.0 GiB; expected at most max_synapses = {total - 1:,}: raise max_synapses" in reason


def test_without_convolutions_nothing_is_said_of_them() -> None:
    (reason,) = too_many_synapses(CASES["skips"]().graph, max_synapses=1, bytes_per_synapse=1)
    assert "convolutions" not in reason


def test_a_graph_that_would_not_fit_any_memory_is_counted_and_not_expanded(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = Conv2dConnection(np.ones((64, 64, 9, 9), np.int32), (64, 200, 200))
    monkeypatch.setattr(Conv2dConnection, "to_csr", lambda self: pytest.fail("expanded"))
    populations = [
        Population(name="input", shape=connection.input_shape, kind="input", value_range=(0, 1)),
        Population(name="readout", shape=connection.output_shape, kind="readout"),
    ]
    graph = SpikingGraph(populations, [Projection("input", "readout", connection)])
    (reason,) = too_many_synapses(graph, max_synapses=10**8, bytes_per_synapse=12)
    assert reason.startswith(f"found {64 * 64 * 81 * 192**2:,} synapses")


def test_a_limit_below_one_is_refused() -> None:
    assert check_max_synapses("some", 1) == 1
    with pytest.raises(ConfigError, match="backend 'some': found max_synapses = 0, expected at least 1"):
        check_max_synapses("some", 0)
