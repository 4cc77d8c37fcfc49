"""The settings that name a record's network, and tell it from others."""

from __future__ import annotations

import json
from collections.abc import Mapping
from fractions import Fraction
from math import isfinite
from typing import Any

from sparsespike.common.errors import ConfigError
from sparsespike.energy.exact import exact

NAMED = ("dataset", "model", "method")
"""Texts in the settings of every record; with ``sparsity`` they are its row in the paper's tables."""

Setting = str | int | float | bool | None

PLACES = ("data", "source", "threads", "device")
"""Settings of training and fine-tuning that say where they ran, and not what they made."""
ELSEWHERE = ("levels", "steps", "validation", "split_seed")
"""Settings of fine-tuning that a record has from training (the validation split) or from conversion (L and T)."""
OF_LINKS = ("sparse_stem", "conv_mode", "topology", "evolution")
"""Settings of training that mean nothing in a dense network."""
OF_CHANNELS = ("width", "sparse_stem", "conv_mode")
"""Those that mean nothing in a perceptron."""
OF_METHOD = {"cs-qcfs": ("penalty", "momentum"), "aec": ("quirks",)}
"""Settings of fine-tuning that one method alone has."""


def check_settings(what: Mapping[str, Setting]) -> None:
    """Check that the settings of a record name its network, in plain values; ConfigError if not."""
    for key in NAMED:
        if not isinstance(what.get(key), str):
            raise ConfigError(f"record, what.{key}: found {what.get(key)!r}, expected a text")
    sparsity_of(what)
    for key, value in what.items():
        if value is not None and not isinstance(value, str | int | float):
            raise ConfigError(f"record, what.{key}: found {value!r}, expected a text, number, true, false or null")
        if isinstance(value, float) and not isfinite(value):
            raise ConfigError(f"record, what.{key}: found {value!r}, expected a finite number")


def sparsity_of(what: Mapping[str, Setting]) -> Fraction:
    """The share of links left out; ConfigError if it is no number from 0 to below 1."""
    share = what.get("sparsity")
    if isinstance(share, bool) or not isinstance(share, int | float) or not 0 <= share < 1:
        raise ConfigError(f"record, what.sparsity: found {share!r}, expected 0 (fully connected) to below 1")
    return exact(share)


def settings_of(provenance: Mapping[str, Any], dataset: str) -> dict[str, Setting]:
    """The settings of a converted network, from its graph's provenance: all that was chosen on the way to it.

    Those that mean nothing for this network are None. Settings of fine-tuning are called ``finetune_...``, and of conversion
    ``convert_...``, but for L, T, ``bits`` and ``v_init``.

    Parameters
    ----------
    provenance : mapping
        Of a graph that was converted from a trained model.
    dataset : str
        Name of the data set, without its place.
    """
    training: dict[str, Any] = {key: value for key, value in provenance["training"].items() if key not in (*PLACES, "levels")}
    tuning: dict[str, Any] = dict(provenance.get("finetuning") or {})
    conversion: dict[str, Any] = dict(provenance["conversion"]["settings"])
    absent: tuple[str, ...] = OF_CHANNELS if training["model"] == "mlp" else ("hidden",)
    absent += OF_LINKS if not training["sparsity"] else ()
    absent += ("lam",) if training["activation"] == "relu" else ()
    others = [name for owner, names in OF_METHOD.items() for name in names if owner != tuning.get("method")]
    conversion.pop("T", None)
    return {
        "dataset": dataset,
        "model": training.pop("model"),
        "method": tuning.pop("method", provenance["method"]),
        "training": training.pop("method") if training["sparsity"] else "dense",
        **{name: None if name in absent else _plain(value) for name, value in training.items() if name != "method"},
        **{f"finetune_{name}": _plain(value) for name, value in tuning.items() if name not in (*PLACES, *ELSEWHERE, *others)},
        "L": conversion.pop("levels", None),
        "T": provenance.get("T") if provenance["method"] == "aec" else None,
        "bits": provenance["bits"],
        "v_init": conversion.pop("v_init", None),
        **{f"convert_{name}": _plain(value) for name, value in conversion.items()},
    }


def _plain(value: Any) -> Setting:
    """A setting as one plain value; None for an empty list or table."""
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True) if value else None
    if isinstance(value, list | tuple):
        return "-".join(map(str, value)) or None
    return value  # type: ignore[no-any-return]  # plain in JSON
