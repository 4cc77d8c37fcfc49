"""The settings that tell records apart: whatever was chosen on the way to a network is among them."""

from __future__ import annotations

from typing import Any

import pytest

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.finetune_config import FinetuneConfig
from sparsespike.energy.settings import check_settings, settings_of

TRAINED = TrainConfig(model="vgg-small", sparsity=0.5, activation="qcfs", evolution={"zeta": 0.2}).to_dict()
NOT_CHOSEN = {"data", "threads", "device", "source"}


def provenance(training: dict[str, Any], tuning: dict[str, Any] | None, **conversion: Any) -> dict[str, Any]:
    method = "aec" if "payload_bits" in conversion else "qcfs" if "levels" in conversion else "snm"
    return {
        "training": training,
        "finetuning": tuning,
        "method": method,
        "bits": 16,
        "T": 8,
        "conversion": {"settings": conversion},
    }


def other(value: Any) -> Any:
    if isinstance(value, bool):
        return not value
    if isinstance(value, dict):
        return {**value, "zeta": 0.3}
    if isinstance(value, list | tuple):
        return [*value, 7]
    return value + ("x" if isinstance(value, str) else 1)


@pytest.mark.parametrize("name", sorted(TRAINED.keys() - NOT_CHOSEN - {"hidden", "levels"}))
def test_each_setting_of_training_tells_networks_apart(name: str) -> None:
    one = settings_of(provenance(TRAINED, None, levels=8), "digits")
    another = settings_of(provenance({**TRAINED, name: other(TRAINED[name])}, None, levels=8), "digits")
    check_settings(one)
    assert one != another


@pytest.mark.parametrize("method", ["cs-qcfs", "aec"])
def test_each_setting_of_finetuning_tells_networks_apart(method: str) -> None:
    tuned = FinetuneConfig.of_run("", TrainConfig(), method).to_dict()
    found = settings_of(provenance(TRAINED, tuned, levels=8), "digits")
    check_settings(found)
    assert found["method"] == method
    # L and T are conversion's too, and the validation split is training's.
    without = {"method", "levels", "steps", "validation", "split_seed"}
    without |= {"quirks"} if method == "cs-qcfs" else {"penalty", "momentum"}
    for name in tuned.keys() - NOT_CHOSEN - without:
        changed = settings_of(provenance(TRAINED, {**tuned, name: other(tuned[name])}, levels=8), "digits")
        assert {key for key in found | changed if found.get(key) != changed.get(key)} == {f"finetune_{name}"}


@pytest.mark.parametrize(
    "conversion",
    [
        {"levels": 8},
        {"v_init": 0.5, "percentile": 99.9, "calibration_images": 512},
        {"T": 8, "payload_bits": 12, "thresholds": "calibrated", "percentile": 100.0},
    ],
)
def test_each_setting_of_conversion_tells_networks_apart(conversion: dict[str, Any]) -> None:
    found = settings_of(provenance(TRAINED, None, **conversion), "digits")
    check_settings(found)
    for name in conversion.keys() - {"T"}:
        changed = settings_of(provenance(TRAINED, None, **{**conversion, name: other(conversion[name])}), "digits")
        assert len({key for key in found if found[key] != changed[key]}) == 1


def test_places_do_not() -> None:
    elsewhere = {**TRAINED, "data": "imagefolder:/elsewhere", "threads": 9, "device": "cuda"}
    assert settings_of(provenance(TRAINED, None, levels=8), "x") == settings_of(provenance(elsewhere, None, levels=8), "x")


def test_a_dense_perceptron_has_no_settings_of_links_and_channels() -> None:
    dense = TrainConfig(sparsity=0.0, hidden=(8, 4)).to_dict()
    found = settings_of(provenance(dense, None, v_init=0.0), "digits")
    assert (found["training"], found["hidden"], found["method"]) == ("dense", "8-4", "snm")
    assert {key for key, value in found.items() if value is None} == {
        *("topology", "conv_mode", "sparse_stem", "evolution", "width", "lam", "L", "T")
    }
