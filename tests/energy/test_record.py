"""Records: what they say equals the ledger of a run cut at any T, and a file that is wrong is refused with one message."""

import dataclasses
import itertools
import json
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings

from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing.strategies import aec_graphs, convolutions, graphs
from sparsespike.common.errors import BackendError, ConfigError
from sparsespike.energy.ledger import Ledger
from sparsespike.energy.model import SWITCHES, EnergyModel
from sparsespike.energy.profiles import get_profile
from sparsespike.energy.rates import masfr_curve
from sparsespike.energy.record import MARK, Record, load_records
from sparsespike.energy.saturation import Saturation, saturation

WHAT = {"dataset": "made", "model": "mlp", "method": "qcfs", "sparsity": 0.7, "seed": 3, "lr": 0.01, "bias": True, "note": None}
MODELS = [
    EnergyModel(profile=get_profile(name), **dict(zip(SWITCHES, values, strict=True)))
    for name in ("paper", "loihi1-active")
    for values in itertools.product(*SWITCHES.values())
]


@pytest.fixture(scope="module")
def network(chain):
    rng = np.random.default_rng(7)
    shapes = ((20, 30), (30, 25), (25, 4))
    return chain(*(rng.integers(-6, 10, shape) * (rng.random(shape) < 0.3) for shape in shapes))


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(8)
    return rng.integers(0, 4, (6, 20)) * (rng.random((6, 20)) < 0.7)


LABELS = np.array([0, 1, 2, 3, 0, 1])


@pytest.fixture(scope="module")
def record(network, images):
    return Record.of(network, NativeBackend().run(network, images, 30), LABELS, 5, WHAT)


def assert_every_cut_equals_a_run(case, cuts):
    labels = np.zeros(len(case.inputs), np.int64)
    by_input = [
        Record.of(case.graph, NativeBackend().run(case.graph, case.inputs, case.steps, input=mode), labels, 0, WHAT)
        for mode in ("events", "current")
    ]
    bulk = run_blocks(NativeBackend(counting="computed"), case.graph, case.inputs, case.steps, input="current")
    assert by_input[0] == by_input[1] == Record.of(case.graph, bulk, labels, 0, WHAT)
    record = by_input[0]
    assert Record.from_json(record.to_json()) == record
    for steps in cuts:
        run = NativeBackend().run(case.graph, case.inputs, steps)
        ledger = Ledger.from_results(case.graph, [run])
        for model in MODELS:
            assert record.energy(steps, model) == ledger.energy(model)
        for ours, theirs in zip(record.entries(steps), ledger.entries, strict=True):
            assert ours == dataclasses.replace(theirs, measured={}, reported={})
        assert record.accuracy(steps) == Fraction(int((run.predictions[:, -1] == 0).sum()), run.images)
        if case.graph.spiking:
            assert record.masfr_curve()[steps - 1] == ledger.masfr()
            assert record.masfr_curve("all")[steps - 1] == ledger.masfr("all")
            assert record.masfr_curve("hidden+readout")[steps - 1] == ledger.masfr("hidden+readout")


@settings(max_examples=25, deadline=None)
@given(graphs())
def test_record_equals_the_ledger_of_a_run_cut_at_any_t(case):
    assert_every_cut_equals_a_run(case, range(1, case.steps + 1))


@settings(max_examples=10, deadline=None)
@given(convolutions())
def test_record_equals_the_ledger_of_a_cut_run_of_a_convolution(case):
    assert_every_cut_equals_a_run(case, range(1, case.steps + 1))


@settings(max_examples=15, deadline=None)
@given(aec_graphs())
def test_record_of_an_aec_network_equals_its_ledger(case):
    assert_every_cut_equals_a_run(case, [case.steps])


def test_of_an_aec_network_only_the_whole_run_can_be_asked():
    from sparsespike.backends.testing.aec_cases import aec_skips

    case = aec_skips()
    labels = np.zeros(len(case.inputs), np.int64)
    record = Record.of(case.graph, NativeBackend().run(case.graph, case.inputs, case.steps), labels, 0, WHAT)
    for ask in (lambda: record.energy(1), lambda: record.accuracy(1), record.lag, record.masfr_saturation):
        with pytest.raises(ConfigError, match="AEC network"):
            ask()
    assert record.energy() == record.energy(case.steps)


def test_curves_and_saturation_are_those_of_the_run(network, images, record):
    run = NativeBackend().run(network, images, 30)
    assert record.correct == tuple((run.predictions == LABELS[:, None]).sum(axis=0).tolist())
    np.testing.assert_array_equal(record.accuracy_curve, (run.predictions == LABELS[:, None]).mean(axis=0))
    np.testing.assert_allclose(
        np.array(record.masfr_curve(), float), masfr_curve(network, run.spikes_by_step).mean(axis=0), rtol=1e-12
    )
    assert record.ann_accuracy == Fraction(5, 6)
    assert record.accuracy_saturation() == saturation(record.correct)
    assert (record.connectivity, record.sparse) == ("s(0.7)", True)


def with_curves(record, correct, spikes):
    """The record with made-up curves of accuracy and of one hidden population's spikes."""
    hidden = record.populations[1]
    steps = len(correct)
    silent = (0,) * steps
    populations = [
        dataclasses.replace(p, positive=tuple(spikes) if p is hidden else silent, negative=silent) for p in record.populations
    ]
    return dataclasses.replace(
        record,
        images=1000,
        steps=steps,
        correct=tuple(correct),
        populations=tuple(populations),
        projections=tuple(dataclasses.replace(j, events=silent) for j in record.projections),
    )


def test_lag_is_the_difference_of_the_ends_of_both_windows(record):
    # Accuracy improves by 10 % a step until step 6; one spike in every step keeps MASFR constant from step 1.
    correct = [100, 110, 121, 133, 146, 160] + [160] * 12
    made = with_curves(record, correct, [5] * 18)
    assert made.accuracy_saturation() == Saturation(6, 16)
    assert made.masfr_saturation() == Saturation(1, 11)
    assert made.lag() == 5


def test_masfr_that_rises_by_exactly_one_percent_has_saturated(record):
    # Mean of t steps: 100 s(t) / t rises by 1 % from t = 1 to 2 if s = 100, then 102. A float would not say so reliably.
    made = with_curves(record, [10] * 11, [100, 102] + [101] * 9)
    assert made.masfr_curve()[1] / made.masfr_curve()[0] == Fraction(101, 100)
    assert made.masfr_saturation() == Saturation(1, 11)


def test_no_saturation_gives_no_lag(record):
    assert with_curves(record, [100] * 9, [5] * 9).lag() is None
    # Accuracy alone saturates: spikes double in every step.
    made = with_curves(record, [100] * 12, [2**t for t in range(12)])
    assert made.accuracy_saturation() == Saturation(1, 11)
    assert (made.masfr_saturation(), made.lag()) == (None, None)


def test_a_backend_that_drops_an_event_has_no_record(network, images):
    run = NativeBackend().run(network, images, 5)
    dropped = run.events_by_step["h1", "h2"].copy()
    dropped[np.unravel_index(dropped.argmax(), dropped.shape)] -= 1
    run = dataclasses.replace(run, events_by_step={**run.events_by_step, ("h1", "h2"): dropped})
    with pytest.raises(BackendError, match=r"events of 'h1' -> 'h2': 'native' reports .* expected spikes x fan-outs"):
        Record.of(network, run, LABELS, 5, WHAT)


def test_a_run_of_another_graph_is_refused(chain, network, images):
    run = NativeBackend().run(network, images, 5)
    other = chain(*(np.ones(shape, np.int64) for shape in ((20, 7), (7, 25), (25, 4))))
    with pytest.raises(BackendError, match="another graph's"):
        Record.of(other, run, LABELS, 5, WHAT)
    fewer = dataclasses.replace(run, spikes_by_step={"input": run.spikes_by_step["input"]})
    with pytest.raises(BackendError, match="no spikes of 30 neurons of population 'h1'"):
        Record.of(network, fewer, LABELS, 5, WHAT)
    with pytest.raises(ConfigError, match="one an image"):
        Record.of(network, run, LABELS[:2], 5, WHAT)


def test_save_load_and_folders(tmp_path, record):
    record.save(tmp_path / "a" / "one.json")
    dataclasses.replace(record, ann_correct=4).save(tmp_path / "b" / "c" / "two.json")
    (tmp_path / "a" / "settings.json").write_text('{"lr": 1}')
    (tmp_path / "a" / "broken.json").write_text("{")
    (tmp_path / "a" / "one.txt").write_text(record.to_json())
    found = load_records(tmp_path)
    assert list(found) == [tmp_path / "a" / "one.json", tmp_path / "b" / "c" / "two.json"]
    assert found[tmp_path / "a" / "one.json"] == record == Record.load(tmp_path / "a" / "one.json")
    (tmp_path / "d.json").write_text(record.to_json()[:-40])
    with pytest.raises(ConfigError, match=r"d\.json: found no valid JSON"):
        load_records(tmp_path)
    with pytest.raises(ConfigError, match="found no folder"):
        load_records(tmp_path / "none")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop(MARK), "found no key 'sparsespike_record'"),
        (lambda d: d.update({MARK: 2}), "found version 2, expected 1"),
        (lambda d: d.pop("images"), r"images: Field required"),
        (lambda d: d.update(images="6"), "images: Input should be a valid integer; found 6"),
        (lambda d: d.update(imags=6), "imags: Unexpected"),
        (lambda d: d.update(images=0), "found 0 images"),
        (lambda d: d.update(slots=4), "slots: found 4 in a run of 30 steps"),
        (lambda d: d.update(ann_correct=7), "ann_correct: found 7, expected 0 to 6"),
        (lambda d: d["correct"].pop(), "correct: found 29 values, expected 30"),
        (lambda d: d["correct"].__setitem__(3, 7), "correct: found 0 to 7, expected 0 to 6|correct: found 1 to 7"),
        (lambda d: d["what"].pop("method"), r"what\.method: found None, expected a text"),
        (lambda d: d["what"].update(sparsity=1.0), r"what\.sparsity: found 1\.0"),
        (lambda d: d["what"].update(sparsity=True), r"what\.sparsity: found True"),
        (lambda d: d["what"].update(lr=[1]), r"what\.lr"),
        (lambda d: d["populations"][1].update(name="h2"), "two populations of one name"),
        (lambda d: d["populations"][1].update(kind="neuron"), r"populations\.1\.kind"),
        (lambda d: d["populations"][1].update(neurons=0), "'h1': found 0 neurons"),
        (lambda d: d["populations"][1]["positive"].__setitem__(0, -1), "'h1', positive: found -1"),
        (lambda d: d["projections"][0].update(pre="h9"), "population 'h9' does not exist"),
        (lambda d: d["projections"][0].update(ann_flops="1/0"), "ann_flops: found '1/0'"),
        (lambda d: d["projections"][0]["events"].__setitem__(0, 10**9), "events: found"),
        (lambda d: d.update(projections=[]), "no projection"),
    ],
)
def test_a_wrong_record_gives_one_message(tmp_path, record, change, message):
    fields = json.loads(record.to_json())
    change(fields)
    path = tmp_path / "r.json"
    path.write_text(json.dumps(fields))
    with pytest.raises(ConfigError, match=message) as error:
        Record.load(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_settings_that_are_no_plain_values_are_refused(record):
    with pytest.raises(ConfigError, match=r"what\.lr: found inf"):
        dataclasses.replace(record, what={**WHAT, "lr": float("inf")})
    with pytest.raises(ConfigError, match="found steps = 31, expected 1 to 30"):
        record.energy(31)
