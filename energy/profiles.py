"""Energy profiles: named, cited constants of one piece of hardware. An energy is never a count times a bare number."""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from decimal import Decimal
from fractions import Fraction
from importlib import resources
from pathlib import Path
from typing import Any

from sparsespike.common.errors import ConfigError
from sparsespike.energy.exact import exact

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

NAME = re.compile(r"[A-Za-z0-9_.-]{1,100}")
SMALLEST_PJ, LARGEST_PJ = 1e-9, 1e12


@dataclass(frozen=True, kw_only=True)
class Profile:
    """What one operation costs on one piece of hardware, and where that is published.

    Parameters
    ----------
    name : str
        Letters, digits, ``_``, ``.`` and ``-``.
    title : str
        One line for people.
    mac_pj, ac_pj : number
        One multiply-and-accumulate (events of the first projection) and one accumulate (events of the others), picojoules.
    update_pj, message_pj : number
        One membrane update of one neuron in one step, and one spike sent whatever its fan-out, picojoules.
    process : str
        Process node, supply voltage and number format.
    source : str
        Publication of the constants.
    leaves_out : sequence of str
        What the constants do not cover.

    Raises
    ------
    ConfigError
        If a constant is neither 0 nor a number from 1e-9 to 1e12, or a text is empty.
    """

    name: str
    title: str
    mac_pj: Fraction
    ac_pj: Fraction
    process: str
    source: str
    leaves_out: tuple[str, ...]
    update_pj: Fraction = Fraction(0)
    message_pj: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not NAME.fullmatch(self.name):
            raise ConfigError(
                f"energy profile: found the name {self.name!r}, expected 1 to 100 letters, digits, '_', '.' and '-'"
            )
        for key in ("mac_pj", "ac_pj", "update_pj", "message_pj"):
            object.__setattr__(self, key, self._constant(key))
        for key in ("title", "process", "source"):
            if not isinstance(getattr(self, key), str) or not getattr(self, key).strip():
                raise ConfigError(f"energy profile {self.name!r}, {key}: found {getattr(self, key)!r}, expected a text")
        texts = self.leaves_out
        if not isinstance(texts, list | tuple) or not all(isinstance(text, str) and text.strip() for text in texts):
            raise ConfigError(f"energy profile {self.name!r}, leaves_out: found {texts!r}, expected a list of texts")
        object.__setattr__(self, "leaves_out", tuple(texts))

    def _constant(self, key: str) -> Fraction:
        found: Any = getattr(self, key)
        where = f"energy profile {self.name!r}, {_key(key)}"
        if isinstance(found, bool) or not isinstance(found, int | float | Decimal | Fraction):
            raise ConfigError(f"{where}: found {found!r}, expected a number of picojoules")
        try:
            size = float(found)
        except OverflowError:
            size = math.inf
        # Bounds also keep an exponent such as 1e999999999 from becoming a rational of a thousand million digits.
        if found != 0 and not SMALLEST_PJ <= size <= LARGEST_PJ:
            raise ConfigError(f"{where}: found {found}, expected 0, or {SMALLEST_PJ:g} to {LARGEST_PJ:g} pJ")
        return exact(found)

    def __str__(self) -> str:
        """Name, constants, process and source on one line."""
        constants = [("MAC", self.mac_pj), ("AC", self.ac_pj), ("update", self.update_pj), ("message", self.message_pj)]
        shown = ", ".join(f"{label} {float(value):g} pJ" for label, value in constants if value or label in ("MAC", "AC"))
        return f"{self.name} ({shown}; {self.process}; {self.source})"


def builtin_profiles() -> dict[str, Profile]:
    """The profiles that come with the package, by name."""
    text = resources.files("sparsespike.energy").joinpath("profiles.toml").read_text(encoding="utf-8")
    return _parse(text, "the built-in profiles")


def load_profiles(path: str | os.PathLike[str]) -> dict[str, Profile]:
    """Profiles from a user's TOML file, by name; one table a profile, keys as the fields of `Profile`, with ``_pJ`` for ``_pj``.

    Raises
    ------
    ConfigError
        If the file cannot be read or is no TOML, holds no profile, or one has a wrong, missing or unknown key, or takes the
        name of a built-in profile.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"energy profiles {path}: cannot be read ({error}); expected a TOML file in UTF-8") from error
    profiles = _parse(text, str(path))
    if not profiles:
        raise ConfigError(f"energy profiles {path}: found no table, expected at least one, such as [my-chip]")
    taken = sorted(set(profiles) & set(builtin_profiles()))
    if taken:
        raise ConfigError(
            f"energy profiles {path}: found {', '.join(map(repr, taken))}, the name of a built-in profile; choose another name"
        )
    return profiles


def get_profile(name: str, file: str | os.PathLike[str] | None = None) -> Profile:
    """The profile called ``name``, built in or from the user's ``file``.

    Raises
    ------
    ConfigError
        If there is none, or the file is wrong (see `load_profiles`).
    """
    profiles = builtin_profiles() | (load_profiles(file) if file is not None else {})
    if name not in profiles:
        raise ConfigError(f"energy profile {name!r} is unknown{_nearest(name, profiles)}; expected one of {', '.join(profiles)}")
    return profiles[name]


def _parse(text: str, where: str) -> dict[str, Profile]:
    try:
        tables: Mapping[str, Any] = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"energy profiles {where}: found no valid TOML: {error}") from error
    return {name: _profile(name, table, where) for name, table in tables.items()}


def _profile(name: str, table: Any, where: str) -> Profile:
    here = f"energy profiles {where}, {name}"
    if not isinstance(table, dict):
        raise ConfigError(f"{here}: found {table!r}, expected a table of constants, such as [{name}]")
    known = {_key(field.name): field.default is MISSING for field in fields(Profile) if field.name != "name"}
    unknown = [key for key in table if key not in known]
    if unknown:
        raise ConfigError(
            f"{here}: found the unknown key {unknown[0]!r}{_nearest(unknown[0], known)}; expected {', '.join(known)}"
        )
    missing = [key for key, required in known.items() if required and key not in table]
    if missing:
        raise ConfigError(f"{here}: {', '.join(missing)} missing; a profile names its constants, process, source and limits")
    try:
        return Profile(
            name=name, **{field.name: table[_key(field.name)] for field in fields(Profile) if _key(field.name) in table}
        )
    except ConfigError as error:
        raise ConfigError(f"energy profiles {where}: {error}") from error


def _key(field: str) -> str:
    """A field's key in the file, where the unit has its own spelling."""
    return field.replace("_pj", "_pJ")


def _nearest(word: str, known: Mapping[str, Any]) -> str:
    near = difflib.get_close_matches(word, known, n=1)
    return f" (did you mean {near[0]!r}?)" if near else ""
