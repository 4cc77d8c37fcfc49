"""Experiment files: what they expand to, and what is said of wrong ones."""

from __future__ import annotations

from collections import Counter
from math import prod
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsespike.ann.checkpoint import MODEL_KEY, save_tensors
from sparsespike.ann.config import TrainConfig
from sparsespike.ann.finetune_config import FinetuneConfig
from sparsespike.cli.units import completion, tables
from sparsespike.common.errors import ConfigError
from sparsespike.sweeps.expand import Plan, expand
from sparsespike.sweeps.experiment import Experiment, parse_experiment, read_experiment

STUDY = """
name = "small"
[[study]]
name = "snm"
data = "digits"
train = { hidden = [16], epochs = 1 }
convert = { method = "snm" }
"""


def read(text: str) -> Experiment:
    return parse_experiment(text, "small.toml", *tables())


def plan_of(text: str) -> Plan:
    return expand(read(text), completion(), {})


def problems(text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        plan_of(text)
    first, *lines = str(caught.value).splitlines()
    assert f"found {len(lines)} problem" in first
    return [line.strip() for line in lines]


def test_a_study_without_a_grid_is_one_network() -> None:
    plan = plan_of(STUDY)
    assert [unit.kind for unit in plan.units] == ["train", "convert", "evaluate", "simulate", "account"]
    assert plan.units[0].settings == TrainConfig(data="digits", hidden=(16,), epochs=1).to_dict()


def test_a_default_that_is_given_changes_nothing() -> None:
    given_too = STUDY.replace("epochs = 1", "epochs = 1, momentum = 0.9, batch = 32")
    assert plan_of(given_too).results[0].unit == plan_of(STUDY).results[0].unit


def test_a_whole_number_stands_for_a_real_one() -> None:
    assert plan_of(STUDY.replace("epochs = 1", "epochs = 1, sparsity = 0")).units == (
        plan_of(STUDY.replace("epochs = 1", "epochs = 1, sparsity = 0.0")).units
    )


@settings(max_examples=20, deadline=None)
@given(
    lrs=st.lists(st.sampled_from([0.05, 0.01, 0.005, 0.001]), min_size=1, max_size=3, unique=True),
    seeds=st.lists(st.integers(0, 50), min_size=1, max_size=3, unique=True),
    v_inits=st.lists(st.sampled_from([0.0, 0.25, 0.5]), min_size=1, max_size=3, unique=True),
    shards=st.integers(1, 3),
)
def test_a_grid_is_every_combination_and_shares_what_is_common(
    lrs: list[float], seeds: list[int], v_inits: list[float], shards: int
) -> None:
    grid = f"[study.grid]\ntrain.lr = {lrs}\ntrain.seed = {seeds}\nconvert.v_init = {v_inits}\n"
    plan = plan_of(STUDY + f"simulate = {{ shards = {shards} }}\n" + grid)
    networks = prod(map(len, (lrs, seeds, v_inits)))
    assert [tuple(each.axes.values()) for each in plan.results] == [(lr, s, v) for lr in lrs for s in seeds for v in v_inits]
    assert Counter(unit.kind for unit in plan.units) == {
        "train": len(lrs) * len(seeds),
        "evaluate": len(lrs) * len(seeds),
        "convert": networks,
        "simulate": networks * shards,
        "account": networks,
    }


def test_studies_share_a_training() -> None:
    second = STUDY.replace('name = "small"', "").replace('"snm"', '"percentile"')
    plan = plan_of(STUDY + second)
    assert Counter(unit.kind for unit in plan.units)["train"] == 1
    assert len(plan.results) == 2


def test_fine_tuning_takes_over_what_training_had() -> None:
    text = STUDY.replace("epochs = 1", "epochs = 1, batch = 64, seed = 3").replace('"snm" }', '"qcfs" }')
    plan = plan_of(text + 'finetune = { method = "cs-qcfs", stages = [1, 0], levels = 4 }\n')
    train, finetune = plan.units[:2]
    expected = FinetuneConfig.of_run("", TrainConfig.from_dict(dict(train.settings)), "cs-qcfs", stages=(1, 0), levels=4)
    assert finetune.settings == expected.to_dict()
    assert (finetune.settings["batch"], finetune.settings["split_seed"]) == (64, 3)
    assert finetune.needs == (train,)


def test_a_subset_is_part_of_the_data_and_a_place_is_not() -> None:
    plan = plan_of(STUDY.replace('"digits"', '"cifar10"\ntrain_images = 400'))
    assert plan.units[0].settings["data"] == "cifar10@400,"


def test_a_trained_run_is_addressed_by_its_content(tmp_path: Path) -> None:
    from sparsespike.ann.train import train

    for name, seed in (("a", 0), ("same", 0), ("other", 1)):
        train(TrainConfig(data="digits@100,10", hidden=(8,), epochs=1, batch=64, seed=seed, sparsity=0.0), tmp_path / name)
    text = STUDY.replace("train = { hidden = [16], epochs = 1 }", 'run = "mine"')
    units = [expand(read(text), completion(), {"mine": str(tmp_path / name)}).units for name in ("a", "same", "other")]
    assert [unit.kind for unit in units[0]] == ["run", "convert", "evaluate", "simulate", "account"]
    assert units[0] == units[1] != units[2]
    with pytest.raises(ConfigError, match=r"run 'mine': found no model at .*--run mine=PATH"):
        expand(read(text), completion(), {"mine": str(tmp_path / "nowhere")})
    second = text.replace('name = "small"', "").replace('"snm"', '"percentile"').replace("mine", "yours")
    with pytest.raises(
        ConfigError, match=r"study 'percentile': run 'yours': found the model of run 'mine' in .*one name for each"
    ):
        expand(read(text + second), completion(), {"mine": str(tmp_path / "a"), "yours": str(tmp_path / "same")})
    assert (
        len(expand(read(text + second), completion(), {"mine": str(tmp_path / "a"), "yours": str(tmp_path / "other")}).results)
        == 2
    )


def test_everything_that_is_wrong_is_said_at_once() -> None:
    text = """
title = "x"
name = "small"
[slurm]
corse = 4
[[study]]
name = "a b"
[[study]]
name = "one"
data = "digits"
train = { hiden = [16], epochs = "many" }
convert = { method = "smn", bits = 40 }
[study.grid]
train.lr = [0.05, "high"]
train.sparsty = [0.0]
simulat.steps = [8]
"""
    found = problems(text)
    expected = [
        "title: unknown key; expected name, description, slurm, study",
        "slurm.corse: unknown key (did you mean 'cores'?)",
        "study 'a b'.name: found 'a b', expected a text like '^[A-Za-z0-9_.-]+$'",
        "study 'a b'.data: found nothing",
        "study 'one'.train.hiden: unknown key (did you mean 'hidden'?)",
        "study 'one'.train.epochs: found 'many', expected a valid integer",
        "study 'one'.convert.method: found 'smn', expected 'qcfs', 'snm', 'percentile' or 'aec'",
        "study 'one'.convert.bits: found 40, expected less than or equal to 24",
        "study 'one'.grid.train.lr: found 'high', expected a valid number",
        "study 'one'.grid.train.sparsty: unknown key (did you mean 'sparsity'?)",
        "study 'one'.grid.simulat: unknown table (did you mean 'simulate'?)",
    ]
    for start in expected:
        assert any(line.startswith(start) for line in found), (start, found)
    assert len(found) == len(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("epochs = 1", "epochs = 0"), "study 'snm': training setting epochs is 0; expected at least 1"),
        (('"snm" }', '"qcfs" }'), "study 'snm': convert.method: found 'qcfs' for a network with activation relu"),
        (('"snm" }', '"snm", steps = 8 }'), "study 'snm': convert.steps: found 8, expected none"),
        (('"snm" }', '"aec" }'), "study 'snm': convert.steps: found nothing, expected T"),
        (('"snm" }', '"snm" }\nrun = "a"'), "study 'snm'.train: found settings of training and run = 'a'"),
        (('"snm" }', '"snm" }\ngrid.finetune.lr = [0.1]'), "study 'snm'.grid.finetune: found an axis without a table finetune"),
        (('"snm" }', '"snm" }\nfinetune = { levels = 4 }'), "study 'snm': finetune.method: found nothing"),
        (("epochs = 1", "epochs = true"), "study 'snm'.train.epochs: found True, expected a valid integer"),
        (('"snm" }', '"snm" }\ngrid.train.lr = []'), "study 'snm'.grid.train.lr: found [], expected"),
        (
            ('"snm" }', '"snm" }\nfinetune = { method = "aec", epochs = [3] }'),
            "study 'snm'.finetune.epochs: unknown key (did you mean 'stages'?); expected method, stages",
        ),
        (
            ('"snm" }', '"snm" }\nsimulate = { images = 100 }'),
            "study 'snm'.simulate.images: unknown key (did you mean 'test_images' of the study?); expected steps, shards",
        ),
        (
            ('"snm" }', '"snm" }\ngrid.finetune.epochs = [[3]]\nfinetune.method = "aec"'),
            "study 'snm'.grid.finetune.epochs: unknown key (did",
        ),
        (('"snm" }', '"snm" }\nrun = "/nowhere"\ntrain_images = 0'), "study 'snm'.train_images: found 0, expected greater"),
    ],
)
def test_what_does_not_fit_is_said(change: tuple[str, str], message: str) -> None:
    (line,) = problems(STUDY.replace(*change))
    assert line.startswith(message)


def test_two_studies_of_one_name_are_refused() -> None:
    (line,) = problems(STUDY + STUDY.replace('name = "small"', ""))
    assert line == "study 'snm': found this name twice, expected one name a study"


@pytest.mark.parametrize(
    ("axis", "again"),
    [
        ("train.seed = [0, 1, 0]", "found 0 twice"),
        ("train.weight_decay = [0, 0.001, 0.0]", "found 0.0 twice"),
        ("train.hidden = [[16], [8, 8], [16]]", "found [16] twice"),
    ],
)
def test_a_value_given_twice_is_refused(axis: str, again: str) -> None:
    (line,) = problems(STUDY + f"[study.grid]\n{axis}\n")
    assert line == f"study 'snm'.grid.{axis.partition(' ')[0]}: {again}, expected each value once"


def test_a_network_that_two_studies_have_is_refused() -> None:
    second = STUDY.replace('name = "small"', "").replace('name = "snm"', 'name = "again"')
    (line,) = problems(STUDY + "grid.train.lr = [0.05, 0.01]\n" + second.replace("epochs = 1", "epochs = 1, lr = 0.05"))
    assert line == ("study 'again': found the network that study 'snm' has at train.lr = 0.05, expected each network once")


def test_an_axis_that_changes_nothing_is_refused() -> None:
    """AEC answers once: ``simulate.steps`` is no setting of its networks."""
    aec = STUDY.replace('"snm" }', '"aec", steps = 4 }')
    (line,) = problems(aec + "grid.simulate.steps = [8, 16]\n")
    assert line == (
        "study 'snm': found at simulate.steps = 16 the network that study 'snm' has at simulate.steps = 8, "
        "expected each network once"
    )


def test_a_file_that_is_no_toml() -> None:
    with pytest.raises(ConfigError, match=r"experiment small\.toml: found no valid TOML"):
        read("name = ")


EXPERIMENTS = Path(__file__).parents[2] / "experiments"
NETWORKS = {
    "lag": 128,
    "paper-cifar10-mlp": 16,
    "paper-cifar10-mlp-20-epochs": 16,
    "paper-cifar10-mlp-grid": 264,
    "paper-cifar100-mlp": 264,
    "paper-vgg-small-cifar10": 16,
    "paper-vgg16-cifar10": 264,
    "paper-vgg16-cifar100": 264,
}


def test_every_experiment_of_the_repository_is_planned() -> None:
    assert NETWORKS.keys() == {file.stem for file in EXPERIMENTS.glob("*.toml")}


@pytest.mark.parametrize(("name", "networks"), NETWORKS.items())
def test_the_experiments_of_the_repository(tmp_path: Path, name: str, networks: int) -> None:
    """As many networks as the text says, with stand-ins for runs that were trained before: what a model file says of them."""
    experiment = read_experiment(EXPERIMENTS / f"{name}.toml", *tables())
    assert experiment.name == name
    runs = {}
    for seed, run in enumerate(sorted({point.run for point in experiment.points if point.run})):
        training = TrainConfig(data="cifar10", seed=seed, sparsity=0.0 if run.startswith("dense") else 0.99)
        known = {"training": training.to_dict(), "model": {"activation": "cs-qcfs" if run.endswith("cs-qcfs") else "relu"}}
        (tmp_path / run).mkdir()
        save_tensors(tmp_path / run / "model.safetensors", {"weight": torch.zeros(1)}, MODEL_KEY, known)
        runs[run] = str(tmp_path / run)
    assert len(expand(experiment, completion(), runs).results) == networks
