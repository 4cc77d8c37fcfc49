"""Training methods side by side: the runs of a comparison, and their accuracy as mean and standard error over seeds."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sparsespike.ann.config import TrainConfig
from sparsespike.common.errors import ConfigError, ModelError

METHODS = ("dense", "static", "set", "rigl", "gmp", "granet", "cht", "chts", "chtss")
"""The recipes of :mod:`sparsespike.ann.topology`, and ``dense``: the same network with all links."""

COLUMNS = ("method", "runs", "test accuracy_%", "sparsity_%", "active neurons_%", "parameters", "seconds")


@dataclass(frozen=True)
class Run:
    """The outcome of one training run, as its ``summary.json`` holds it.

    Attributes
    ----------
    method : str
        One of :data:`METHODS`.
    seed, best_epoch, epochs, parameters : int
    test_accuracy, validation_accuracy : float
        Of the best epoch; validation is none without a validation split.
    sparsity, anp : float
        Absent links over possible links before the classifier, and the share of active neurons.
    seconds : float
        Of training.
    """

    method: str
    seed: int
    test_accuracy: float
    validation_accuracy: float | None
    sparsity: float
    anp: float
    parameters: int
    best_epoch: int
    epochs: int
    seconds: float

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Read the summary of a finished run folder.

        Raises
        ------
        ModelError
            If there is none, or a value is missing in it.
        """
        file = folder / "summary.json"
        try:
            summary = json.loads(file.read_text(encoding="utf-8"))
            config = summary["config"]
            values = {name: summary[name] for name in cls.__dataclass_fields__ if name not in ("method", "seed")}
            return cls(config["method"] if config["sparsity"] > 0 else "dense", config["seed"], **values)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ModelError(f"summary {file} cannot be read ({error!r}); expected the summary of a finished run") from error


@dataclass(frozen=True)
class MethodSummary:
    """One method over its seeds.

    Attributes
    ----------
    method : str
    runs : int
    test_accuracy : float
        Mean.
    standard_error : float
        Of that mean: sample standard deviation over the square root of the runs; none for one run.
    sparsity, anp, parameters, seconds : float
        Means.
    """

    method: str
    runs: int
    test_accuracy: float
    standard_error: float | None
    sparsity: float
    anp: float
    parameters: float
    seconds: float

    @classmethod
    def of(cls, runs: Sequence[Run]) -> MethodSummary:
        """Summarise the runs of one method."""
        accuracies = [run.test_accuracy for run in runs]
        error = statistics.stdev(accuracies) / math.sqrt(len(runs)) if len(runs) > 1 else None
        means = {
            name: statistics.fmean(getattr(run, name) for run in runs) for name in ("sparsity", "anp", "parameters", "seconds")
        }
        return cls(runs[0].method, len(runs), statistics.fmean(accuracies), error, **means)

    def row(self) -> tuple[Any, ...]:
        """The cells of :data:`COLUMNS`."""
        error = "" if self.standard_error is None else f" ± {100 * self.standard_error:.2f}"
        return (
            self.method,
            self.runs,
            f"{100 * self.test_accuracy:.2f}{error}",
            f"{100 * self.sparsity:.2f}",
            f"{100 * self.anp:.1f}",
            f"{self.parameters:,.0f}",
            f"{self.seconds:,.1f}",
        )


def method_config(base: TrainConfig, method: str, seed: int) -> TrainConfig:
    """Return the settings of one run: those of ``base`` with the method and the seed.

    Raises
    ------
    ConfigError
        If the method is unknown.
    """
    if method not in METHODS:
        raise ConfigError(f"training method is {method!r}, expected one of {', '.join(METHODS)}")
    if method == "dense":
        return replace(base, method="static", sparsity=0.0, seed=seed)
    return replace(base, method=method, seed=seed)


def summarise(runs: Iterable[Run]) -> list[MethodSummary]:
    """Summarise runs by method, in the order of :data:`METHODS`."""
    by_method: dict[str, list[Run]] = {}
    for run in runs:
        by_method.setdefault(run.method, []).append(run)
    return [MethodSummary.of(by_method[method]) for method in METHODS if method in by_method]


def markdown_table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Return a Markdown table; all columns but the first are aligned right."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "".join("| " + " | ".join(str(value) for value in line) + " |\n" for line in lines)
