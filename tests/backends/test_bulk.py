"""Block by block gives what one run gives, reduced."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from sparsespike.backends.bulk import run_blocks
from sparsespike.backends.native import NativeBackend
from sparsespike.backends.testing import CASES
from sparsespike.common.errors import BackendError, GraphError


@pytest.mark.parametrize("block", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("mode", ["events", "current"])
def test_blocks_equal_one_run(block: int, mode: str) -> None:
    graph, inputs, steps = CASES["negative_inputs"]()
    whole = NativeBackend().run(graph, inputs, steps, input=mode)
    seen: list[int] = []
    bulk = run_blocks(NativeBackend(), graph, inputs.astype(np.int8), steps, block=block, input=mode, progress=seen.append)
    assert seen == [min(block, 5 - start) for start in range(0, 5, block)]
    assert (bulk.images, bulk.steps, bulk.backend, bulk.dtype, bulk.version) == (5, steps, "native", "int64", whole.version)
    assert bulk.predictions.tolist() == whole.predictions.tolist()
    assert bulk.counting == whole.counting
    for name, counts in whole.spikes.items():
        for sign in ("positive", "negative"):
            by_neuron, by_step = getattr(counts, sign), getattr(whole.spikes_by_step[name], sign)
            assert getattr(bulk.spikes[name], sign).tolist() == [by_neuron.sum(axis=0).tolist()]
            assert getattr(bulk.spikes_by_image[name], sign).tolist() == by_neuron.sum(axis=1).tolist()
            assert getattr(bulk.spikes_by_step[name], sign).tolist() == [by_step.sum(axis=0).tolist()]
    for field in ("events", "neuron_updates", "bias_additions", "messages"):
        assert {k: v.tolist() for k, v in getattr(bulk, field).items()} == {
            k: v.tolist() for k, v in getattr(whole, field).items()
        }
    for key, events in whole.events_by_step.items():
        assert bulk.events_by_step[key].tolist() == [events.sum(axis=0).tolist()]
    assert bulk.wall_seconds.keys() == whole.wall_seconds.keys()


def test_accuracy_is_the_share_of_right_predictions_after_each_step() -> None:
    """Two classes that add x and 3: the second leads at x < 3, the first at a tie and above."""
    graph, _, _ = CASES["no_hidden"]()  # class 0: x + 3 y + 1 a step, class 1: -2 x
    inputs = np.array([[1, 0], [0, 1], [5, 5], [0, 0]])
    bulk = run_blocks(NativeBackend(), graph, inputs, 3, block=3)
    assert bulk.predictions.tolist() == [[0, 0, 0]] * 4
    assert bulk.accuracy([0, 0, 1, 0]).tolist() == [0.75] * 3
    with pytest.raises(BackendError, match=r"found labels of shape \(3,\), expected \(4,\)"):
        bulk.accuracy([0, 0, 1])


def test_wrong_arguments() -> None:
    graph, inputs, steps = CASES["no_hidden"]()
    with pytest.raises(BackendError, match="found block = 0, expected at least 1"):
        run_blocks(NativeBackend(), graph, inputs, steps, block=0)
    with pytest.raises(BackendError, match="found no images"):
        run_blocks(NativeBackend(), graph, inputs[:0], steps)


@pytest.mark.parametrize("counting", ["measured", "computed"])
def test_what_is_no_array_of_integers_is_refused_by_name(counting: str) -> None:
    graph, inputs, steps = CASES["no_hidden"]()
    backend = NativeBackend(counting=counting)
    with pytest.raises(BackendError, match=r"found block = 2\.5, expected a whole number"):
        run_blocks(backend, graph, inputs, steps, block=2.5)
    for steps_found in (2.0, "3", None):
        for run in (backend.run, partial(run_blocks, backend)):
            with pytest.raises(BackendError, match=f"found steps = {steps_found!r}, expected a whole number"):
                run(graph, inputs, steps_found)
    for found, message in (
        (None, "inputs None"),
        (5, "inputs 5"),
        (np.array(5), r"inputs array\(5\)"),
    ):
        with pytest.raises(GraphError, match=f"run_blocks: found {message}, expected integers of shape \\(images, 2\\)"):
            run_blocks(backend, graph, found, steps)
    with pytest.raises(GraphError, match="inputs: found what numpy makes no array of"):
        run_blocks(backend, graph, [[1, 2], [3]], steps)
    assert run_blocks(backend, graph, inputs, np.int64(steps)).predictions.shape == (len(inputs), steps)
