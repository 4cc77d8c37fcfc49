"""The mapping estimate against a count synapse by synapse, closed forms, and what is published."""

import json
import tracemalloc
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.backends.mapping import CHIPS, LOIHI_1, LOIHI_2, Chip, Limit, estimate
from sparsespike.backends.mapping.estimate import _first, _parts, axon_bits
from sparsespike.backends.testing import CASES
from sparsespike.backends.testing.strategies import convolutions, graphs
from sparsespike.export.connections import Conv2dConnection, CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph


def published(value):
    return Limit(value, "a test")


def bits_of_axon(weights, index, delay):
    """Bit for bit, in blocks of 64."""
    bits = 0
    for first in range(0, weights, 64):
        block = min(64, weights - first) * (8 + index + delay) + 10
        bits += block + -block % 64
    return bits


@given(st.integers(1, 400), st.integers(1, 4096), st.integers(0, 6))
def test_memory_of_an_axon(weights, neurons, delay):
    index = 0 if neurons == 1 else max(6, int(np.ceil(np.log2(neurons))))
    assert axon_bits(np.array([weights]), neurons, delay)[0] == bits_of_axon(weights, index, delay)


def load(graph, chip, shares, name):
    """What each core of a population holds: in-axons, bits and out-axons, counted synapse by synapse."""
    size, share = graph.population(name).size, shares[name]
    cores = [range(first, min(first + share, size)) for first in range(0, size, share)]
    loads = []
    for core in cores:
        in_axons = bits = out_axons = 0
        for projection in graph.into(name):
            if projection.pre == graph.input.name:
                continue
            csr = projection.connection.to_csr()
            delay = (graph.delay(*projection.key) - 1).bit_length()
            for pre in range(csr.shape[0]):
                row = csr.indices[csr.pointers[pre] : csr.pointers[pre + 1]]
                heard = sum(int(post) in core for post in row)
                index = 0 if share == 1 else max(6, int(np.ceil(np.log2(share))))
                in_axons += heard > 0
                bits += bits_of_axon(heard, index, delay)
        for projection in graph.out_of(name):
            csr = projection.connection.to_csr()
            for pre in core:
                row = csr.indices[csr.pointers[pre] : csr.pointers[pre + 1]]
                out_axons += len({int(post) // shares[projection.post] for post in row})
        loads.append((in_axons, bits, out_axons))
    return [max(column) for column in zip(*loads, strict=True)], len(cores)


@settings(max_examples=25, deadline=None)
@given(graphs(max_neurons=8), st.integers(1, 6), st.integers(1, 12), st.integers(1, 12), st.integers(1, 6))
def test_small_chips_against_a_count_synapse_by_synapse(case, neurons, in_axons, out_axons, words):
    graph = case.graph
    chip = Chip(
        name="toy",
        cores=published(10**6),
        neurons=published(neurons),
        in_axons=published(in_axons),
        out_axons=published(out_axons),
        synapse_bits=published(64 * words),
        graded=True,
        programmable=True,
    )
    found = estimate(graph, chip)
    names = [name for name in graph.order if name != graph.input.name]
    assert [population.name for population in found.populations] == names
    shares = {p.name: p.neurons_per_core for p in found.populations}
    for population in reversed(found.populations):
        name, size = population.name, graph.population(population.name).size
        after = {other: shares[other] for other in names if other != name and shares[other] is not None}
        if any(post not in after for post in graph.nx.successors(name)):
            continue  # what leaves it is not known
        for share in (-(-size // count) for count in range(1, size + 1)):
            (heard, bits, leaving), cores = load(graph, chip, after | {name: share}, name)
            if share <= neurons and heard <= in_axons and bits <= 64 * words and leaving <= out_axons:
                break
        else:
            assert population.cores is None
            assert found.cores is None
            assert any(f"population {name!r} does not fit" in obstacle for obstacle in found.obstacles)
            continue
        assert (population.cores, population.in_axons, population.out_axons) == (cores, heard, leaving)
        assert population.synapse_memory_bytes == -(-bits // 8)
        assert population.synapse_memory_share == bits / (64 * words)
    if None not in shares.values():
        assert found.cores == sum(population.cores for population in found.populations)
        assert found.chips == -(-found.cores // 10**6)


def wide_network():
    """Input - 3072 - 3072 - 10, as in the benchmarks."""
    rng = np.random.default_rng(0)
    sizes = (3072, 3072, 3072, 10)
    names = ("input", "a", "b", "readout")
    populations = [Population(name="input", shape=(3072,), kind="input", value_range=(0, 1))]
    populations += [Population(name=n, shape=(3072,), kind="if", threshold=np.full(3072, 4), reset="zero") for n in "ab"]
    populations.append(Population(name="readout", shape=(10,), kind="readout"))
    projections = [
        Projection(
            names[i],
            names[i + 1],
            CSRConnection.from_scipy(
                sp.random(sizes[i], sizes[i + 1], 0.01, "csr", random_state=rng, data_rvs=lambda n: rng.integers(1, 9, n)).astype(
                    int
                )
            ),
        )
        for i in range(3)
    ]
    return SpikingGraph(populations, projections)


def test_loihi_1():
    graph = wide_network()
    spikes = {"a": np.full((4, 3072), 3), "b": np.zeros(3072)}
    found = estimate(graph, LOIHI_1, spikes=spikes)
    assert [population.cores for population in found.populations] == [3, 3, 1]
    assert (found.cores, found.chips, found.lower_bound, found.obstacles) == (7, 1, False, ())
    a, b, readout = found.populations
    assert (a.in_axons, a.synapse_memory_bytes) == (0, 0)  # its input is injected
    assert b.in_axons == 3072
    assert b.synapse_memory_share == pytest.approx(0.66, abs=0.03)
    assert (a.messages_per_spike, a.messages_per_image) == (pytest.approx(3, abs=0.01), 3 * a.out_axons)
    assert (b.messages_per_image, readout.messages_per_image) == (0, None)
    assert json.loads(json.dumps(found.to_dict()))["limits"]["in_axons"]["value"] == 4096


def test_loihi_2_is_a_lower_bound_and_promises_nothing_else():
    graph = wide_network()
    found = estimate(graph, LOIHI_2)
    assert (found.cores, found.lower_bound) == (1, True)
    assert all(p.cores is None and p.synapse_memory_bytes is None for p in found.populations)
    assert any("not published: cores are a lower bound" in obstacle for obstacle in found.obstacles)
    populations = [Population(name="input", shape=(1,), kind="input", value_range=(0, 1))]
    populations.append(Population(name="a", shape=(1100,), kind="if", threshold=np.full(1100, 2)))
    populations.append(Population(name="readout", shape=(1000,), kind="readout"))
    dense = [
        Projection("input", "a", CSRConnection.from_scipy(np.ones((1, 1100), int))),
        Projection("a", "readout", CSRConnection.from_scipy(np.ones((1100, 1000), int))),
    ]
    assert estimate(SpikingGraph(populations, dense), LOIHI_2).cores == 2  # 2,100 neurons, 1.1 of 120 / 128 million synapses


def test_every_limit_has_a_source():
    for chip in CHIPS.values():
        for limit in chip.limits.values():
            assert limit is None or (limit.value > 0 and len(limit.source) > 20)


@pytest.mark.parametrize(
    ("case", "obstacle"),
    [
        ("single_neuron", "population 'hidden' is reset by subtraction, and neurons of Loihi 1 are reset to zero"),
        ("signed_memory", "population 'signed' is of kind 'signed_if', and spikes of Loihi 1 carry no value or sign"),
        ("aec_two_digits", "population 'hidden' is of kind 'aec'"),
    ],
)
def test_what_loihi_1_cannot_do_is_named(case, obstacle):
    graph = CASES[case]().graph
    assert any(obstacle in found for found in estimate(graph, LOIHI_1).obstacles)
    assert not any("reset" in found or "carry" in found for found in estimate(graph, LOIHI_2).obstacles)


def test_thresholds_delays_and_more_than_one_chip():
    graph = CASES["aec_skips"]().graph
    slow = replace(LOIHI_1, delay_bits=published(2), cores=published(3))
    obstacles = estimate(graph, slow).obstacles
    assert "projection 'a' -> 'c' waits 5 steps, and Loihi 1 at most 62" in obstacles
    assert "4 cores are more than the 3 of one chip" in obstacles
    many = Population(name="hidden", shape=(17,), kind="if", threshold=2 * np.arange(1, 18), reset="zero")
    graph = SpikingGraph(
        [
            Population(name="input", shape=(1,), kind="input", value_range=(0, 1)),
            many,
            Population(name="readout", shape=(1,), kind="readout"),
        ],
        [
            Projection("input", "hidden", CSRConnection.from_scipy(np.ones((1, 17), int))),
            Projection("hidden", "readout", CSRConnection.from_scipy(np.ones((17, 1), int))),
        ],
    )
    (obstacle,) = estimate(graph, LOIHI_1).obstacles
    assert obstacle.startswith("population 'hidden' has 17 different thresholds, and a core of Loihi 1 at most 16 (nengo-loihi")


def one_projection(connection, **fields):
    """Input - a - b - readout, with the connection from a to b."""
    n_pre, n_post = connection.shape
    a = Population(name="a", shape=(n_pre,), kind="if", threshold=np.full(n_pre, 4), reset="zero")
    if isinstance(connection, Conv2dConnection):
        a = replace(a, shape=connection.input_shape)
    b_shape = connection.output_shape if isinstance(connection, Conv2dConnection) else (n_post,)
    b = Population(name="b", shape=b_shape, kind="if", reset="zero", **{"threshold": np.full(n_post, 4)} | fields)
    image = Population(name="input", shape=(1,), kind="input", value_range=(0, 2**25))
    one = Population(name="readout", shape=(1,), kind="readout")
    projections = [
        Projection("input", "a", CSRConnection.from_scipy(np.full((1, n_pre), 2**20 + 1))),
        Projection("a", "b", connection),
        Projection("b", "readout", CSRConnection.from_scipy(np.ones((n_post, 1), int))),
    ]
    return SpikingGraph([image, a, b, one], projections)


@pytest.mark.parametrize(
    ("weights", "fields", "of_1", "of_2"),
    [
        ([-127, 127], {}, None, None),
        ([-32767, 127], {}, *["projection 'a' -> 'b' has weights -32767..127, expected mantissas of 8 bits"] * 2),
        ([1, 2], {"threshold": np.array([2**17])}, "a threshold of 131072, expected at most 131071 (17 bits)", None),
        ([1, 2], {"threshold": np.array([2**23])}, "a threshold of 8388608", "a threshold of 8388608, expected at most 8388607"),
        ([1, 2], {"v_init": np.array([2**20])}, "starts with a membrane of 1048576, expected at most 131071 (24 bits", None),
        ([1, 2], {"bias": np.array([2**19 + 1])}, "has a bias of 524289, expected a mantissa of 13 bits", "a bias of 524289"),
    ],
)
def test_words_that_are_too_narrow_are_obstacles(weights, fields, of_1, of_2):
    """The input's own weights and values are not: its current is computed off the chip."""
    graph = one_projection(CSRConnection.from_scipy(np.array(weights)[:, None]), **fields)
    for chip, expected in ((LOIHI_1, of_1), (LOIHI_2, of_2)):
        obstacles = [found for found in estimate(graph, chip).obstacles if found.startswith(f"{chip.name}: ")]
        assert len(obstacles) == (expected is not None)
        if expected is not None:
            assert expected in obstacles[0]
            assert "; convert with " in obstacles[0] or "; round the biases in the graph" in obstacles[0]
            assert "backend" not in obstacles[0].replace("sparsespike.backends", "")


@settings(max_examples=30, deadline=None)
@given(convolutions(), st.integers(1, 40), st.integers(1, 30))
def test_convolutions_take_what_their_synapses_take_one_by_one(case, neurons, words):
    """Part by part, without ever expanding all of it."""
    graph = case.graph
    expanded = SpikingGraph(graph.populations, [replace(p, connection=p.connection.to_csr()) for p in graph.projections])
    small = replace(LOIHI_1, neurons=published(neurons), in_axons=published(30), synapse_bits=published(64 * words))
    for chip in (LOIHI_1, small):
        assert estimate(graph, chip).rows() == estimate(expanded, chip).rows()


@pytest.mark.parametrize("part", [1, 7, 40])
def test_synapses_in_parts_are_all_of_them(part):
    rng = np.random.default_rng(part)
    csr = CSRConnection.from_scipy(rng.integers(0, 2, (30, 6)) * (rng.random((30, 1)) < 0.5))
    pre, post = (np.concatenate(arrays) for arrays in zip(*_parts(csr, part), strict=True))
    assert (pre.tolist(), post.tolist()) == (np.repeat(np.arange(30), csr.fan_out).tolist(), csr.indices.tolist())


def test_large_convolutions_are_estimated_in_little_memory():
    """9 million synapses, which would be more than 72 MB expanded."""
    connection = Conv2dConnection(np.full((32, 32, 3, 3), 2), (32, 32, 32), padding=(1, 1))
    graph = one_projection(connection)
    assert graph.nnz > 9_000_000
    tracemalloc.start()
    try:
        roomy = replace(LOIHI_1, in_axons=published(10**6), out_axons=published(10**6), synapse_bits=published(2**40))
        found = estimate(graph, roomy)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert [p.cores for p in found.populations] == [32, 32, 1]
    assert peak < 60 * 10**6


@given(st.integers(1, 300), st.integers(0, 700), st.integers(0, 700))
def test_the_fewest_cores_are_those_that_trying_each_in_turn_finds(least: int, more: int, needed: int) -> None:
    most, tried = least + more, []

    def fits(cores: int) -> bool:
        tried.append(cores)
        return cores >= min(needed, most)

    cores = least
    while not fits(cores):
        cores = min(max(cores + 1, int(cores * 1.05)), most)
    in_turn = len(tried)
    assert _first(fits, least, most) == cores
    assert len(tried) - in_turn <= 2 * np.log2(in_turn) + 2
