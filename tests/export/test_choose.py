"""Time steps and bits chosen by measurement."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.common.errors import ConfigError
from sparsespike.energy.saturation import Saturation, saturation
from sparsespike.export.build import Conversion
from sparsespike.export.choose_bits import choose_bits
from sparsespike.export.choose_steps import choose_steps
from sparsespike.export.connections import CSRConnection
from sparsespike.export.graph import Population, Projection, SpikingGraph
from sparsespike.export.qcfs import convert_qcfs

LATE = 1000


def race() -> SpikingGraph:
    """Class 0 starts with 1000, class 1 grows by the pixel from 0: an image is of class 1 from step 1 + 1000 // pixel on."""
    return SpikingGraph(
        [
            Population(name="input", shape=(1,), kind="input", value_range=(0, LATE + 1)),
            Population(name="readout", shape=(2,), kind="readout", v_init=np.array([LATE, 0])),
        ],
        [Projection("input", "readout", CSRConnection.from_scipy(np.array([[0, 1]])))],
    )


def images(curve: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Images of which ``curve[t - 1]``, not falling, are right after t steps: 0 for those right from the start, of class 0."""
    pixels, before = [0] * curve[0], curve[0]
    labels = [0] * curve[0]
    for t, now in enumerate(curve[1:], 2):
        pixels += [LATE // (t - 1)] * (now - before)
        labels += [1] * (now - before)
        before = now
    return np.array(pixels).reshape(-1, 1), np.array(labels)


def test_the_race_gives_the_curve_that_is_asked_for() -> None:
    curve = [3, 3, 5, 9, 9, 10]
    x, y = images(curve)
    run = run_blocks(NativeBackend(), race(), x, 6)
    assert (run.predictions == y[:, None]).sum(0).tolist() == curve


def test_the_papers_rule() -> None:
    curve = [10, 20, 40, 80, 100] + [100] * 5 + [101] * 20
    found = choose_steps(race(), *images(curve), NativeBackend(), longest=30)
    assert found.correct == tuple(curve)
    assert (found.steps, found.saturation) == (15, Saturation(5, 15))
    assert found.images == 101
    assert found.rule == "the first T after 10 steps in a row of relative improvements of at most 1 % each"
    assert found.describe().startswith("T = 15: 100.00 % of 101 images, at most 100.00 % up to T = 30; the first T after")
    document = found.to_dict()
    assert document["saturation"] == {"start": 5, "end": 15}
    assert document["accuracy_by_step"] == [count / 101 for count in curve]


def test_a_window_before_the_rise_does_not_count() -> None:
    """Nothing reaches the readout for twelve steps: the rule alone would stop at chance."""
    curve = [10] * 12 + [50, 90, 100] + [100] * 15
    found = choose_steps(race(), *images(curve), NativeBackend(), longest=30)
    assert found.saturation == saturation(curve) == Saturation(1, 11)
    assert found.steps == 25
    assert "without a later rise of more than 1 % (the rule alone gives T = 11)" in found.describe()


def test_no_saturation_gives_the_best_step() -> None:
    curve = [2**t for t in range(9)] + [300, 400, 500]
    found = choose_steps(race(), *images(curve), NativeBackend(), longest=12)
    assert (found.steps, found.saturation) == (12, None)
    assert "the best T, since there is no saturation up to T = 12" in found.rule


def test_too_few_steps_to_measure() -> None:
    with pytest.raises(ConfigError, match="found 10 steps to measure, expected more than 10"):
        choose_steps(race(), *images([1, 2]), NativeBackend(), longest=10)


def test_a_trained_network(trained: Any) -> None:
    graph = convert_qcfs(trained.model, trained.encoding).graph
    done: list[int] = []
    found = choose_steps(graph, trained.pixels, trained.labels, NativeBackend(), progress=done.append)
    assert sum(done) == len(trained.labels)
    assert found.saturation == saturation(found.correct)
    assert 11 <= found.steps < 64
    assert found.correct[found.steps - 1] >= max(found.correct) / 1.01 - 1


@pytest.mark.parametrize("margin", [0.0, 0.5, 5.0, 100.0])
def test_the_least_bits_within_the_margin(trained: Any, margin: float) -> None:
    converted: list[int] = []

    def convert(bits: int) -> Conversion:
        converted.append(bits)
        return convert_qcfs(trained.model, trained.encoding, bits)

    found, conversion = choose_bits(convert, trained.pixels, trained.labels, 8, NativeBackend(), margin=margin)

    def correct(bits: int) -> int:
        graph = convert_qcfs(trained.model, trained.encoding, bits).graph
        return int((NativeBackend().run(graph, trained.pixels, 8).predictions[:, -1] == trained.labels).sum())

    images = len(trained.labels)
    assert conversion.graph.provenance["bits"] == found.bits
    assert 100 * (correct(24) - correct(found.bits)) <= margin * images
    assert found.bits == 2 or 100 * (correct(24) - correct(found.bits - 1)) > margin * images
    assert found.correct == {bits: correct(bits) for bits in converted}
    assert len(converted) <= 6
    assert f"{found.bits} bits: the least width within {margin:g} points of 24 bits at T = 8" in found.describe()
    assert ("one bit less is not" in found.rule) == (found.bits > 2)
    assert found.to_dict()["accuracy_by_bits"]["24"] == correct(24) / images
    assert (found.bits == 2) == (margin == 100.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": -0.1}, "margin: found -0.1, expected points of accuracy, 0 to 100"),
        ({"margin": float("nan")}, "margin: found nan"),
        ({"steps": 0}, "choice of bits: found steps = 0, expected at least 1"),
    ],
)
def test_settings_of_bits(trained: Any, options: dict[str, Any], message: str) -> None:
    settings = {"steps": 8, **options}
    with pytest.raises(ConfigError) as caught:
        choose_bits(
            lambda bits: convert_qcfs(trained.model, trained.encoding, bits),
            trained.pixels,
            trained.labels,
            settings.pop("steps"),
            NativeBackend(),
            **settings,
        )
    assert message in str(caught.value)
