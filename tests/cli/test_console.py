"""Tables and JSON of the command line: no number is ever broken, and every document is JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from sparsespike.cli import console
from sparsespike.cli.console import cell, out, print_json, print_table

LEDGER = [
    (f"hidden{i} → hidden{i + 1}", 14_991_523 * i, -38.25 * i, "a few words about it that may be folded") for i in range(1, 4)
]
COLUMNS = ("layer", "synaptic events", "covariance_events", "remark")


@pytest.mark.parametrize("width", [40, 60, 80, 120, 200])
def test_numbers_and_names_stay_whole_at_every_width(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], width: int
) -> None:
    monkeypatch.setattr(console, "out", Console(width=width, soft_wrap=True))
    print_table("A title of some length, which is wrapped at words [where] it must be", COLUMNS, LEDGER, caption="a caption [x]")
    printed = capsys.readouterr().out
    words = " ".join(printed.split())
    for name, events, covariance, _ in LEDGER:
        assert f"{name} {events:,} {covariance:,.4g}" in words
    assert "[where]" in printed
    assert "[x]" in printed
    for word in ("synaptic", "covariance_events", *LEDGER[0][3].split()):
        assert word in words
    if width >= 80:
        assert max(map(len, printed.splitlines())) <= width


def test_cells_without_anything_make_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    print_table("empty", ("what", ""), [("a", ""), ("b", None)])
    assert "–" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "–"),
        (float("nan"), "–"),
        (True, "yes"),
        (np.bool_(False), "no"),
        (1234567, "1,234,567"),
        (np.int64(-5000), "-5,000"),
        (0.123456, "0.1235"),
        (98765.4, "98,765"),
        ("text", "text"),
    ],
)
def test_cells(value: Any, text: str) -> None:
    assert cell(value) == text


def test_json_has_only_what_json_has(capsys: pytest.CaptureFixture[str]) -> None:
    print_json(
        {"a": np.arange(3), "b": [np.float64("nan"), float("inf"), (np.int64(2), None)], "c": {"d": np.array([np.nan, 0.5])}}
    )

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    document = json.loads(capsys.readouterr().out, parse_constant=refuse)
    assert document == {"a": [0, 1, 2], "b": [None, None, [2, None]], "c": {"d": [None, 0.5]}}


def test_lines_to_be_copied_are_not_wrapped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(out, "width", 30)
    line = "Next: sparsespike simulate runs/a/long/path/graph.safetensors"
    out.print(line)
    assert capsys.readouterr().out == line + "\n"
