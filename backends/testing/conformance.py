"""Equality of two results, and of a backend with the reference on named cases."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.base import Backend, RunResult, SpikeCounts
from sparsespike.backends.reference import reference
from sparsespike.backends.testing.case import Case
from sparsespike.backends.testing.cases import CASES


def assert_equal(result: RunResult, expected: RunResult) -> None:
    """Raise AssertionError with the first difference unless two results are equal, integer for integer.

    Compared are steps, readout, spikes per neuron and per step, events per image and per step, neuron updates and bias
    additions; rasters where ``result`` has them. ``messages``, ``counting``, names and times may differ. Arrays must have the
    dtypes that RunResult names, so that a float64 count is found before it rounds.

    Parameters
    ----------
    result : RunResult
        What is tested.
    expected : RunResult
        What it must equal, such as ``reference(graph, inputs, steps)``, run with the same ``input`` mode.

    Raises
    ------
    AssertionError
        Naming the field, how many entries differ, and the first of them.
    """
    assert result.steps == expected.steps, f"steps: found {result.steps}, expected {expected.steps}"
    missing = sorted(set(result.rasters) - set(expected.rasters))
    assert not missing, f"rasters of {missing} found, but not expected; record them in both runs"
    for name, raster in result.rasters.items():
        _assert_arrays(f"raster of {name!r}, [image, step, neuron]", raster, expected.rasters[name], np.int8)
    for name, index, field in (
        ("spikes_by_step", "[image, step]", "spikes_by_step"),
        ("spikes", "[image, neuron]", "spikes"),
        ("events_by_step", "[image, step]", "events_by_step"),
        ("events", "[image]", "events"),
        ("neuron_updates", "[image]", "neuron_updates"),
        ("bias_additions", "[image]", "bias_additions"),
    ):
        found, wanted = dict(_arrays(getattr(result, field))), dict(_arrays(getattr(expected, field)))
        assert found.keys() == wanted.keys(), f"{name}: found keys {sorted(found)}, expected {sorted(wanted)}"
        for key in wanted:
            _assert_arrays(f"{name} of {key}, {index}", found[key], wanted[key], np.int64)
    _assert_arrays("readout, [image, step, class]", result.readout, expected.readout, np.int64)


def _arrays(mapping: Mapping[Any, Any]) -> Iterator[tuple[str, NDArray[Any]]]:
    for key, value in mapping.items():
        label = key if isinstance(key, str) else " -> ".join(key)
        if isinstance(value, SpikeCounts):
            yield f"{label}, positive", value.positive
            yield f"{label}, negative", value.negative
        else:
            yield label, value


def _assert_arrays(label: str, found: NDArray[Any], expected: NDArray[Any], dtype: type[np.generic]) -> None:
    assert found.dtype == dtype, f"{label}: found dtype {found.dtype}, expected {np.dtype(dtype).name}"
    assert found.shape == expected.shape, f"{label}: found shape {found.shape}, expected {expected.shape}"
    different = np.argwhere(found != expected)
    if len(different):
        at = tuple(different[0].tolist())
        raise AssertionError(
            f"{label}: {len(different)} of {found.size} entries differ, the first at {at}: found {found[at]}, "
            f"expected {expected[at]}"
        )


def check_conformance(backend: Backend, cases: Mapping[str, Callable[[], Case]] = CASES) -> dict[str, list[str]]:
    """Hold a backend to the reference on every case, in both input modes, with all rasters.

    Parameters
    ----------
    backend : Backend
    cases : mapping of name to function that makes a Case
        The directed cases by default; yours may be added: ``{**CASES, "mine": make}``.

    Returns
    -------
    dict of str to list of str
        Cases that ``backend.check`` refused, with its reasons. They were not run, so a backend that refuses everything passes:
        hold them against those you expect, ``assert set(refused) == {...}``.

    Raises
    ------
    AssertionError
        Naming the case, the input mode and the first difference.
    """
    refused = {}
    for name, make in cases.items():
        graph, inputs, steps = make()
        reasons = backend.check(graph)
        if reasons:
            refused[name] = reasons
            continue
        for mode in ("events", "current"):
            result = backend.run(graph, inputs, steps, record=graph.spiking, input=mode)
            try:
                assert result.backend == backend.name, f"backend: found {result.backend!r}, expected the backend's name"
                phases = sorted(result.wall_seconds)
                assert {"build", "run"} <= set(phases), f"wall_seconds: found {phases}, expected at least build and run"
                assert sorted(result.rasters) == sorted(graph.spiking), f"rasters: found {sorted(result.rasters)}"
                assert result.counting.keys() == result.events.keys(), f"counting: found keys {sorted(result.counting)}"
                assert_equal(result, reference(graph, inputs, steps, input=mode))
            except AssertionError as error:
                raise AssertionError(f"backend {backend.name!r}, case {name!r}, input {mode!r}: {error}") from error
    return refused
