"""From an experiment to its units: what is to be trained, converted, simulated and accounted, each once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsespike.common.errors import ConfigError, SparseSpikeError
from sparsespike.sweeps.experiment import Experiment, Point
from sparsespike.sweeps.units import Unit, in_order

Settings = Mapping[str, Any]
Source = tuple[Unit, dict[str, Any]]
"""A trained network, and the settings of its training."""


@dataclass(frozen=True)
class Result:
    """One network of an experiment.

    Attributes
    ----------
    study : str
    axes : mapping of str to value
        What tells it from the study's others.
    unit : Unit
        The account, whose result is a record.
    """

    study: str
    axes: Settings
    unit: Unit


@dataclass(frozen=True)
class Plan:
    """All units of an experiment, each after what it needs, and its results in the order of the file."""

    experiment: str
    units: tuple[Unit, ...]
    results: tuple[Result, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {
            "experiment": self.experiment,
            "units": [unit.description() for unit in self.units],
            "results": [{"study": each.study, "axes": dict(each.axes), "unit": each.unit.name} for each in self.results],
        }


@dataclass(frozen=True)
class Completion:
    """What makes the settings of training whole: with all defaults, so that a setting means the same given or not.

    Attributes
    ----------
    data : callable
        Raises ConfigError for a name that stands for no data set.
    train : callable
        All settings of a training run, from the data set's name and those given; raises ConfigError.
    finetune : callable
        All settings of fine-tuning, from those of the run that it starts from and those given; raises ConfigError.
    run : callable
        The settings that a trained run, given by its model file, was trained with, and the activation that it ended with.
    """

    data: Callable[[str], None]
    train: Callable[[str, Settings], dict[str, Any]]
    finetune: Callable[[Settings, Settings], dict[str, Any]]
    run: Callable[[Path], dict[str, Any]]


def expand(experiment: Experiment, completion: Completion, runs: Mapping[str, str]) -> Plan:
    """The units of an experiment. Networks that have a training, a conversion or an evaluation in common share the unit.

    Two that have everything in common are one network, and are refused: a table of results would count it twice.

    Parameters
    ----------
    experiment : Experiment
    completion : Completion
    runs : mapping of str to str
        Run folder of each name that a study gives as ``run``; a name without one is taken as the folder.

    Raises
    ------
    ConfigError
        With everything that does not fit together, a line for each.
    """
    problems: dict[str, None] = {}
    results = []
    sources: dict[str, Source] = {}
    known: dict[Unit, Point] = {}
    for point in experiment.points:
        with _noted(problems, f"study {point.study!r}"):
            completion.data(point.data.partition("@")[0])
            source = _trained(point, completion) if point.run is None else _imported(point.run, sources, runs, completion)
            unit = _account(point, *source, completion)
            if (first := known.setdefault(unit, point)) is not point:
                raise ConfigError(
                    f"found{_at(point)} the network that study {first.study!r} has{_at(first)}, expected each network once"
                )
            results.append(Result(point.study, point.axes, unit))
    if problems:
        lines = list(problems)
        raise ConfigError(
            f"experiment {experiment.name!r}: found {len(lines)} problem{'s' * (len(lines) > 1)}\n  " + "\n  ".join(lines)
        )
    return Plan(experiment.name, in_order(result.unit for result in results), tuple(results))


@contextmanager
def _noted(problems: dict[str, None], where: str) -> Iterator[None]:
    """Note an error and go on; equal ones once."""
    try:
        yield
    except SparseSpikeError as error:
        problems[f"{where}: {error}"] = None


def _at(point: Point) -> str:
    """Where in the grid of its study a network stands."""
    return f" at {', '.join(f'{axis} = {value!r}' for axis, value in point.axes.items())}" if point.axes else ""


def _trained(point: Point, completion: Completion) -> Source:
    settings = completion.train(point.data, point.train)
    return Unit("train", settings), settings


def _imported(run: str, known: dict[str, Source], runs: Mapping[str, str], completion: Completion) -> Source:
    """A run that was trained before, addressed by its content; it is read once, and kept in ``known``."""
    if run in known:
        return known[run]
    file = Path(runs.get(run, run)) / "model.safetensors"
    try:
        content = hashlib.sha256(file.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"run {run!r}: found no model at {file} ({error.strerror}); expected a run folder of train, named by --run {run}=PATH"
        ) from error
    for other, (unit, _) in known.items():
        if unit.settings["sha256"] == content:
            raise ConfigError(f"run {run!r}: found the model of run {other!r} in {file.parent}, expected one name for each")
    known[run] = Unit("run", {"run": run, "sha256": content}), completion.run(file)
    return known[run]


def _account(point: Point, source: Unit, training: dict[str, Any], completion: Completion) -> Unit:
    """The chain that ends in a record."""
    model, activation = source, training["activation"]
    if point.finetune is not None:
        settings = completion.finetune(training, point.finetune)
        model, activation = Unit("finetune", {**settings, "data": point.data}, (source,)), settings["method"]
    graph = Unit("convert", {"data": point.data, **_conversion(point, activation)}, (model,))
    answers = Unit("evaluate", {"data": point.data}, (model,))
    shards = point.simulate.shards
    steps = None if point.convert.method == "aec" else point.simulate.steps
    parts = [
        Unit("simulate", {"data": point.data, "steps": steps, "shard": shard, "shards": shards}, (graph,))
        for shard in range(shards)
    ]
    return Unit("account", {"data": point.data}, (graph, answers, *parts))


def _conversion(point: Point, activation: str) -> dict[str, Any]:
    """The settings of a conversion, if the network's activations are for it.

    Raises
    ------
    ConfigError
        If they are not, or a setting is another method's.
    """
    convert = point.convert
    takes = {"qcfs": ("qcfs", "cs-qcfs"), "aec": ("relu", "aec"), "snm": ("relu",), "percentile": ("relu",)}[convert.method]
    if activation not in takes:
        raise ConfigError(
            f"convert.method: found {convert.method!r} for a network with activation {activation}, expected "
            f"{' or '.join(takes)}: change train.activation or finetune.method"
        )
    trained = activation != "relu"
    owners = {
        "steps": convert.method == "aec" and not trained,
        "payload_bits": convert.method == "aec",
        "v_init": convert.method in ("snm", "percentile"),
        "spiking_readout": convert.method == "snm",
        "percentile": not trained,
        "calibration": not trained,
    }
    given = convert.model_dump(exclude_unset=True)
    for name, takes_it in owners.items():
        if name in given and not takes_it:
            raise ConfigError(
                f"convert.{name}: found {given[name]!r}, expected none: {convert.method} of a network with activation "
                f"{activation} does not take it"
            )
    if owners["steps"] and convert.steps is None:
        raise ConfigError("convert.steps: found nothing, expected T of the AEC conversion")
    settings = convert.model_dump(exclude_none=True)
    return {name: value for name, value in settings.items() if owners.get(name, True)}
