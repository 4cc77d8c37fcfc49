"""AEC conversion: codes against their definition, tables against their reals, graphs against the network's own activations."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sparsespike.ann.aec import AEC, Exponentials
from sparsespike.ann.encoding import Encoding
from sparsespike.backends.testing import reference
from sparsespike.common.errors import ConfigError, ModelError, SparseSpikeError
from sparsespike.export.aec import convert_aec, with_spiking_pools
from sparsespike.export.build import Conversion
from sparsespike.export.calibrate import Calibration, real_inputs
from sparsespike.export.connections import Conv2dConnection
from sparsespike.export.exponential import ExponentialCode
from sparsespike.export.network import Activate
from sparsespike.export.population import NEVER
from sparsespike.export.source import read_network

ENCODING = Encoding((0, 255), 255, (0.5, 0.25), (0.5, 0.2))
FLAT = Encoding((0, 255), 255, (0.4,), (0.3,))


def pixels(count: int, seed: int = 1, shape: tuple[int, ...] = (2, 8, 8)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *shape))


def code(threshold1: float, rate1: float, threshold2: float, rate2: float, steps: int, force: bool = False) -> ExponentialCode:
    return ExponentialCode(*AEC(steps, Exponentials(threshold1, rate1, threshold2, rate2)).thresholds(), force)


def sent_by_hand(value: float, primary: list[float], compensation: list[float], force: bool) -> float:
    """Slot by slot, as the neuron does it."""
    left, first, second = value, None, None
    for slot, (one, other) in enumerate(zip(primary, compensation, strict=True)):
        if first is None and left >= one:
            first, left = one, left - one
        last = slot == len(primary) - 1
        if first is not None and second is None and (left >= other or (force and last)):
            second, left = other, left - other
    return (first or 0.0) + (second or 0.0)


positive = st.floats(0.05, 3.0)


@given(positive, positive, positive, positive, st.integers(1, 9), st.booleans(), st.lists(st.floats(-1, 8), min_size=1))
@settings(deadline=None, max_examples=80)
def test_a_code_is_what_the_neuron_sends(
    a: float, b: float, c: float, d: float, steps: int, force: bool, values: list[float]
) -> None:
    tested = code(a, b, c, d, steps, force)
    # Values exactly at a threshold are the ones that rounding could decide otherwise.
    every = np.array([*values, *tested.primary, *(tested.primary[0] + tested.compensation)])
    expected = [sent_by_hand(v, tested.primary.tolist(), tested.compensation.tolist(), force) for v in every.tolist()]
    assert tested(every).tolist() == expected


def test_a_code_of_powers_of_two_sends_the_two_highest_digits() -> None:
    tested = code(16.0, math.log(2), 8.0, math.log(2), 4)
    assert np.allclose(tested.primary, [16, 8, 4, 2, 1])
    rounded = ExponentialCode(np.rint(tested.primary), np.array([8.0, 4, 2, 1, 0.5]))
    assert rounded(np.arange(26.0)).tolist() == [
        0, 1, 2, 3, 4, 5, 6, 6, 8, 9, 10, 10, 12, 12, 12, 12, 16, 17, 18, 18, 20, 20, 20, 20, 24, 24,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("primary", "compensation", "message"),
    [
        ([2.0, 1.0], [1.0], r"found shapes \(2,\) and \(1,\), expected twice \(T \+ 1,\)"),
        ([2.0, 2.0], [1.0, 0.5], "found primary thresholds .* expected positive, finite, falling"),
        ([2.0, 1.0], [1.0, 0.0], "found compensation thresholds"),
        ([np.nan, 1.0], [1.0, 0.5], "found primary thresholds"),
    ],
)
def test_codes_that_are_none(primary: list[float], compensation: list[float], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ExponentialCode(np.array(primary), np.array(compensation))


def perceptron(activation: Callable[[], nn.Module] = nn.ReLU, widths: tuple[int, ...] = (12, 20, 16, 4)) -> nn.Module:
    layers: list[nn.Module] = []
    rng = np.random.default_rng(0)
    for n, m in itertools.pairwise(widths):
        linear = nn.Linear(n, m)
        for parameter in linear.parameters():
            parameter.data.copy_(linear.weight.new_tensor(rng.normal(0, (2 / n) ** 0.5, tuple(parameter.shape))))
        layers += [linear, activation()]
    return nn.Sequential(*layers[:-1]).eval()


def decoded(conversion: Conversion, images: np.ndarray) -> dict[str, np.ndarray]:
    """What each population sent, in the network's own units, shape (images, N)."""
    graph = conversion.graph
    result = reference(graph, images, graph.slots or 0)
    values = {}
    for name in graph.spiking:
        tables = graph.population(name).tables
        bits = result.rasters[name].astype(np.int64)
        sent = (bits & 1) * tables["primary_payload"][:, None] + (bits >> 1) * tables["compensation_payload"][:, None]
        values[name] = sent.sum(axis=1)
    values["readout"] = result.readout[:, -1] * float(graph.readout.scale)
    return values


def test_the_graph_sends_what_integers_say() -> None:
    """Layer by layer in closed form, from the integers that arrive: no step is simulated."""
    conversion = convert_aec(perceptron(), FLAT, Calibration(pixels(64, 3, (12,))), steps=6, input_shape=(12,))
    graph, images = conversion.graph, pixels(20, 4, (12,))
    sent = images
    found = decoded(conversion, images)
    for name in graph.spiking:
        population = graph.population(name)
        (projection,) = graph.into(name)
        v = sent @ projection.connection.to_csr().to_scipy().toarray() + population.bias
        first, second = (population.tables[f"{spike}_threshold"] for spike in ("primary", "compensation"))
        t1 = (v[..., None] >= first).argmax(-1)
        fires = v >= first.min()
        left = v - first[t1]
        late = (left[..., None] >= second) & (np.arange(7) >= t1[..., None])
        t2, again = late.argmax(-1), fires & late.any(-1)
        sent = fires * population.tables["primary_payload"][t1] + again * population.tables["compensation_payload"][t2]
        assert np.array_equal(found[name], sent)
        assert 0 < again.sum() < fires.sum() < fires.size


@pytest.mark.parametrize("force", [False, True])
def test_wide_integers_come_near_the_networks_own_activations(small_conv_net: Callable[..., nn.Module], force: bool) -> None:
    """24 bits of weight and 20 of payload against float64: only values that lie next to a threshold may move to another slot."""
    model = small_conv_net(lambda: AEC(8, Exponentials(1.5, 0.6, 1.0, 0.6), force_compensation=force))
    conversion = convert_aec(model, ENCODING, bits=24, payload_bits=20, input_shape=(2, 8, 8))
    images = pixels(30, 5)
    network = read_network(model, (2, 8, 8))
    real = network.evaluate(real_inputs(network, ENCODING, images))
    found = decoded(conversion, images)
    for name in conversion.graph.spiking:
        layer = next(node.layer for node in network.activations if node.name == name)
        assert isinstance(layer, Activate)
        assert layer.code is not None
        unit = max(layer.code.primary[0], layer.code.compensation[0]) / (2**20 - 1)
        difference = np.abs(found[name] * unit - real[name].reshape(30, -1))
        assert np.mean(difference > 1e-4) < 0.01
    assert np.median(np.abs(found["readout"] - real["head"])) < 1e-3


def test_forced_compensation_doubles_the_spikes(small_conv_net: Callable[..., nn.Module]) -> None:
    kinds = {}
    for force in (False, True):
        made = convert_aec(
            small_conv_net(), ENCODING, Calibration(pixels(32)), steps=5, input_shape=(2, 8, 8), force_compensation=force
        )
        kinds[force] = reference(made.graph, pixels(8, 6), 6)
    for name, counts in kinds[True].spikes.items():
        if name != "input":
            assert set(np.unique(counts.positive)) <= {0, 2}
            assert (kinds[False].spikes[name].positive == 1).any()


def test_pools_that_read_an_activation_become_populations(small_conv_net: Callable[..., nn.Module]) -> None:
    model = small_conv_net()
    names = [node.name for node in with_spiking_pools(read_network(model, (2, 8, 8))).activations]
    assert names == [*["stem.2", "pool-spikes"], "joined", "second", "third"]
    graph = convert_aec(model, ENCODING, Calibration(pixels(32)), steps=4, input_shape=(2, 8, 8)).graph
    pool = graph.projection("stem.2", "pool-spikes").connection
    assert isinstance(pool, Conv2dConnection)
    assert (pool.kernel.shape, pool.groups, pool.stride) == ((6, 1, 2, 2), 6, (2, 2))
    assert pool.nnz == 6 * 8 * 8
    assert graph.delay("pool-spikes", "joined") == 0
    linear_first = nn.Sequential(nn.Conv2d(2, 3, 3), nn.AvgPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(27, 2)).eval()
    assert [node.name for node in with_spiking_pools(read_network(linear_first, (2, 8, 8))).activations] == ["2"]


def test_the_topology_stays_and_everything_comes_once() -> None:
    model = perceptron()
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.weight.data *= module.weight.abs() > 0.3
    graph, report, _ = convert_aec(model, FLAT, Calibration(pixels(32, 3, (12,))), 8, steps=5, input_shape=(12,))
    links = [int((module.weight != 0).sum()) for module in model.modules() if isinstance(module, nn.Linear)]
    assert [p.connection.nnz for p in graph.projections] == links
    assert {p.bias_mode for p in graph.populations} == {"once"}
    assert (graph.slots, graph.provenance["T"], graph.provenance["method"]) == (6, 5, "aec")
    expected = {"T": 5, "payload_bits": 12, "thresholds": "calibrated", "percentile": 100.0, "calibration_images": 32}
    assert report.settings == {**expected, "force_compensation": False}
    for name in graph.spiking:
        tables = graph.population(name).tables
        assert tables["primary_payload"][0] == 2**12 - 1
        assert (np.diff(tables["primary_threshold"]) < 0).all()


def test_compensation_slots_that_send_nothing_are_disabled() -> None:
    model = perceptron(lambda: AEC(6, Exponentials(1.0, 0.5, 0.5, 2.0)))
    tables = convert_aec(model, FLAT, input_shape=(12,), payload_bits=6).graph.population("1").tables
    disabled = tables["compensation_payload"] == 0
    assert disabled.tolist() == [False, False, False, True, True, True, True]  # 63 * 0.5 * exp(-2 t) rounds to 0 from t = 3 on
    assert (tables["compensation_threshold"][disabled] == NEVER).all()


def images_of_nothing(count: int) -> Calibration:
    return Calibration(np.zeros((count, 12), np.int64))


@pytest.mark.parametrize(
    ("model", "settings", "message"),
    [
        (perceptron(), {}, "found ReLU activations, expected steps (T) and a calibration"),
        (perceptron(), {"calibration": Calibration(pixels(32, 3, (12,)))}, "expected steps (T) and a calibration"),
        (perceptron(), {"calibration": Calibration(pixels(32, 3, (12,))), "steps": 0}, "T = 0, expected at least 1"),
        (perceptron(), {"payload_bits": 0}, "payload_bits: found 0, expected an integer from 1 to 24"),
        (perceptron(), {"bits": 25}, "bits: found 25"),
        (perceptron(lambda: AEC(4)), {"steps": 5}, "found AEC activations and settings"),
        (perceptron(lambda: AEC(20, Exponentials(1.0, 0.9, 0.5, 0.9))), {}, "'1': found T = 20, expected at most 10: later"),
        (perceptron(lambda: AEC(20, Exponentials(1.0, 0.9, 0.5, 0.9))), {"payload_bits": 4}, "expected at most 3"),
        (perceptron(lambda: AEC(4, smallest_as_silent=True)), {}, "found AEC(smallest_as_silent=True), whose output depends"),
        (
            nn.Sequential(nn.Linear(12, 5), AEC(3), nn.Linear(5, 5), AEC(4), nn.Linear(5, 2)).eval(),
            {},
            "found AEC activations of different T {'1': 3, '3': 4}",
        ),
        (
            nn.Sequential(nn.Linear(12, 5), AEC(3), nn.Linear(5, 5), nn.ReLU(), nn.Linear(5, 2)).eval(),
            {},
            "layer '3': found the activation ReLU, expected AEC",
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_converted(model: nn.Module, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(SparseSpikeError) as caught:
        convert_aec(model, FLAT, input_shape=(12,), **settings)
    assert message in str(caught.value)


def test_a_layer_that_is_never_active() -> None:
    model = perceptron()
    model[2].bias.data.fill_(-1e3)  # type: ignore[index,union-attr]
    with pytest.raises(ModelError, match="layer '3': found no neuron that is active on the calibration images"):
        convert_aec(model, FLAT, Calibration(pixels(32, 3, (12,))), steps=4, input_shape=(12,))


def test_settings_errors_are_configuration_errors() -> None:
    with pytest.raises(ConfigError):
        convert_aec(perceptron(), FLAT, input_shape=(12,))
