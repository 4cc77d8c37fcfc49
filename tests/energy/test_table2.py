"""Table 2 from records: the printed values, the choice of networks and of T, the reduction and what is said of differences."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from sparsespike.backends.native import NativeBackend
from sparsespike.common.errors import ConfigError
from sparsespike.energy.model import EnergyModel
from sparsespike.energy.networks import Network, networks, pairs
from sparsespike.energy.profiles import builtin_profiles
from sparsespike.energy.published import published, published_table2
from sparsespike.energy.record import Record
from sparsespike.energy.table2 import describe_missing, sensitivity, table2

STEPS = 20


@pytest.fixture(scope="module")
def record(chain):
    graph = chain(np.ones((4, 6), np.int64), np.ones((6, 2), np.int64))
    run = NativeBackend().run(graph, np.full((2, 4), 9), STEPS)
    return Record.of(graph, run, np.zeros(2), 1, {"dataset": "cifar10", "model": "mlp", "method": "qcfs", "sparsity": 0})


def made(record, correct, *, synapses=(1000, 100), slots=None, **what):
    """The record with accuracies of 1000 images, one hidden spike a step, and other numbers of synapses."""
    steps = len(correct)
    hidden = {"h1": (3000,) * steps, "input": (4000,) * steps}
    populations = [
        dataclasses.replace(p, positive=hidden.get(p.name, (0,) * steps), negative=(0,) * steps) for p in record.populations
    ]
    projections = [
        dataclasses.replace(j, synapses=n, nominal=n, ann_flops=str(n), events=(500 * n,) * steps)
        for j, n in zip(record.projections, synapses, strict=True)
    ]
    return dataclasses.replace(
        record,
        what={**record.what, **what},
        images=1000,
        steps=steps,
        slots=slots,
        correct=tuple(correct),
        ann_correct=900,
        populations=tuple(populations),
        projections=tuple(projections),
    )


def settles(at, level=800):
    """Accuracy that rises until step ``at`` - 10, so that it saturates at ``at``."""
    return [level * (t + 1) // (at - 10) for t in range(at - 10)] + [level] * (STEPS + 10 - at)


def test_printed_reductions_are_those_of_the_printed_energies():
    table = published_table2()
    assert len(table) == 12
    for pair in table:
        reduction = 100 * (pair.dense.energy_uj - pair.sparse.energy_uj) / pair.dense.energy_uj
        assert round(float(reduction), 2) == float(pair.reduction_percent), pair.name


def test_first_layer_explains_the_printed_energies():
    # T x 3072 x 3072 x 4.6 pJ x density is most of every MLP row, and never more than all of it.
    for pair in published_table2():
        for row, density in ((pair.dense, 1), (pair.sparse, 1 - pair.sparsity)):
            first = row.steps * density * pair.first_layer_macs * Fraction("4.6") / 10**6
            assert first < row.energy_uj
            if pair.model == "mlp":
                assert first > Fraction("0.66") * row.energy_uj, pair.name


def test_methods_of_ours_find_their_row():
    assert published("cifar10", "mlp", "qcfs") == published("cifar10", "mlp", "cs-qcfs") is not None
    assert published("digits", "mlp", "qcfs") is None
    assert published("cifar10", "mlp", "percentile") is None


def test_reduction_is_of_the_dense_energy_each_at_its_own_t(record):
    dense = made(record, settles(14))
    sparse = made(record, settles(17), synapses=(10, 10), sparsity=0.99, training="chts")
    frame = table2(pairs(networks([dense, sparse]))).to_frame()
    assert frame["connectivity"].tolist() == ["fc", "s(0.99) chts"]
    assert frame["T_steps"].tolist() == [14, 17]
    # Rate of hidden neurons: 3 spikes a step and image on 6 neurons. Eq. 3 by hand, in pJ an image.
    energies = [14 * (1000 * 4.6 + 0.5 * 100 * 0.9), 17 * (10 * 4.6 + 0.5 * 10 * 0.9)]
    assert frame["energy_uJ"].tolist() == pytest.approx([e / 1e6 for e in energies])
    assert frame["reduction_%"].iloc[1] == pytest.approx(100 * (energies[0] - energies[1]) / energies[0])
    assert frame["reduction_by_first_layer_%"].iloc[1] == pytest.approx(460 * (14 * 1000 - 17 * 10) / energies[0])
    at_14 = 14 * (10 * 4.6 + 0.5 * 10 * 0.9)
    assert frame["reduction_at_equal_T_%"].iloc[1] == pytest.approx(100 * (energies[0] - at_14) / energies[0])
    assert frame["paper_T_steps"].tolist() == [14, 15]
    assert frame["paper_energy_uJ"].tolist() == [622.13, 6.59]
    assert frame["paper_reduction_%"].iloc[1] == 98.94
    assert frame["reduction_%"].isna().tolist() == [True, False]


def test_factors_of_the_explanation_multiply_to_the_ratio(record):
    row = table2(pairs(networks([made(record, settles(14))]))).rows[0]
    text = row.explanation()
    numbers = [float(part.split(" ")[0].rstrip(",")) for part in text.split("x")[1:]]
    ratio, time, step = numbers
    assert ratio == pytest.approx(time * step, abs=2e-3)
    assert time == 1.0
    assert "first layer's MACs are 0.0046 uJ (paper 43.41, inferred)" in text


def test_a_sparsity_that_the_paper_has_not_gets_no_printed_value(record):
    table = table2(pairs(networks([made(record, settles(14), sparsity=0.9)])))
    assert table.to_frame()["paper_energy_uJ"].isna().all()
    assert "no dense network among the records" in "\n".join(table.notes())
    assert len(table.missing()) == 24


def test_missing_rows_come_with_a_command(record):
    table = table2(pairs(networks([made(record, settles(14))])))
    missing = table.missing()
    assert len(missing) == 23
    assert "cifar10 mlp cs-qcfs fc" not in missing
    assert "cifar10 mlp cs-qcfs s(0.99)" in missing
    text = describe_missing(missing)
    assert "sparsespike sweep run experiments/paper-vgg16-cifar100.toml" in text
    assert text.count("--data cifar100=imagefolder:PATH") == 2
    assert describe_missing(()) == "Every row of the paper's table has a record."


def test_aec_is_taken_at_the_smallest_t_of_the_largest_accuracy(record):
    found = [
        made(record, [0] * t + [correct], slots=t + 1, method="aec", T=t)
        for t, correct in ((8, 700), (16, 810), (32, 810), (4, 650))
    ]
    (network,) = networks(found)
    assert network.times == (4, 8, 16, 32)
    assert [int(1000 * a) for a in network.accuracies] == [650, 700, 810, 810]
    at = network.operating
    assert (at.time, at.steps, at.settled) == (16, 17, True)
    row = table2(pairs([network])).rows[0]
    assert row.energy == found[1].energy(17, EnergyModel(counts="paper"))
    assert "T + 1 = 17 slots charged" in row.explanation()


def test_aec_networks_are_compared_at_the_later_t_if_both_ran_for_it(record):
    def made_at(t, correct, **what):
        return made(record, [0] * t + [correct], slots=t + 1, method="aec", T=t, **what)

    dense = [made_at(8, 700), made_at(16, 690)]
    sparse = [made_at(t, 600 + t, synapses=(10, 10), sparsity=0.99) for t in (8, 16)]
    frame = table2(pairs(networks(dense + sparse))).to_frame()
    assert frame["T_steps"].tolist() == [8, 16]
    step, sparse_step = 1000 * 4.6 + 0.5 * 100 * 0.9, 10 * 4.6 + 0.5 * 10 * 0.9
    assert frame["reduction_at_equal_T_%"].iloc[1] == pytest.approx(100 * (step - sparse_step) / step)
    assert frame["reduction_%"].iloc[1] == pytest.approx(100 * (9 * step - 17 * sparse_step) / (9 * step))
    alone = table2(pairs(networks([dense[0], sparse[1]]))).to_frame()
    assert alone["reduction_at_equal_T_%"].isna().all()
    at_16 = table2(pairs(networks([dense[0], made_at(16, 690, synapses=(2000, 100)), sparse[1]]))).to_frame()
    assert at_16["reduction_at_equal_T_%"].iloc[1] == pytest.approx(100 * (step + 4600 - sparse_step) / (step + 4600))


def test_calibrated_thresholds_are_said(record):
    found = [
        made(record, [0] * 8 + [700], slots=9, method="aec", T=8, convert_thresholds=how) for how in ("calibrated", "trained")
    ]
    said = "cifar10 mlp aec: thresholds calibrated; the paper trains them"
    assert [any(note.startswith(said) for note in table2(pairs(networks([each]))).notes()) for each in found] == [True, False]


def test_two_records_of_one_aec_network_and_t_are_refused(record):
    found = [made(record, [0, 0, correct], slots=3, method="aec", T=2) for correct in (700, 710)]
    with pytest.raises(ConfigError, match="found two of one AEC network and T"):
        networks(found)
    assert len(networks([found[0], found[0]])) == 1


def test_experiments_of_missing_rows_are_there(record):
    text = describe_missing(table2(pairs(networks([made(record, settles(14))]))).missing())
    named = [word for word in text.split() if word.endswith(".toml")]
    root = Path(__file__).parents[2]
    assert len(named) == 4
    assert all((root / name).is_file() for name in named)


def test_a_network_that_does_not_saturate_is_taken_at_the_last_step_and_said(record):
    table = table2(pairs(networks([made(record, [2**t for t in range(9)])])))
    at = table.rows[0].network.operating
    assert (at.time, at.settled) == (9, False)
    assert "does not saturate within the steps that were run" in "\n".join(table.notes())


def test_the_most_accurate_sparse_network_and_the_dense_one_of_its_settings(record):
    found = [
        made(record, settles(14, level), sparsity=0.99, training="chts", lr=lr, L=8) for level, lr in ((700, 0.1), (820, 0.01))
    ]
    found += [made(record, settles(14, level), lr=lr, L=8) for level, lr in ((900, 0.1), (750, 0.01), (740, 0.01))]
    (pair,) = pairs(networks(found))
    assert pair.sparse == Network(records=(found[1],))
    assert pair.dense == Network(records=(found[3],))
    assert (pair.tried, pair.differs) == (2, ())
    (pair,) = pairs(networks([found[1], found[2]]))
    assert pair.differs == ("lr = 0.01 (sparse), 0.1 (dense)",)
    topology = dataclasses.replace(found[1], what={**found[1].what, "topology": "er"})
    fewer = dataclasses.replace(found[3], what={**found[3].what, "topology": None}, images=2000)
    (partial,) = pairs(networks([topology, fewer]))
    assert partial.differs == ("images = 1000 (sparse), 2000 (dense)",)
    assert any("the dense network differs: lr = 0.01" in note for note in table2([pair]).notes())


def test_ways_of_training_links_have_rows_of_their_own(record):
    found = [made(record, settles(14), sparsity=0.99, training=t) for t in ("chts", "set")] + [made(record, settles(14))]
    assert [pair.sparse.what["training"] for pair in pairs(networks(found))] == ["chts", "set"]
    with pytest.raises(ConfigError, match="found none"):
        pairs(())


def test_sensitivity_covers_every_profile_and_way(record):
    dense = made(record, settles(14))
    sparse = made(record, settles(17), synapses=(10, 10), sparsity=0.99)
    frame = sensitivity(pairs(networks([dense, sparse])), builtin_profiles())
    assert frame["profile"].tolist() == list(builtin_profiles())
    paper = frame.iloc[0]
    # By events: the made-up records have half as many events as spikes x synapses would be, of which the first layer is MACs.
    events = [14 * 0.5 * 100 * 0.9, 17 * 0.5 * 10 * 0.9]
    for way, macs in (("every_step", (14000, 170)), ("zeros_skipped", (7000, 85)), ("once", (1000, 10))):
        dense_pj, sparse_pj = (4.6 * m + e for m, e in zip(macs, events, strict=True))
        assert paper[f"reduction_{way}_%"] == pytest.approx(100 * (dense_pj - sparse_pj) / dense_pj)
