"""Units: what their digests cover, and the order in which they are computed."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from sparsespike.sweeps.units import Unit, in_order

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
SETTINGS = st.dictionaries(st.text(min_size=1, max_size=4), VALUES, max_size=4)


@st.composite
def graphs(draw: st.DrawFn) -> list[Unit]:
    """Units, each with needs among those before it."""
    units: list[Unit] = []
    for number in range(draw(st.integers(1, 12))):
        needs = draw(st.lists(st.sampled_from(units), max_size=3)) if units else []
        units.append(Unit("work", {"number": number}, tuple(needs)))
    return units


@given(SETTINGS)
def test_the_order_of_settings_does_not_matter(settings: dict[str, Any]) -> None:
    backwards = dict(reversed(settings.items()))
    assert Unit("train", settings) == Unit("train", backwards)
    assert Unit("train", settings).name == Unit("train", backwards).name


@given(SETTINGS)
def test_settings_back_from_json_are_the_same_unit(settings: dict[str, Any]) -> None:
    assert Unit("train", json.loads(json.dumps(settings))) == Unit("train", settings)


@given(SETTINGS, SETTINGS)
def test_other_settings_are_another_unit(one: dict[str, Any], other: dict[str, Any]) -> None:
    same = json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)
    assert (Unit("train", one).digest == Unit("train", other).digest) == same


def test_the_digest_covers_kind_and_needs_in_their_order() -> None:
    a, b = Unit("train", {"seed": 0}), Unit("train", {"seed": 1})
    different = [
        Unit("convert", {}, ()),
        Unit("convert", {}, (a,)),
        Unit("convert", {}, (b,)),
        Unit("convert", {}, (a, b)),
        Unit("convert", {}, (b, a)),
        Unit("simulate", {}, (a,)),
        Unit("convert", {}, (Unit("finetune", {}, (a,)),)),
        Unit("convert", {}, (Unit("finetune", {}, (b,)),)),
    ]
    assert len({unit.digest for unit in different}) == len(different)


def test_the_digest_is_the_same_in_every_process() -> None:
    # A golden value: a changed digest would orphan the results of every sweep there is.
    unit = Unit("convert", {"method": "snm", "bits": 16}, (Unit("train", {"lr": 0.05, "hidden": [8, 8]}),))
    assert unit.name == "convert-254855ee8d06a84f"


@given(graphs(), st.data())
def test_units_come_once_and_after_what_they_need(units: list[Unit], data: st.DataObject) -> None:
    results = data.draw(st.lists(st.sampled_from(units), min_size=1))
    ordered = in_order(results)
    place = {unit: position for position, unit in enumerate(ordered)}
    assert len(place) == len(ordered)
    assert all(place[need] < place[unit] for unit in ordered for need in unit.needs)
    led_to = set(results)
    for unit in reversed(units):
        led_to |= set(unit.needs) if unit in led_to else set()
    assert set(ordered) == led_to


def test_one_result_is_whole_before_the_next_is_begun() -> None:
    chains = [[Unit("a", {"n": n})] for n in range(3)]
    for chain in chains:
        chain.append(Unit("b", {}, (chain[0],)))
    assert in_order(chain[1] for chain in chains) == tuple(unit for chain in chains for unit in chain)
