"""Experiment files: TOML that says which networks are trained, converted and simulated, read with all errors at once.

::

    name = "lag"

    [[study]]
    name = "snm-digits"
    data = "digits"                      # train_images, test_images: only that many
    train = { hidden = [128, 128], epochs = 5 }
    convert = { method = "snm" }
    simulate = { steps = 128 }

    [study.grid]                         # every combination; the last axis changes fastest
    train.sparsity = [0.0, 0.9]
    train.lr = [0.05, 0.01]
"""

from __future__ import annotations

import difflib
import itertools
import json
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, create_model
from pydantic_core import PydanticCustomError

from sparsespike.common.errors import ConfigError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ELSEWHERE = {"finetune.epochs": "'stages'", "simulate.images": "'test_images' of the study"}
"""Options of commands that have another name or place in an experiment."""

Label = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]+$")]
Count = Annotated[int, Field(ge=1)]


class _Strict(BaseModel):
    """No conversion between types, no unknown keys."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)


class Convert(_Strict):
    """How a network is converted; what is left out is as for ``sparsespike convert``."""

    method: Literal["qcfs", "snm", "percentile", "aec"]
    bits: Annotated[int, Field(ge=2, le=24)] = 16
    percentile: Annotated[float, Field(gt=0, le=100)] | None = None
    calibration: Count = 512
    v_init: Annotated[float, Field(ge=0, lt=1)] | None = None
    spiking_readout: bool | None = None
    steps: Count | None = None
    payload_bits: Annotated[int, Field(ge=1, le=24)] | None = None


class Simulate(_Strict):
    """How a graph is run on the test images, on the native backend; ``shards`` units share the images."""

    steps: Count = 64
    shards: Count = 1


class Slurm(_Strict):
    """Jobs of SLURM, for ``--dask slurm``: settings of ``dask_jobqueue.SLURMCluster``, and how many jobs."""

    jobs: Count = 1
    cores: Count = 1
    memory: str = "4GB"
    walltime: str = "04:00:00"
    processes: Count | None = None
    queue: str | None = None
    account: str | None = None
    job_extra_directives: list[str] = []
    job_script_prologue: list[str] = []

    def settings(self) -> dict[str, Any]:
        """Those that are given."""
        return self.model_dump(exclude_none=True)


def _whole(data: str) -> str:
    """A data set by name; how many of its images are used is said apart from it."""
    if not data or "@" in data:
        raise PydanticCustomError("data", "the name of a data set, without '@': train_images and test_images say how many of it")
    return data


class _Study(_Strict):
    """A study as it stands in the file; its tables are checked with each value of the grid in its place."""

    name: Label
    data: Annotated[str, AfterValidator(_whole)]
    train_images: Count | None = None
    test_images: Count | None = None
    run: str | None = None
    train: dict[str, Any] = {}
    finetune: dict[str, Any] | None = None
    convert: dict[str, Any] = {}
    simulate: dict[str, Any] = {}
    grid: dict[str, dict[str, Annotated[list[Any], Field(min_length=1)]]] = {}


class _File(_Strict):
    """The whole file, but for its studies."""

    name: Label
    description: str = ""
    slurm: Slurm = Slurm()
    study: Annotated[list[dict[str, Any]], Field(min_length=1)]


@dataclass(frozen=True)
class Point:
    """One network of a study: the study's tables with one value of each axis of its grid.

    Attributes
    ----------
    study : str
    data : str
        Name of the data set, with the numbers of images if only some are used: ``cifar10@4000,1000``.
    run : str or None
        Name of a trained run that takes the place of training.
    train, finetune : mapping
        Settings that are given; ``finetune`` is None without fine-tuning.
    convert : Convert
    simulate : Simulate
    axes : mapping of str to value
        The values of the grid's axes, such as ``{"train.lr": 0.05}``.
    """

    study: str
    data: str
    run: str | None
    train: Mapping[str, Any]
    finetune: Mapping[str, Any] | None
    convert: Convert
    simulate: Simulate
    axes: Mapping[str, Any]


@dataclass(frozen=True)
class Experiment:
    """What an experiment file says."""

    name: str
    description: str
    slurm: Slurm
    points: tuple[Point, ...]


def table_model(name: str, types: Mapping[str, Any]) -> type[BaseModel]:
    """A table whose keys are all optional, of the given types."""
    fields: dict[str, Any] = {key: (kind, None) for key, kind in types.items()}
    model: type[BaseModel] = create_model(name, __base__=_Strict, **fields)
    return model


def read_experiment(path: str | Path, train: type[BaseModel], finetune: type[BaseModel]) -> Experiment:
    """Read an experiment file.

    Parameters
    ----------
    path : path
    train, finetune : model
        The settings that these tables may have, see :func:`table_model`.

    Raises
    ------
    ConfigError
        If it cannot be read or is no TOML; or with everything that is wrong in it: for each its place, what was found and what
        was expected.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"experiment {path}: cannot be read ({error}); expected a TOML file in UTF-8") from error
    return parse_experiment(text, str(path), train, finetune)


def parse_experiment(text: str, where: str, train: type[BaseModel], finetune: type[BaseModel]) -> Experiment:
    """The experiment that a TOML text describes; see :func:`read_experiment`."""
    try:
        fields = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"experiment {where}: found no valid TOML: {error}") from error
    problems: dict[str, None] = {}
    file = _checked(_File, fields, "", problems)
    studies = fields.get("study")
    points: list[Point] = []
    names: set[str] = set()
    for number, table in enumerate(studies if isinstance(studies, list) else [], 1):
        called = table.get("name") if isinstance(table, dict) else None
        here = f"study {called!r}" if isinstance(called, str) else f"study number {number}"
        study = _checked(_Study, table, here, problems)
        if study is None:
            continue
        if study.name in names:
            problems[f"{here}: found this name twice, expected one name a study"] = None
        names.add(study.name)
        points += _points(study, here, {"train": train, "finetune": finetune}, problems)
    if file is None or problems:
        lines = list(problems)
        raise ConfigError(f"experiment {where}: found {len(lines)} problem{'s' * (len(lines) > 1)}\n  " + "\n  ".join(lines))
    return Experiment(file.name, file.description, file.slurm, tuple(points))


def _points(study: _Study, here: str, tables: Mapping[str, type[BaseModel]], problems: dict[str, None]) -> Iterator[Point]:
    """The grid's combinations; the values of each axis are checked in the place where they will stand."""
    models: dict[str, type[BaseModel]] = {**tables, "convert": Convert, "simulate": Simulate}
    if study.run is not None and (study.train or "train" in study.grid):
        problems[f"{here}.train: found settings of training and run = {study.run!r}, expected one of them"] = None
        return
    for table in study.grid:
        if table not in models:
            problems[f"{here}.grid.{table}: unknown table{nearest(table, models)}; expected {', '.join(models)}"] = None
    if study.finetune is None and "finetune" in study.grid:
        problems[f"{here}.grid.finetune: found an axis without a table finetune, expected its method there"] = None
    axes = [(table, key, values) for table, keys in study.grid.items() if table in models for key, values in keys.items()]
    for table, key, values in axes:
        for again in (value for number, value in enumerate(values) if value in values[:number]):
            problems[f"{here}.grid.{table}.{key}: found {again!r} twice, expected each value once"] = None
    for chosen in itertools.product(*(values for _, _, values in axes)):
        merged: dict[str, dict[str, Any]] = {
            "train": dict(study.train),
            "finetune": dict(study.finetune or {}),
            "convert": dict(study.convert),
            "simulate": dict(study.simulate),
        }
        for (table, key, _), value in zip(axes, chosen, strict=True):
            merged[table][key] = value
        of_grid = {f"{table}.{key}" for table, key, _ in axes}
        found = {table: _checked(model, merged[table], f"{here}.{table}", problems, of_grid) for table, model in models.items()}
        if problems or None in found.values():
            continue
        convert, simulate = found["convert"], found["simulate"]
        assert isinstance(convert, Convert)
        assert isinstance(simulate, Simulate)
        given = {table: model.model_dump(exclude_unset=True) for table, model in found.items() if model is not None}
        yield Point(
            study=study.name,
            data=_subset(study),
            run=study.run,
            train=given["train"],
            finetune=None if study.finetune is None else given["finetune"],
            convert=convert,
            simulate=simulate,
            axes={f"{table}.{key}": value for (table, key, _), value in zip(axes, chosen, strict=True)},
        )


def _subset(study: _Study) -> str:
    if study.train_images is None and study.test_images is None:
        return study.data
    return f"{study.data}@{study.train_images or ''},{study.test_images or ''}"


def _checked(model: type[BaseModel], table: Any, here: str, problems: dict[str, None], of_grid: Collection[str] = ()) -> Any:
    """The table as a model; None, with its problems noted, if there are some."""
    try:
        # By way of JSON, where a list may stand for a tuple and 1 for 1.0, but no text for a number.
        return model.model_validate_json(json.dumps(table, default=str))
    except ValidationError as error:
        for each in error.errors(include_url=False):
            problems[_problem(each["type"], each["loc"], each["input"], each["msg"], model, here, of_grid)] = None
        return None


def _problem(
    kind: str, place: tuple[int | str, ...], found: Any, message: str, model: type[BaseModel], here: str, of_grid: Collection[str]
) -> str:
    """One line: where, what was found, what was expected."""
    study, _, table = here.rpartition(".")
    at = f"{study}.grid.{table}" if f"{table}.{place[0] if place else ''}" in of_grid else here
    path = ".".join(filter(None, (at, *map(str, place)))) or "file"
    if kind == "extra_forbidden":
        known = _fields(model, place[:-1])
        called = ELSEWHERE.get(f"{table}.{place[-1]}")
        hint = f" (did you mean {called}?)" if called else nearest(str(place[-1]), known)
        return f"{path}: unknown key{hint}; expected {', '.join(known)}"
    expected = message.removeprefix("Input should be ").replace("String should match pattern", "a text like")
    return f"{path}: found nothing, expected it" if kind == "missing" else f"{path}: found {found!r}, expected {expected}"


def _fields(model: type[BaseModel], place: tuple[int | str, ...]) -> list[str]:
    """Keys of the table at a place in the model."""
    for key in place:
        model = model.model_fields[str(key)].annotation  # type: ignore[assignment]  # only tables hold tables
    return list(model.model_fields)


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint at the known word that a misspelled one is most like; nothing if it is like none."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
