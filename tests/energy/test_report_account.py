"""The account that is kept in a results file is the ledger: the same table and the same energies, after JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest

from sparsespike.energy.counts import EventCounts
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.model import EnergyModel
from sparsespike.energy.profiles import builtin_profiles
from sparsespike.energy.report.account import Account
from sparsespike.export.graph import SpikingGraph

Maker = Callable[..., SpikingGraph]
Counter = Callable[..., EventCounts]


@pytest.fixture
def ledger(chain: Maker, count: Counter) -> Ledger:
    """Three images, hubs in both projections, and two backends; shares of images are no integers."""
    rng = np.random.default_rng(5)
    weights = [rng.integers(-3, 4, shape) * (rng.random(shape) < share) for shape, share in (((7, 6), 0.5), ((6, 4), 0.4))]
    graph = chain(*weights)
    spikes = [rng.integers(0, 5, (3, 7)), rng.integers(0, 5, (3, 6))]
    counts = [count(graph, spikes, 11, backend=name) for name in ("one", "other")]
    return Ledger.from_counts(graph, counts)


def through_json(account: Account) -> Account:
    return Account.from_dict(json.loads(json.dumps(account.to_dict())))


@pytest.mark.parametrize("profile", builtin_profiles())
@pytest.mark.parametrize("counts", ["events", "paper"])
@pytest.mark.parametrize("first_layer", ["every_step", "zeros_skipped", "once"])
def test_table_and_energy_are_those_of_the_ledger(ledger: Ledger, profile: str, counts: str, first_layer: str) -> None:
    model = EnergyModel(profile=builtin_profiles()[profile], counts=counts, first_layer=first_layer)
    account = through_json(Account.of(ledger))
    pd.testing.assert_frame_equal(account.to_frame(model), ledger.to_frame(model, images="mean"), check_exact=True)
    (energy,) = account.energies(model)
    assert energy == ledger.energy(model)
    assert account.reconciled
    assert (account.steps, account.images) == (11, 3)


def test_a_dropped_event_is_a_residual(ledger: Ledger) -> None:
    key = ("h1", "readout")
    other = ledger.counts[1]
    fewer = dataclasses.replace(other, events={**other.events, key: other.events[key] - np.array([0, 1, 0])})
    broken = Ledger.from_counts(ledger.graph, [ledger.counts[0], fewer])
    account = through_json(Account.of(broken))
    assert not account.reconciled
    pd.testing.assert_frame_equal(account.to_frame(), broken.to_frame(images="mean"), check_exact=True)


def test_different_spikes_stay_apart(ledger: Ledger, count: Counter) -> None:
    rng = np.random.default_rng(6)
    others = count(ledger.graph, [rng.integers(0, 5, (3, 7)), rng.integers(0, 5, (3, 6))], 11, backend="third")
    differing = Ledger.from_counts(ledger.graph, [*ledger.counts, others])
    account = through_json(Account.of(differing))
    assert account.disagreements == differing.disagreements
    assert account.disagreements
    assert not account.reconciled
    assert [each.entries[0].backends for each in account.sets] == [("one", "other"), ("third",)]
    pd.testing.assert_frame_equal(account.to_frame(), differing.to_frame(images="mean"), check_exact=True)
