"""Populations: each wrong field has its own message."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sparsespike.common.errors import GraphError
from sparsespike.export.population import AEC_TABLES, MAGNITUDE_LIMIT, Population

INPUT: dict[str, Any] = {"name": "p", "shape": (3,), "kind": "input", "value_range": (0, 255)}
IF: dict[str, Any] = {"name": "p", "shape": (3,), "kind": "if", "threshold": [2, 4, 6]}
SIGNED: dict[str, Any] = {**IF, "kind": "signed_if", "threshold_neg": [1, 2, 3]}
TABLES = {name: np.array([8, 4, 2]) for name in AEC_TABLES}
AEC: dict[str, Any] = {"name": "p", "shape": (3,), "kind": "aec", "bias_mode": "once", "tables": TABLES}
READOUT: dict[str, Any] = {"name": "p", "shape": (3,), "kind": "readout"}


@pytest.mark.parametrize("fields", [INPUT, IF, SIGNED, AEC, READOUT], ids=lambda fields: fields["kind"])
def test_every_kind_can_be_made(fields: dict[str, Any]) -> None:
    population = Population(**fields)
    assert population.size == 3
    assert population.v_init.tolist() == population.bias.tolist() == [0, 0, 0]
    assert population.scale.shape == ()
    assert population.scale == 1.0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({**IF, "name": ""}, "expected a name of 1 to 100 letters"),
        ({**IF, "name": "a/b"}, "population 'a/b': expected a name"),
        ({**IF, "name": ".."}, "population '..': expected a name"),
        ({**IF, "name": "-h"}, "population '-h': expected a name"),
        ({**IF, "name": "a" * 101}, "expected a name of 1 to 100"),
        ({**IF, "name": "a\n"}, "expected a name"),
        ({**IF, "name": 7}, "population 7: expected a name"),
        ({**IF, "kind": "alif"}, "population 'p': found kind 'alif', expected one of input, if, signed_if, lif, aec, readout"),
        ({**IF, "bias_mode": "never"}, "found bias_mode 'never', expected every_step or once"),
        ({**IF, "reset": "no"}, "found reset 'no', expected subtract or zero"),
        ({**IF, "shape": (3, 1)}, "found shape (3, 1), expected (N,) or (C, y, x) with sizes >= 1"),
        ({**IF, "shape": (0,)}, "found shape (0,)"),
        ({**IF, "shape": (2.5,)}, "found shape (2.5,)"),
        ({**IF, "shape": (2**16, 2**16, 2**16)}, "found 281474976710656 neurons, expected at most 2147483647"),
        ({**IF, "bias": [1, 2]}, "population 'p', bias: found shape (2,), expected (3,)"),
        ({**IF, "bias": [1.0, 2.0, 3.0]}, "population 'p', bias: found dtype float64, expected integers; round the values first"),
        ({**IF, "bias": [0, 0, MAGNITUDE_LIMIT + 1]}, "expected magnitudes up to 2^53"),
        ({**IF, "bias": np.array([0, 0, 2**63], np.uint64)}, "bias: values do not fit int64"),
        ({**IF, "v_init": [[1, 2, 3]]}, "population 'p', v_init: found shape (1, 3), expected (3,)"),
        ({**IF, "threshold": None}, "threshold is missing for kind 'if'"),
        ({**READOUT, "threshold": [2, 2, 2]}, "threshold is given for kind 'readout'"),
        ({**IF, "threshold_neg": [1, 1, 1]}, "threshold_neg is given for kind 'if'; expected it for signed_if only"),
        ({**SIGNED, "threshold_neg": None}, "threshold_neg is missing for kind 'signed_if'"),
        ({**IF, "threshold": [2, 0, 2]}, "threshold: found 0 at neuron 1, expected > 0; remove neurons that can never fire"),
        ({**IF, "threshold": [2, 2, -4]}, "threshold: found -4 at neuron 2, expected > 0"),
        ({**IF, "threshold": [2, 3, 2]}, "threshold: found the odd value 3 at neuron 1, expected even thresholds"),
        ({**SIGNED, "threshold_neg": [0, 1, 1]}, "threshold_neg: found 0 at neuron 0, expected > 0"),
        ({**IF, "scale": 0.0}, "scale: found shape (), expected finite values > 0"),
        ({**IF, "scale": np.inf}, "scale: found shape ()"),
        ({**IF, "scale": [1.0, np.nan, 1.0]}, "scale: found shape (3,)"),
        ({**IF, "scale": [1.0, 1.0]}, "scale: found shape (2,), expected finite values > 0 of shape (), (3,) or (3,)"),
        ({**INPUT, "value_range": None}, "found value_range None for kind 'input'"),
        ({**IF, "value_range": (0, 1)}, "found value_range (0, 1) for kind 'if'; expected it for input only"),
        ({**INPUT, "value_range": (1, 0)}, "found value_range (1, 0), expected (low, high) with low <= high, in 32 bits"),
        ({**INPUT, "value_range": (0, 2**31)}, "in 32 bits"),
        ({**INPUT, "bias": [1, 0, 0]}, "found a bias or initial membrane, expected none for kind 'input'"),
        ({**INPUT, "v_init": [1, 0, 0]}, "found a bias or initial membrane"),
        ({**IF, "tables": TABLES}, "found tables ["),
        ({**AEC, "bias_mode": "every_step"}, "found bias_mode 'every_step', reset 'subtract', expected 'once', 'subtract'"),
        ({**AEC, "reset": "zero"}, "found bias_mode 'once', reset 'zero', expected 'once', 'subtract' for kind 'aec'"),
        ({**AEC, "tables": {**TABLES, "primary_threshold": [8, 0, 1]}}, "primary: found threshold 0 and payload 4 in slot 1"),
        ({**AEC, "tables": {}}, "found tables [], expected ['compensation_payload'"),
        ({**AEC, "tables": {**TABLES, "primary_payload": [1]}}, "expected tables of one equal length >= 1 (slots)"),
        ({**AEC, "tables": {name: [] for name in AEC_TABLES}}, "found dtype float64"),
        ({**AEC, "tables": {name: np.zeros(0, int) for name in AEC_TABLES}}, "equal length >= 1"),
        ({**AEC, "tables": {**TABLES, "primary_payload": [1, 2, 2**60]}}, "table primary_payload: found values 0..1152"),
    ],
)  # fmt: skip
def test_a_wrong_field(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(GraphError) as caught:
        Population(**fields)
    assert message in str(caught.value)


def test_arrays_are_copied_and_frozen() -> None:
    threshold = np.array([2, 4, 6])
    population = Population(**{**IF, "threshold": threshold})
    threshold[0] = 100
    assert population.threshold is not None
    assert population.threshold.tolist() == [2, 4, 6]
    with pytest.raises(ValueError, match="read-only"):
        population.threshold[0] = 1


def test_channel_scales() -> None:
    population = Population(name="p", shape=(2, 3, 3), kind="readout", scale=np.array([0.5, 2.0]))
    assert population.scale.shape == (2,)
    assert population.size == 18
