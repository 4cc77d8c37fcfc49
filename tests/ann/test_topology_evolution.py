"""Percolation and whole updates: fixed point, exact density, carried weights, one topology on every path."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.ann.topology import (
    RECIPES,
    EvolutionConfig,
    SparsitySchedule,
    Topology,
    Update,
    active_neurons,
    er,
    evolve,
    initial_sparsity,
    link_count,
    percolate,
    recipe,
)
from sparsespike.ann.topology.regrowth import RowProvider
from sparsespike.common.errors import ConfigError, ModelError

SHAPES = [(60, 40), (90, 60), (50, 90)]
SPARSITY = 0.95


@st.composite
def chains(draw: st.DrawFn) -> list[np.ndarray]:
    sizes = draw(st.lists(st.integers(1, 9), min_size=2, max_size=6))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    density = draw(st.floats(0.02, 0.6))
    return [random.random((m, n)) < density for n, m in pairwise(sizes)]


def percolate_until_stable(masks: list[np.ndarray]) -> list[np.ndarray]:
    """Remove links of hidden neurons with an empty side, neuron by neuron, until nothing changes."""
    masks = [mask.copy() for mask in masks]
    changed = True
    while changed:
        changed = False
        for before, after in pairwise(masks):
            for neuron in range(before.shape[0]):
                if before[neuron].any() != after[:, neuron].any():
                    before[neuron], after[:, neuron], changed = False, False, True
    return masks


@settings(max_examples=200, deadline=None)
@given(chains())
def test_percolation_reaches_the_fixed_point(masks: list[np.ndarray]) -> None:
    percolated = percolate([Topology.from_dense(mask) for mask in masks])
    for layer, expected in zip(percolated, percolate_until_stable(masks), strict=True):
        assert np.array_equal(layer.to_dense(), expected)
    assert percolate(percolated) == percolated


@settings(max_examples=50, deadline=None)
@given(chains())
def test_active_neurons_have_links_on_both_sides(masks: list[np.ndarray]) -> None:
    active = active_neurons([Topology.from_dense(mask) for mask in masks])
    assert [flags.size for flags in active] == [masks[0].shape[1], *(mask.shape[0] for mask in masks)]
    assert np.array_equal(active[0], masks[0].any(axis=0))
    assert np.array_equal(active[-1], masks[-1].any(axis=1))
    for (before, after), flags in zip(pairwise(masks), active[1:-1], strict=True):
        assert np.array_equal(flags, before.any(axis=1) & after.any(axis=0))


def test_layers_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ModelError, match="layer 1 of the chain has 4 inputs, expected 3"):
        percolate([Topology.full((3, 2)), Topology.full((2, 4))])


def start(config: EvolutionConfig, seed: int = 0) -> list[Topology]:
    generator = np.random.default_rng(seed)
    return [er(shape, initial_sparsity(config, SPARSITY), generator) for shape in SHAPES]


def weights_of(topologies: list[Topology] | tuple[Topology, ...], seed: int) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.normal(size=topology.nnz).astype(np.float32) for topology in topologies]


def gradient_providers(seed: int) -> list[RowProvider]:
    def rows_of(values: np.ndarray) -> RowProvider:
        return lambda start, stop: values[start:stop]

    generator = np.random.default_rng(seed)
    return [rows_of(generator.random(shape)) for shape in SHAPES]


def updates(config: EvolutionConfig, seed: int = 0, method: str = "auto", epochs: int = 8) -> list[tuple[Topology, ...]]:
    """Evolve from fixed random weights; return the topologies from the initial one on."""
    generator = np.random.default_rng(seed)
    history: list[tuple[Topology, ...]] = [tuple(start(config, seed))]
    gradients = gradient_providers(99)
    for epoch in range(epochs):
        progress = config.progress(epoch, epochs)
        if progress is not None:
            weights = weights_of(history[-1], epoch)
            update = evolve(history[-1], weights, config, progress, generator, gradients=gradients, method=method)
            history.append(update.topologies)
    return history


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_keeps_the_exact_density(name: str) -> None:
    config = recipe(name, SPARSITY)
    history = updates(config)
    assert len(history) == 1 + config.updates(8)
    for step, topologies in enumerate(history[1:]):
        sparsity = SPARSITY if config.schedule is None else config.schedule.at(step / (len(history) - 2))
        assert [layer.nnz for layer in topologies] == [link_count(shape, sparsity) for shape in SHAPES]
    assert [layer.nnz for layer in history[-1]] == [link_count(shape, SPARSITY) for shape in SHAPES]


@pytest.mark.parametrize("name", RECIPES)
def test_updates_follow_from_the_generator_and_not_from_the_method(name: str) -> None:
    config = recipe(name, SPARSITY)
    history = updates(config, seed=1)
    assert updates(config, seed=1, method="sparse") == history
    assert updates(config, seed=1, method="dense") == history
    if name not in ("static", "gmp"):
        assert updates(config, seed=2) != history


@pytest.mark.parametrize("rule", ["CH2-L3n", "CH3-L3n", "CH2-L3p", "CH3-L3p"])
@pytest.mark.parametrize("removal", ["wm", "ri", "wm_soft", "ri_soft"])
def test_all_removals_and_rules_give_one_topology_on_both_paths(removal: str, rule: str) -> None:
    config = EvolutionConfig(removal=removal, rule=rule)
    assert updates(config, method="sparse", epochs=4) == updates(config, method="dense", epochs=4)


@pytest.mark.parametrize("name", ["cht", "chts", "chtss", "set", "rigl", "gmp", "granet"])
def test_kept_and_reselected_links_carry_their_weights_and_new_ones_start_at_zero(name: str) -> None:
    config = recipe(name, SPARSITY)
    topologies = start(config)
    weights = weights_of(topologies, 5)
    gradients = gradient_providers(3)
    update = evolve(topologies, weights, config, 0.5, np.random.default_rng(6), gradients=gradients)
    for old, values, layer in zip(topologies, weights, update.layers, strict=True):
        dense = np.zeros(old.shape, dtype=np.float32)
        dense.ravel()[old.links] = values
        expected = dense.ravel()[layer.topology.links]
        carried = layer.carry(values)
        assert carried.dtype == np.float32
        assert np.array_equal(carried, expected)
        assert np.array_equal(layer.source >= 0, np.isin(layer.topology.links, old.links))
        counts = layer.statistics
        absent_before = np.count_nonzero(layer.source < 0)
        assert counts.regrown - counts.reselected == absent_before
        assert old.nnz - counts.removed - counts.percolated + counts.regrown == layer.topology.nnz
        assert counts.density == layer.topology.nnz / (old.shape[0] * old.shape[1])


def test_removal_takes_zeta_of_the_links_and_percolated_links_are_regrown() -> None:
    topologies = [er((200, 200), 0.99, np.random.default_rng(seed)) for seed in range(3)]
    update = evolve(topologies, weights_of(topologies, 0), EvolutionConfig(zeta=0.3), 0.0, np.random.default_rng(0))
    assert [layer.statistics.removed for layer in update.layers] == [120, 120, 120]
    assert sum(layer.statistics.percolated for layer in update.layers) > 0
    assert all(layer.statistics.regrown == 120 + layer.statistics.percolated for layer in update.layers)


def test_sampled_links_avoid_percolated_neurons() -> None:
    config = EvolutionConfig(zeta=0.5)
    topologies = [er((300, 80), 0.96, np.random.default_rng(1)), er((80, 300), 0.96, np.random.default_rng(2))]
    # hidden neurons 200.. have outgoing links but no incoming ones
    topologies[0] = topologies[0].where(topologies[0].rows < 200)
    update = evolve(topologies, weights_of(topologies, 1), config, 0.0, np.random.default_rng(3))
    assert update.topologies[0].in_degree[200:].sum() == update.topologies[1].out_degree[200:].sum() == 0


def test_an_update_without_any_path_fills_up_between_active_neurons() -> None:
    # Every output has its own input: no path of length 3, all scores 0.
    identity = Topology.from_dense(np.eye(12, dtype=bool))
    update = evolve([identity, identity], weights_of([identity, identity], 0), EvolutionConfig(), 0.0, np.random.default_rng(0))
    assert [layer.topology.nnz for layer in update.layers] == [12, 12]
    has_incoming, has_outgoing = update.topologies[0].in_degree > 0, update.topologies[1].out_degree > 0
    assert np.array_equal(has_incoming, has_outgoing)
    assert 6 <= has_incoming.sum() < 12


def test_inputs_and_last_outputs_without_links_are_never_inactive() -> None:
    # No path of length 3, so the removed link is replaced at random: anywhere, not only between linked neurons.
    layer = Topology.from_links((4, 4), [0, 5])
    config = EvolutionConfig(zeta=0.5)
    grown = {
        int(link)
        for seed in range(300)
        for link in evolve([layer], [[1.0, 1.0]], config, 0.0, np.random.default_rng(seed)).topologies[0].links
    }
    assert grown == set(range(16))


def test_everything_percolated_is_regrown_at_random() -> None:
    # The two layers meet at no hidden neuron, so percolation takes every link.
    first = Topology.from_dense(np.arange(8)[:, None] < np.array([4] * 6))
    second = Topology.from_dense(np.arange(8)[None, :] >= np.array([4] * 5)[:, None])
    update = evolve([first, second], weights_of([first, second], 0), EvolutionConfig(), 0.0, np.random.default_rng(0))
    assert [layer.topology.nnz for layer in update.layers] == [24, 20]
    assert [layer.statistics.percolated for layer in update.layers] == [24 - 7, 20 - 6]


def test_active_share_counts_all_neurons_of_the_chain() -> None:
    topologies = [Topology.from_dense([[1, 0], [0, 0], [1, 0]]), Topology.from_dense([[1, 1, 0]])]
    static = recipe("static", 0.5)
    update = evolve(topologies, weights_of(topologies, 0), static, 1.0, np.random.default_rng(0))
    assert update.topologies == tuple(topologies)
    assert update.active_neurons == 3 / 6  # one input, hidden neuron 0, the output


def test_early_stop_needs_a_high_overlap_in_every_layer() -> None:
    def first(early_stop: float | None) -> Update:
        config = replace(recipe("cht", SPARSITY), early_stop=early_stop)
        topologies = start(config)
        return evolve(topologies, weights_of(topologies, 0), config, 0.0, np.random.default_rng(0))

    overlaps = [layer.statistics.overlap for layer in first(None).layers]
    assert 0 < min(overlaps) < max(overlaps)
    assert not first(None).early_stop
    assert first(min(overlaps) * 0.99).early_stop
    assert not first(min(overlaps)).early_stop
    assert not first(max(overlaps) * 0.99).early_stop


@pytest.mark.parametrize(
    ("stop", "epochs", "count"), [(0.75, 100, 75), (0.75, 4, 3), (0.75, 1, 0), (1.0, 10, 9), (0.0, 10, 0), (0.5, 3, 1)]
)
def test_the_topology_evolves_for_a_share_of_the_training(stop: float, epochs: int, count: int) -> None:
    config = EvolutionConfig(stop=stop)
    progress = [config.progress(epoch, epochs) for epoch in range(epochs)]
    assert config.updates(epochs) == count
    assert all(value is not None for value in progress[:count])
    assert progress[count:] == [None] * (epochs - count)
    if count > 1:
        assert (progress[0], progress[count - 1]) == (0.0, 1.0)


def test_a_schedule_gets_its_one_update_even_in_one_epoch() -> None:
    assert recipe("chtss", SPARSITY).progress(0, 1) == 1.0


@pytest.mark.parametrize("kind", ["sigmoid", "cubic"])
def test_schedules_start_and_end_exactly_and_never_turn_back(kind: str) -> None:
    schedule = SparsitySchedule(0.5, 0.99, kind)
    values = [schedule.at(step / 100) for step in range(101)]
    assert (values[0], values[-1]) == (0.5, 0.99)
    assert values == sorted(values)
    assert len(set(values)) == 101


def test_schedules_have_the_published_shape() -> None:
    sigmoid = SparsitySchedule(0.5, 0.99)
    assert sigmoid.at(0.5) == 0.5 + 0.49 * 0.5
    logistic = [1 / (1 + np.exp(-12 * (p - 0.5))) for p in (0.0, 0.25, 1.0)]
    share = (logistic[1] - 0.5) / (logistic[2] - logistic[0]) + 0.5
    assert sigmoid.at(0.25) == pytest.approx(0.5 + 0.49 * share, rel=1e-14)
    assert SparsitySchedule(0.0, 0.96, "cubic").at(0.5) == 0.96 - 0.96 / 8
    config = recipe("cht", 0.99)
    assert (config.zeta_at(0.0), config.zeta_at(0.5)) == (0.3, pytest.approx(0.15))
    assert EvolutionConfig().zeta_at(0.7) == 0.3


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"zeta": 1.5}, "zeta is 1.5, expected 0..1"),
        ({"stop": -1.0}, "stop is -1.0"),
        ({"early_stop": 2.0}, "early_stop is 2.0"),
        ({"temperature": (1.0, float("inf"))}, "temperature is"),
        ({"removal": "magnitude"}, "removal rule is 'magnitude', expected one of wm"),
        ({"regrowth": "best"}, "regrowth is 'best'"),
        ({"rule": "CH5"}, "score rule is 'CH5'"),
        ({"zeta_schedule": "linear"}, "zeta_schedule is 'linear'"),
        ({"regrowth": "none"}, "zeta is 0.3 without regrowth"),
        ({"speed": 3}, "unknown settings speed"),
    ],
)
def test_a_bad_setting_is_named(settings_: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        recipe("chts", 0.99, **settings_)


def test_bad_calls_are_refused() -> None:
    config = EvolutionConfig()
    topologies = start(config)
    weights = weights_of(topologies, 0)
    generator = np.random.default_rng(0)
    with pytest.raises(ConfigError, match="expected one of cht, chts"):
        recipe("magic", 0.9)
    with pytest.raises(ModelError, match="3 layers came with 2 arrays"):
        evolve(topologies, weights[:2], config, 0.0, generator)
    with pytest.raises(ConfigError, match=r"progress of the evolution is 1\.5"):
        evolve(topologies, weights, config, 1.5, generator)
    with pytest.raises(ConfigError, match="gradient provider"):
        evolve(topologies, weights, recipe("rigl", SPARSITY), 0.5, generator)
    with pytest.raises(ConfigError, match=r"runs from 0\.9 to 0\.5"):
        SparsitySchedule(0.9, 0.5)
    with pytest.raises(ConfigError, match="'linear', expected 'sigmoid' or 'cubic'"):
        SparsitySchedule(0.5, 0.9, "linear")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="steepness"):
        SparsitySchedule(0.5, 0.9, steepness=0.0)
