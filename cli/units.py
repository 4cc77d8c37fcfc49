"""What the units of a sweep do: the same as the commands train, finetune, convert and simulate, each into a result folder.

No file of a result holds a time or a path of this machine: equal settings give equal bytes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache, partial
from hashlib import sha256
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import BaseModel
from safetensors import SafetensorError, safe_open

from sparsespike.common.errors import ConfigError, ModelError
from sparsespike.common.files import write_text
from sparsespike.sweeps.execute import Names, Work
from sparsespike.sweeps.expand import Completion
from sparsespike.sweeps.experiment import nearest, table_model
from sparsespike.sweeps.folder import Desk
from sparsespike.sweeps.units import Unit

MODEL = "model.safetensors"
GRAPH = "graph.safetensors"
COUNTS = "counts.safetensors"
ANSWERS = "answers.json"
RECORD = "record.json"


def tables() -> tuple[type[BaseModel], type[BaseModel]]:
    """The settings that the tables ``train`` and ``finetune`` of an experiment may have."""
    from sparsespike.ann.config import TrainConfig
    from sparsespike.ann.finetune_config import FinetuneConfig

    train, finetune = get_type_hints(TrainConfig), get_type_hints(FinetuneConfig)
    del train["data"]
    for name in ("data", "source", "validation", "split_seed"):
        del finetune[name]
    return table_model("train", train), table_model("finetune", finetune)


def completion(data: Mapping[str, str] | None = None) -> Completion:
    """How the settings of training and fine-tuning are made whole, and what names of data sets may stand for."""
    from sparsespike.ann.config import TrainConfig
    from sparsespike.ann.finetune_config import FinetuneConfig

    def finetune(training: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
        if "method" not in given:
            raise ConfigError("finetune.method: found nothing, expected cs-qcfs or aec")
        return FinetuneConfig.of_run("", TrainConfig.from_dict(dict(training)), **given).to_dict()

    return Completion(
        data=partial(_require_data, data or {}),
        train=lambda data, given: TrainConfig(data=data, **given).to_dict(),
        finetune=finetune,
        run=_training_of,
    )


def _require_data(known: Mapping[str, str], name: str) -> None:
    from sparsespike.ann.data import NAMES, SUBSET

    meant = known.get(name, name)
    if SUBSET.fullmatch(meant) or not (meant in NAMES or meant.startswith("imagefolder:")):
        found = f"--data {name}={meant}" if name in known else repr(name)
        raise ConfigError(
            f"data: found {found}{nearest(meant, NAMES)}, expected {', '.join(NAMES)} or a name of your own, given its meaning "
            f"by --data {name}=imagefolder:PATH"
        )


def _training_of(model: Path) -> dict[str, Any]:
    """What a model file says of its training, without its weights; the activation is the one that it has now."""
    from sparsespike.ann.checkpoint import MODEL_KEY

    try:
        with safe_open(model, framework="numpy") as file:
            known = json.loads((file.metadata() or {})[MODEL_KEY])
            return {**known["training"], "activation": known["model"]["activation"]}
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise ModelError(f"model {model} does not say how it was trained ({error!r}); expected a run folder of train") from error


def train(unit: Unit, needs: Sequence[Path], desk: Desk, names: Names) -> None:
    """Train a network; a run that was killed goes on with its last complete epoch."""
    from sparsespike.ann.config import TrainConfig
    from sparsespike.ann.train import train as run_training

    data = unit.settings["data"]
    config = TrainConfig.from_dict({**unit.settings, "data": place(data, names)})
    result = run_training(config, desk.scratch, resume=True, download=names.download)
    _keep(desk, result.history, training={**config.to_dict(), "data": data})


def run(unit: Unit, needs: Sequence[Path], desk: Desk, names: Names) -> None:
    """Take over a run that was trained before."""
    name = unit.settings["run"]
    content = (Path(names.runs.get(name, name)) / MODEL).read_bytes()
    if sha256(content).hexdigest() != unit.settings["sha256"]:
        raise ModelError(f"run {name!r}: its model changed since the sweep began, expected the same; begin another sweep")
    (desk.result / MODEL).write_bytes(content)


def finetune(unit: Unit, needs: Sequence[Path], desk: Desk, names: Names) -> None:
    """Fine-tune a network; a run that was killed goes on with its last complete epoch."""
    from sparsespike.ann.finetune import finetune as run_finetuning
    from sparsespike.ann.finetune_config import FinetuneConfig

    (source,) = needs
    data = unit.settings["data"]
    config = FinetuneConfig(**{**unit.settings, "data": place(data, names), "source": str(source / MODEL)})
    result = run_finetuning(config, desk.scratch, resume=True, download=names.download)
    _keep(desk, result.history, finetuning={**config.to_dict(), "data": data, "source": source.name})


def _keep(desk: Desk, history: Sequence[Any], **origin: Mapping[str, Any]) -> None:
    """The model, with names in the place of paths, and its history without times."""
    from sparsespike.ann.checkpoint import MODEL_KEY, load_tensors, save_tensors

    tensors, known = load_tensors(desk.scratch / MODEL, MODEL_KEY)
    save_tensors(desk.result / MODEL, tensors, MODEL_KEY, {**known, **origin})
    rows = [{key: value for key, value in asdict(epoch).items() if not key.endswith("seconds")} for epoch in history]
    write_text(desk.result / "history.json", json.dumps(rows, indent=1) + "\n")


def evaluate(unit: Unit, needs: Sequence[Path], desk: Desk, names: Names) -> None:
    """Count the test images that the ANN classifies correctly."""
    from sparsespike.ann.checkpoint import load_model
    from sparsespike.ann.encoding import Encoding
    from sparsespike.ann.evaluate import scores
    from sparsespike.ann.loop import compute_threads

    model, known = load_model(needs[0] / MODEL)
    test = load_splits(place(unit.settings["data"], names), names.download).test
    with compute_threads(1):
        correct = int((scores(model, test.images, Encoding.from_dict(known["encoding"])).argmax(1) == test.labels).sum())
    write_text(desk.result / ANSWERS, json.dumps({"correct": correct, "images": len(test)}) + "\n")


def convert(unit: Unit, needs: Sequence[Path], desk: Desk, names: Names) -> None:
    """Convert a network to a graph."""
    from sparsespike.ann.checkpoint import load_model
    from sparsespike.cli.convert import PERCENTILES, calibration_images, convert_model
    from sparsespike.export.graphfile import save_graph

    settings = dict(unit.settings)
    data, method, bits = settings.pop("data"), settings.pop("method"), settings.pop("bits")
    images, percentile = settings.pop("calibration", None), settings.pop("percentile", None)
    network, known = load_model(needs[0] / MODEL)
    calibration = None
    if images is not None:
        calibration = calibration_images(known, place(data, names), images, percentile or PERCENTILES[method])
    save_graph(convert_model(network, known, method, bits, calibration, **settings).graph, desk.result / GRAPH)


def simulate(unit: Unit, needs: Sequence[Path], desk: Desk, names: Names) -> None:
    """Run a graph on its share of the test images; a shard more than there are images has nothing to count, and no file."""
    from sparsespike.backends.bulk import run_blocks
    from sparsespike.backends.native import NativeBackend
    from sparsespike.export.graphfile import load_graph
    from sparsespike.sweeps.bulkfile import part_of, save_bulk

    settings = unit.settings
    graph = load_graph(needs[0] / GRAPH)
    images = load_splits(place(settings["data"], names), names.download).test.images
    part = images[part_of(len(images), settings["shard"], settings["shards"])]
    if len(part):
        backend = NativeBackend(threads=1, counting="computed")
        save_bulk(desk.result / COUNTS, run_blocks(backend, graph, part.reshape(len(part), -1), graph.slots or settings["steps"]))


def account(unit: Unit, needs: Sequence[Path], desk: Desk, names: Names) -> None:
    """Join what the shards counted into a record."""
    from sparsespike.backends.bulk import join
    from sparsespike.energy.record import Record
    from sparsespike.energy.settings import settings_of
    from sparsespike.export.graphfile import load_graph
    from sparsespike.sweeps.bulkfile import load_bulk

    graph_folder, answers_folder, *shards = needs
    graph = load_graph(graph_folder / GRAPH)
    answers = json.loads((answers_folder / ANSWERS).read_text(encoding="utf-8"))
    result = join([load_bulk(file) for shard in shards if (file := shard / COUNTS).exists()])
    labels = load_splits(place(unit.settings["data"], names), names.download).test.labels
    what = settings_of(graph.provenance, unit.settings["data"])
    Record.of(graph, result, labels, answers["correct"], what).save(desk.result / RECORD)


@lru_cache(maxsize=1)
def load_splits(name: str, download: bool) -> Any:
    """A data set for its test split, kept for the worker's next unit."""
    from sparsespike.ann.data import load

    return load(name, download=download)


def place(data: str, names: Names) -> str:
    """Where a data set is on this machine; a subset's numbers stay."""
    name, at, numbers = data.partition("@")
    return names.data.get(name, name) + at + numbers


WORK: dict[str, Work] = {
    "train": train,
    "run": run,
    "finetune": finetune,
    "evaluate": evaluate,
    "convert": convert,
    "simulate": simulate,
    "account": account,
}
