"""What a folder of results holds: every file that a command of sparsespike writes is found by what is in it, not by its name."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError, safe_open

from sparsespike.common.errors import ConfigError
from sparsespike.energy.record import MARK, Record
from sparsespike.energy.report.documents import Diagnosis, MadeBy, Results, TopologyReport, TrainingSummary
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.graphfile import METADATA_KEY, load_graph

MOST_FILES = 2000
"""JSON files read outside a sweep: a folder with more of them is hardly one run's."""
PICTURES = (
    "topology_degrees.png",
    "topology_ccdf.png",
    "stages.png",
    "layers.png",
    "activations.png",
)
COMMANDS = (
    "sparsespike train --out FOLDER, sparsespike convert FOLDER, "
    "sparsespike simulate FOLDER/graph.safetensors --out FOLDER/results.json, or sparsespike demo --out FOLDER"
)

Document = TypeVar("Document", bound=BaseModel)


@dataclass(kw_only=True)
class Network:
    """What belongs to one network: the files of one folder and of those below it that hold no network of their own.

    Attributes
    ----------
    name : str
        The folder, as seen from the one that the report is about.
    path : Path
    config, summary, metrics, made_by : optional
        Of its training.
    graphs, results, diagnoses : dict of Path to what was read
    topology : TopologyReport, optional
    pictures : dict of file name to Path
    """

    name: str
    path: Path
    config: dict[str, Any] | None = None
    summary: TrainingSummary | None = None
    metrics: pd.DataFrame | None = None
    made_by: MadeBy | None = None
    topology: TopologyReport | None = None
    graphs: dict[Path, SpikingGraph] = field(default_factory=dict)
    results: dict[Path, Results] = field(default_factory=dict)
    diagnoses: dict[Path, Diagnosis] = field(default_factory=dict)
    pictures: dict[str, Path] = field(default_factory=dict)

    @property
    def training(self) -> dict[str, Any]:
        """Settings of the training, from the run's folder or from what a graph or its results keep of them."""
        if self.config is not None:
            return self.config
        for known in (*(graph.provenance for graph in self.graphs.values()), *(r.provenance for r in self.results.values())):
            if isinstance(known.get("training"), dict):
                return dict(known["training"])
        return {}

    @property
    def empty(self) -> bool:
        """Whether nothing was found."""
        return not (self.config or self.summary or self.graphs or self.results or self.diagnoses or self.topology)


@dataclass(frozen=True, kw_only=True)
class Contents:
    """A folder that was read.

    Attributes
    ----------
    path : Path
    networks : tuple of Network
        None of a sweep, whose networks are records.
    records : dict of Path to Record
    sweep : bool
    failures : dict of unit to message
        Units of a sweep that failed.
    files : tuple of Path
        Everything that was read.
    """

    path: Path
    networks: tuple[Network, ...]
    records: dict[Path, Record]
    sweep: bool
    failures: dict[str, str]
    files: tuple[Path, ...]


def read_folder(path: Path) -> Contents:
    """Read everything in a folder that a report can show.

    Raises
    ------
    ConfigError
        If there is no such folder, nothing in it is known, or a file of ours is damaged; the message names the file.
    SparseSpikeError
        If a graph file is damaged.
    """
    if not path.exists():
        raise ConfigError(f"report: folder {path} does not exist; make one with {COMMANDS}")
    if not path.is_dir():
        raise ConfigError(f"report: {path} is a file, expected a folder of results; give the folder that it lies in")
    sweep = (path / "plan.json").is_file() and (path / "units").is_dir()
    reader = _Reader(path)
    if sweep:
        for file in sorted((path / "units").glob("*/*.json")):
            reader.take_record(file)
        failures = {file.stem: _failure(file) for file in sorted((path / "failures").glob("*.json"))}
    else:
        failures = {}
        for file in _files(path):
            reader.take(file)
    networks = tuple(network for network in reader.networks.values() if not network.empty)
    if not networks and not reader.records and not failures:
        what = "no finished unit with a record" if sweep else "no run, graph, results or record of sparsespike"
        todo = f"go on with the sweep (sparsespike sweep status {path})" if sweep else f"make one with {COMMANDS}"
        raise ConfigError(f"report: found {what} in folder {path}; {todo}")
    return Contents(
        path=path,
        networks=networks,
        records=reader.records,
        sweep=sweep,
        failures=failures,
        files=tuple(reader.files),
    )


class _Reader:
    """Sorts files by what is in them."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.networks: dict[Path, Network] = {}
        self.records: dict[Path, Record] = {}
        self.files: list[Path] = []

    def take(self, file: Path) -> None:
        """Read a file if it is one of ours."""
        if file.suffix == ".safetensors":
            if _is_graph(file):
                self._network(file).graphs[file] = load_graph(file)
                self.files.append(file)
        elif file.name == "metrics.csv":
            self._network(file).metrics = _metrics(file)
            self.files.append(file)
        elif file.name in PICTURES:
            self._network(file).pictures[file.name] = file
            self.files.append(file)
        elif file.suffix == ".json":
            self._take_json(file)

    def take_record(self, file: Path) -> None:
        """Read a file if it is a record."""
        text = _text(file)
        if f'"{MARK}"' in text:
            self.records[file] = Record.from_json(text, f"record {file}")
            self.files.append(file)

    def _take_json(self, file: Path) -> None:
        text = _text(file)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(
                f"report: {file} is no valid JSON ({error}); it was cut off or edited: make it again, or remove it"
            ) from None
        if not isinstance(found, dict):
            return
        keys, network = set(found), self._network(file)
        if MARK in keys:
            self.records[file] = Record.from_json(text, f"record {file}")
        elif file.name == "config.json" and (file.parent / "metrics.csv").exists():
            network.config = found
        elif file.name == "summary.json" and "config" in keys:
            network.summary = _parse(TrainingSummary, found, file)
        elif file.name == "made_by.json":
            network.made_by = _parse(MadeBy, found, file)
        elif {"sentence", "stages", "layers"} <= keys:
            network.diagnoses[file] = _parse(Diagnosis, found, file)
        elif {"active_neurons", "itop", "layers"} <= keys:
            network.topology = _parse(TopologyReport, found, file)
        elif "runs" in keys and "reconciled" in keys:
            network.results[file] = _parse(Results, found, file)
        else:
            return
        self.files.append(file)

    def _network(self, file: Path) -> Network:
        """The network that a file belongs to: that of its folder, or of the nearest folder above that was trained in."""
        folder = file.parent
        for above in (folder, *folder.parents):
            if not above.is_relative_to(self.root):
                break
            if any((above / name).exists() for name in ("config.json", "model.safetensors")):
                folder = above
                break
        name = self.root.resolve().name if folder == self.root else folder.relative_to(self.root).as_posix()
        return self.networks.setdefault(folder, Network(name=name, path=folder))


def _files(path: Path) -> Iterator[Path]:
    """Files that may be ours, in order of their paths; hidden folders are left out."""
    found = []
    for file in path.rglob("*"):
        hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
        if (
            not hidden
            and (file.suffix in (".json", ".safetensors") or file.name in ("metrics.csv", *PICTURES))
            and file.is_file()
        ):
            found.append(file)
        if len(found) > MOST_FILES:
            raise ConfigError(
                f"report: folder {path} holds more than {MOST_FILES:,} files of results; give the folder of one run or one sweep"
            )
    # The nearest files first: a folder above is known before what lies below it.
    return iter(sorted(found, key=lambda file: (len(file.parts), file.as_posix())))


def _is_graph(file: Path) -> bool:
    try:
        with safe_open(file, framework="numpy") as opened:
            return METADATA_KEY in (opened.metadata() or {})
    except (SafetensorError, OSError):
        return True  # whose reader says what is wrong with it


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"report: {file} cannot be read ({error}); expected JSON in UTF-8: make it again, or remove it"
        ) from None


def _parse(model: type[Document], found: dict[str, Any], file: Path) -> Document:
    try:
        return model.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        at = ".".join(map(str, first["loc"])) or "the document"
        wrong = first["msg"].removeprefix("Value error, ")
        raise ConfigError(
            f"report: {file}, {at}: {wrong}; found {str(first['input'])[:80]}; make the file again, or remove it"
        ) from None


def _metrics(file: Path) -> pd.DataFrame:
    try:
        frame = pd.read_csv(io.StringIO(_text(file)))
        if frame.empty or "epoch" not in frame:
            raise ValueError("no column 'epoch', or no rows")
        return frame.astype(float)
    except (ValueError, pd.errors.ParserError) as error:
        raise ConfigError(f"report: metrics {file} cannot be read ({error}); resume the run, or remove the file") from None


def _failure(file: Path) -> str:
    try:
        return str(json.loads(_text(file))["message"])
    except (ValueError, KeyError, TypeError):
        return "the failure's file cannot be read"
