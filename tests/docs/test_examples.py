"""The scripts of `examples/`, run as a user runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[2] / "examples"
RECONCILED = "residual 0: every measured count equals analytic + covariance"


def output(name: str, folder: Path) -> str:
    ended = subprocess.run([sys.executable, EXAMPLES / name], capture_output=True, text=True, check=False, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert not list(folder.iterdir())
    return ended.stdout


def accuracies(text: str) -> tuple[float, float]:
    found = re.search(r"accuracy:? ([\d.]+)% before, ([\d.]+)% as spikes", text)
    assert found, text
    return float(found[1]), float(found[2])


def number(text: str) -> float:
    return float(text.replace(",", "").removesuffix("%"))


def test_convert_own_model(tmp_path: Path) -> None:
    text = output("convert_own_model.py", tmp_path)
    before, after = accuracies(text)
    assert before > 90
    assert abs(before - after) < 2
    assert RECONCILED in text
    rows = re.findall(r"^(?:\w+ +\w+|total) +([\d,]+) +([\d,]+) +([\d,.-]+) +([\d,.-]+)$", text, re.MULTILINE)
    assert len(rows) == 4  # three projections and their total
    for native, brian2, analytic, covariance in rows:
        assert number(native) == number(brian2) > 0
        assert abs(number(native) - number(analytic) - number(covariance)) <= 0.1 + 1e-6  # printed with one decimal each


def test_counts_against_theory(tmp_path: Path) -> None:
    text = output("counts_against_theory.py", tmp_path)
    before, after = accuracies(text)
    assert min(before, after) > 85
    assert RECONCILED in text
    rows = re.findall(r"^\w+ -> \w+ +([\d,.]+) +([\d,]+) +([\d.%-]+) +([\d,.-]+) +(\S+)$", text, re.MULTILINE)
    assert len(rows) == 3
    for theory, measured, error, covariance, left_over in rows:
        assert left_over == "0"
        assert abs(number(measured) - number(theory) - number(covariance)) <= 0.1 + 1e-6
        assert abs(number(theory) / number(measured) - 1 - number(error) / 100) <= 0.0005 + 1e-6
    assert number(rows[0][3]) != 0
