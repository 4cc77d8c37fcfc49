"""Cannistraci-Hebb scores: the published oracles, an enumeration of paths, and exact agreement of all implementations."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from sparsespike.ann.topology import Topology, best_scored_links, er, score_matrix
from sparsespike.ann.topology.rules import RULES, Rule, quantum_bits
from sparsespike.ann.topology.sparse_scores import visit_blocks
from sparsespike.common.errors import ConfigError

METHODS = ("sparse", "dense", "auto")
ORACLE = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [0, 1, 1, 1]])
ROOT = math.sqrt(0.5)

MASKS = hnp.arrays(np.bool_, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.booleans())


def enumerate_paths(mask: np.ndarray, rule: Rule, *, bits: int | None) -> list[list[Fraction | float]]:
    """Score every absent link from its paths u - t - j - v, counted one by one; factors rounded if bits are given."""
    m, n = mask.shape
    inputs_of = [{t for t in range(n) if mask[u, t]} for u in range(m)]
    outputs_of = [{j for j in range(m) if mask[j, t]} for t in range(n)]

    def factor(inside: int, degree: int) -> Fraction | float:
        outside = degree - inside - 1
        numerator = 1 + inside if rule.startswith("CH2") else 1
        if rule.endswith("n"):
            exact = Fraction(numerator, 1 + outside)
            return exact if bits is None else Fraction(round(exact * 2**bits), 2**bits)
        root = math.sqrt(numerator / (1 + outside))
        return root if bits is None else round(root * 2**bits) / 2**bits

    scores: list[list[Fraction | float]] = [[0] * n for _ in range(m)]
    for u in range(m):
        for v in range(n):
            if mask[u, v]:
                continue
            paths = [(t, j) for t in inputs_of[u] for j in outputs_of[t] if v in inputs_of[j]]
            through_inputs, through_outputs = {t for t, _ in paths}, {j for _, j in paths}
            factor_t = {t: factor(len(outputs_of[t] & through_outputs), len(outputs_of[t])) for t in through_inputs}
            factor_j = {j: factor(len(inputs_of[j] & through_inputs), len(inputs_of[j])) for j in through_outputs}
            if rule.endswith("n"):
                scores[u][v] = sum(factor_t.values(), Fraction(0)) + sum(factor_j.values(), Fraction(0))
                continue
            for t in through_inputs:
                product = factor_t[t] * math.fsum(factor_j[j] for s, j in paths if s == t)
                scores[u][v] += product if bits is None else round(product * 2**bits) / 2**bits
    return scores


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("CH2-L3n", [[0, 0, 7, 3], [0, 7, 0, 3], [8, 0, 0, 0]]),
        ("CH3-L3n", [[0, 0, 3.5, 1.5], [0, 3.5, 0, 1.5], [4, 0, 0, 0]]),
    ],
)
def test_node_rules_give_the_published_oracle(rule: Rule, expected: list[list[float]], method: str) -> None:
    assert np.array_equal(score_matrix(Topology.from_dense(ORACLE), rule, method), expected)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("CH3-L3p", [[0, 0, 1 + ROOT, ROOT], [0, 1 + ROOT, 0, ROOT], [2, 0, 0, 0]]),
        ("CH2-L3p", [[0, 0, 2 + 2 * ROOT, 2 * ROOT], [0, 2 + 2 * ROOT, 0, 2 * ROOT], [4, 0, 0, 0]]),
    ],
)
def test_path_rules_give_the_published_oracle_up_to_their_quantum(rule: Rule, expected: list[list[float]], method: str) -> None:
    topology = Topology.from_dense(ORACLE)
    # At most 3 paths of two factors <= 2, each rounded by half a quantum, and 2 rounded products.
    bound = (3 * 2 * 2 * 0.5 + 2 * 0.5 + 1) * 2.0 ** -quantum_bits(topology, rule)
    assert np.abs(score_matrix(topology, rule, method) - expected).max() <= bound


@settings(max_examples=80, deadline=None)
@given(MASKS, st.sampled_from(RULES), st.sampled_from(METHODS))
def test_every_rule_equals_the_enumeration_of_its_paths(mask: np.ndarray, rule: Rule, method: str) -> None:
    topology = Topology.from_dense(mask)
    bits = quantum_bits(topology, rule)
    expected = np.array(enumerate_paths(mask, rule, bits=bits), dtype=np.float64)
    assert np.array_equal(score_matrix(topology, rule, method), expected)


@settings(max_examples=40, deadline=None)
@given(MASKS, st.sampled_from(["CH2-L3n", "CH3-L3n"]))
def test_rounding_moves_a_node_score_by_half_a_quantum_a_node_at_most(mask: np.ndarray, rule: Rule) -> None:
    topology = Topology.from_dense(mask)
    scores = score_matrix(topology, rule)
    nodes = topology.in_degree[:, None] + topology.out_degree[None, :]
    half = Fraction(1, 2 ** (quantum_bits(topology, rule) + 1))
    for u, row in enumerate(enumerate_paths(mask, rule, bits=None)):
        for v, exact in enumerate(row):
            assert abs(Fraction(scores[u, v]) - Fraction(exact)) <= int(nodes[u, v]) * half


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("shape", "density"), [((150, 90), 0.03), ((90, 150), 0.2), ((70, 70), 0.7), ((25, 3000), 0.02)])
def test_sparse_and_dense_scores_are_identical(shape: tuple[int, int], density: float, rule: Rule) -> None:
    # 3000 inputs take several tiles of the sparse kernel
    topology = er(shape, 1 - density, np.random.default_rng(1))
    assert np.array_equal(score_matrix(topology, rule, "sparse"), score_matrix(topology, rule, "dense"))


@pytest.mark.parametrize("rule", RULES)
def test_scores_do_not_depend_on_the_number_of_threads(rule: Rule) -> None:
    topology = er((200, 130), 0.93, np.random.default_rng(2))
    expected = score_matrix(topology, rule, "dense")
    for workers in (1, 2, 3, 7):
        scores = np.full(topology.shape, np.nan)

        def store(_: int, row: int, column: int, block: np.ndarray, scores: np.ndarray = scores) -> None:
            scores[row : row + block.shape[0], column : column + block.shape[1]] = block

        visit_blocks(topology, rule, workers, store)
        assert np.array_equal(scores, expected)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("sampled", [True, False])
@pytest.mark.parametrize("count", [0, 1, 300, 10**5])
def test_sparse_and_dense_methods_choose_the_same_links(rule: Rule, sampled: bool, count: int) -> None:
    topology = er((120, 170), 0.97, np.random.default_rng(3))
    seed = np.uint64(2**63 + 12345)
    chosen = [best_scored_links(topology, rule, count, seed, sampled=sampled, method=method) for method in METHODS]
    scores = score_matrix(topology, rule).ravel()
    assert np.array_equal(chosen[0], chosen[1])
    assert np.array_equal(chosen[0], chosen[2])
    assert chosen[0].size == min(count, np.count_nonzero(scores))
    assert (scores[chosen[0]] > 0).all()
    if not sampled and 0 < chosen[0].size < np.count_nonzero(scores):
        left = np.delete(scores, chosen[0])
        assert scores[chosen[0]].min() >= left.max()


def test_ties_between_equal_scores_are_broken_by_the_seed() -> None:
    topology = er((60, 60), 0.95, np.random.default_rng(4))
    choices = {tuple(best_scored_links(topology, "CH3-L3p", 20, np.uint64(seed), sampled=False).tolist()) for seed in range(20)}
    scores = score_matrix(topology, "CH3-L3p").ravel()
    assert len({tuple(np.sort(scores[list(choice)])) for choice in choices}) == 1
    ranked = np.sort(scores)[::-1]
    tied = np.count_nonzero(scores == ranked[19]) > np.count_nonzero(ranked[:20] == ranked[19])
    assert (len(choices) > 1) == tied


def test_the_quantum_is_coarser_where_sums_could_leave_the_exact_range() -> None:
    assert all(quantum_bits(er((100, 100), 0.9, np.random.default_rng(5)), rule) == 24 for rule in RULES)
    full = Topology.full((1000, 1000))
    assert quantum_bits(full, "CH2-L3n") == 24
    # 1000^2 paths of weight up to sqrt(1000)^2, and 10^6 rounded terms: 2^29 < 1.001e9 < 2^30
    assert quantum_bits(full, "CH2-L3p") == 52 - 30


def test_an_unknown_rule_or_method_is_refused() -> None:
    topology = Topology.from_dense(ORACLE)
    with pytest.raises(ConfigError, match="'CH4-L3n', expected one of CH2-L3n"):
        score_matrix(topology, "CH4-L3n")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="'gpu', expected one of auto"):
        score_matrix(topology, "CH2-L3n", "gpu")  # type: ignore[arg-type]
