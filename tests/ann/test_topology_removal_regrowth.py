"""Removal and regrowth: exact counts, the right links, and the frequencies of sequential sampling."""

from __future__ import annotations

from itertools import combinations, permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import chisquare

from sparsespike.ann.topology import Topology, er
from sparsespike.ann.topology.randomness import link_uniforms
from sparsespike.ann.topology.regrowth import best_valued_links, fill_up, random_links
from sparsespike.ann.topology.removal import REMOVALS, Removal, links_to_keep, strengths
from sparsespike.ann.topology.selection import Heap, best_links
from sparsespike.common.errors import ConfigError, ModelError

MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 8), st.integers(1, 8)))


def sequential_probabilities(weights: list[float], size: int) -> dict[tuple[int, ...], float]:
    """Probability of each set when links are drawn one after the other, without replacement, in proportion to weight."""
    chances = dict.fromkeys(combinations(range(len(weights)), size), 0.0)
    for order in permutations(range(len(weights)), size):
        left, probability = sum(weights), 1.0
        for item in order:
            probability *= weights[item] / left
            left -= weights[item]
        chances[tuple(sorted(order))] += probability
    return chances


def assert_frequencies(drawn: list[tuple[int, ...]], chances: dict[tuple[int, ...], float]) -> None:
    sets = sorted(chances)
    observed = [drawn.count(choice) for choice in sets]
    assert sum(observed) == len(drawn)
    assert chisquare(observed, [chances[choice] * len(drawn) for choice in sets]).pvalue > 1e-3


def test_uniform_numbers_belong_to_links_and_are_uniform() -> None:
    links = np.arange(200_000, dtype=np.int64)
    values = link_uniforms(np.uint64(7), links)
    assert np.array_equal(link_uniforms(np.uint64(7), links[::-1].copy()), values[::-1])
    assert not np.array_equal(link_uniforms(np.uint64(8), links), values)
    assert values.min() > 0.0
    assert values.max() < 1.0
    assert chisquare(np.histogram(values, bins=100, range=(0, 1))[0]).pvalue > 1e-3


def test_the_generator_behind_the_links_is_splitmix64() -> None:
    # Published first outputs of SplitMix64 for the seed 1234567.
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    midpoints = [((value >> 12) + 0.5) / 2**52 for value in expected]
    assert link_uniforms(np.uint64(1234567), np.arange(5, dtype=np.int64)).tolist() == midpoints


@settings(deadline=None)
@given(MASKS, st.sampled_from(REMOVALS), st.integers(0, 2**64 - 1), st.data())
def test_removal_keeps_exactly_the_asked_number(mask: np.ndarray, rule: Removal, seed: int, data: st.DataObject) -> None:
    topology = Topology.from_dense(mask)
    weights = data.draw(hnp.arrays(np.float32, topology.nnz, elements=st.sampled_from([0.0, -1.0, 0.5, 2.0, 2.0**-100])))
    keep = data.draw(st.integers(0, topology.nnz))
    kept = links_to_keep(topology, weights, keep, rule, np.uint64(seed), temperature=3.0)
    assert kept.sum() == keep
    if rule in ("wm", "ri") and 0 < keep < topology.nnz:
        strength = strengths(topology, weights, rule)
        assert strength[kept].min() >= strength[~kept].max()


def test_relative_importance_divides_by_the_sums_of_row_and_column() -> None:
    topology = Topology.from_dense(np.array([[1, 1, 0], [0, 1, 1]]))
    strength = strengths(topology, [1.0, -3.0, 5.0, 2.0], "ri")
    assert strength.tolist() == [1 / 1 + 1 / 4, 3 / 8 + 3 / 4, 5 / 8 + 5 / 7, 2 / 2 + 2 / 7]
    assert strengths(topology, [1.0, -3.0, 5.0, 2.0], "wm").tolist() == [1.0, 3.0, 5.0, 2.0]


@pytest.mark.parametrize("rule", ["wm_soft", "ri_soft"])
@pytest.mark.parametrize("temperature", [0.0, 1.0, 3.0])
def test_soft_removal_has_the_frequencies_of_sequential_sampling(rule: Removal, temperature: float) -> None:
    topology = Topology.from_dense(np.array([[1, 1, 0], [0, 1, 1], [1, 0, 0]]))
    weights = [0.3, -1.0, 0.7, 0.5, -0.9]
    chances = sequential_probabilities((strengths(topology, weights, rule) ** temperature).tolist(), 3)
    drawn = [
        tuple(np.flatnonzero(links_to_keep(topology, weights, 3, rule, np.uint64(seed), temperature)).tolist())
        for seed in range(5000)
    ]
    assert_frequencies(drawn, chances)


def test_ties_in_hard_removal_are_broken_evenly() -> None:
    topology = Topology.full((1, 4))
    drawn = [
        tuple(np.flatnonzero(links_to_keep(topology, np.ones(4), 2, "wm", np.uint64(seed))).tolist()) for seed in range(3000)
    ]
    assert_frequencies(drawn, dict.fromkeys(combinations(range(4), 2), 1 / 6))


def test_sampled_choice_has_the_frequencies_of_sequential_sampling() -> None:
    scores = np.array([[0.0, 7.0, 3.0], [7.0, 0.0, 3.0], [8.0, 0.5, 0.0]])
    candidates = np.flatnonzero(scores)
    chances = sequential_probabilities(scores.ravel()[candidates].tolist(), 3)
    drawn = []
    for seed in range(8000):
        heap = Heap(3)
        heap.offer(scores, 0, 0, 3, np.uint64(seed), sampled=True)
        drawn.append(tuple(np.searchsorted(candidates, best_links([heap], 3)).tolist()))
    assert_frequencies(drawn, chances)


@pytest.mark.parametrize("sampled", [True, False])
def test_a_choice_does_not_depend_on_how_candidates_arrive(sampled: bool) -> None:
    scores = np.random.default_rng(0).integers(0, 5, (40, 50)).astype(np.float64)
    seed = np.uint64(3)
    whole = Heap(100)
    whole.offer(scores, 0, 0, 50, seed, sampled=sampled)
    parts = [Heap(100), Heap(100)]
    for index, (row, column) in enumerate((r, c) for c in (30, 0) for r in (20, 10, 30, 0)):
        block = scores[row : row + 10, column : column + (20 if column else 30)].copy()
        parts[index % 2].offer(block, row, column, 50, seed, sampled=sampled)
    assert np.array_equal(best_links([whole], 100), best_links(parts, 100))


@settings(deadline=None)
@given(MASKS, st.integers(0, 70), st.integers(0, 2**64 - 1))
def test_random_links_are_absent_allowed_and_as_many_as_there_are(mask: np.ndarray, count: int, seed: int) -> None:
    topology = Topology.from_dense(mask)
    outputs, inputs = np.arange(mask.shape[0]) % 3 != 1, np.arange(mask.shape[1]) % 2 == 0
    allowed = np.flatnonzero(~mask & outputs[:, None] & inputs[None, :])
    chosen = random_links(topology, count, np.uint64(seed), outputs, inputs)
    assert chosen.size == min(count, allowed.size)
    assert np.isin(chosen, allowed).all()
    assert np.unique(chosen).size == chosen.size


def test_random_links_are_uniform() -> None:
    topology = Topology.from_dense(np.array([[1, 0, 0], [0, 1, 0]]))
    absent = np.array([1, 2, 3, 5])
    drawn = [tuple(np.searchsorted(absent, random_links(topology, 2, np.uint64(seed))).tolist()) for seed in range(3000)]
    assert_frequencies(drawn, dict.fromkeys(combinations(range(4), 2), 1 / 6))


def test_links_with_the_highest_values_are_chosen_among_absent_ones() -> None:
    topology = er((150, 40), 0.8, np.random.default_rng(1))
    values = np.random.default_rng(2).random(topology.shape)
    chosen = best_valued_links(topology, lambda start, stop: values[start:stop], 25, np.uint64(1))
    masked = np.where(topology.to_dense(), -1.0, values).ravel()
    assert np.array_equal(chosen, np.sort(np.argsort(masked)[-25:]))


def test_links_without_a_positive_value_are_left_to_the_filling() -> None:
    topology = Topology.from_links((3, 4), [0])
    values = np.zeros((3, 4))
    values[0, 0] = values[1, 2] = values[2, 3] = 1.0
    chosen = best_valued_links(topology, lambda start, stop: values[start:stop], 5, np.uint64(1))
    assert chosen.tolist() == [6, 11]
    # Outputs 0 and 1 and inputs 0 and 1 are active: links 1, 4, 5 between them come first.
    outputs, inputs = np.array([True, True, False]), np.array([True, True, False, False])
    filled = fill_up(topology, chosen, 5, np.uint64(2), outputs, inputs)
    assert filled.tolist() == [1, 4, 5, 6, 11]
    more = fill_up(topology, chosen, 8, np.uint64(2), outputs, inputs)
    assert more.size == np.unique(more).size == 8
    assert np.isin([1, 4, 5, 6, 11], more).all()
    assert 0 not in more
    assert fill_up(topology, chosen, 11, np.uint64(2), outputs, inputs).tolist() == list(range(1, 12))


def test_bad_requests_are_refused() -> None:
    topology = Topology.from_links((2, 2), [0, 3])
    with pytest.raises(ConfigError, match=r"3 links are to be kept .* expected 0\.\.2"):
        links_to_keep(topology, [1.0, 2.0], 3, "wm", np.uint64(0))
    with pytest.raises(ConfigError, match="'soft', expected one of wm"):
        links_to_keep(topology, [1.0, 2.0], 1, "soft", np.uint64(0))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match=r"shape \(3,\), expected \(2,\)"):
        links_to_keep(topology, [1.0, 2.0, 3.0], 1, "wm", np.uint64(0))
    with pytest.raises(ModelError, match=r"link 1 .* is nan"):
        links_to_keep(topology, [1.0, float("nan")], 1, "wm", np.uint64(0))
    with pytest.raises(ConfigError, match=r"3 links are to be added .* expected 0\.\.2"):
        fill_up(topology, np.empty(0, dtype=np.int64), 3, np.uint64(0), np.ones(2, bool), np.ones(2, bool))
    with pytest.raises(ModelError, match=r"shape \(2, 3\), expected \(2, 2\)"):
        best_valued_links(topology, lambda start, stop: np.ones((stop - start, 3)), 1, np.uint64(0))
    with pytest.raises(ModelError, match="not all finite"):
        best_valued_links(topology, lambda start, stop: -np.ones((stop - start, 2)), 1, np.uint64(0))
