"""The scripts of `examples/`, run as a user runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.full
def test_brian2_reference(tmp_path: Path) -> None:
    text = output("brian2_reference.py", tmp_path)
    populations = re.findall(r"^(\w) +(\d) +(\d+) +(\d+) +(\w+)$", text, re.MULTILINE)
    assert [(name, depth) for name, depth, *_ in populations] == [("a", "1"), ("b", "2"), ("c", "3")]
    assert all(brian2 == native != "0" and same == "yes" for *_, brian2, native, same in populations)
    projections = re.findall(r"^\w+ -> \w+ +\d +(\d+) +(\d+) +(\S+)$", text, re.MULTILINE)
    assert len(projections) == 10
    assert all(brian2 == native and left_over == "0" for brian2, native, left_over in projections)
    assert "as it is: None\n" in text
    assert "one spike taken away: native and brian2 first differ in raster of a (depth 1), image 0, local step 0" in text


@pytest.mark.full
def test_own_model_to_lava(tmp_path: Path) -> None:
    text = output("own_model_to_lava.py", tmp_path)
    rows = re.findall(r"^(native|lava|lava-fixed) +(int64|float64|int32) +(\d+) +([\d,]+) +([\d,]+)$", text, re.MULTILINE)
    assert [row[:2] for row in rows] == [("native", "int64"), ("lava", "float64"), ("lava-fixed", "int32")]
    assert len({row[2:] for row in rows}) == 1
    assert int(rows[0][2]) >= 16  # of 20 images
    assert "program for Lava alone: network.json, network.npz, run.py" in text


@pytest.mark.full
def test_nir_network(tmp_path: Path) -> None:
    text = output("nir_network.py", tmp_path)
    rows = re.findall(r"^\w+ -> \w+ +(\d+) +(\d+) +([\d.]+) +([\d.-]+) +(\S+)$", text, re.MULTILINE)
    assert len(rows) == 2
    for native, brian2, theory, covariance, left_over in rows:
        assert native == brian2
        assert left_over == "0"
        assert abs(int(native) - float(theory) - float(covariance)) <= 0.1 + 1e-6


def test_every_example_has_its_test() -> None:
    assert {f"test_{path.stem}" for path in EXAMPLES.glob("*.py")} <= set(globals())
