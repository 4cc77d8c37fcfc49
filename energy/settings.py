"""The settings that name a record's network."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from math import isfinite

from sparsespike.common.errors import ConfigError
from sparsespike.energy.exact import exact

NAMED = ("dataset", "model", "method")
"""Texts in the settings of every record; with ``sparsity`` they are its row in the paper's tables."""

Setting = str | int | float | bool | None


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
