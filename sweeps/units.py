"""Work units: what is to be computed, addressed by a digest of the settings and of the units that it is computed from."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

FORMAT = 1
"""Version of what units mean; it is part of every digest."""

DIGITS = 16
"""Hexadecimal digits of a digest that a name shows."""


@dataclass(frozen=True, eq=False)
class Unit:
    """One piece of work. Units are equal if their digests are.

    Parameters
    ----------
    kind : str
        What is done: ``train``, ``convert`` ...
    settings : mapping of str to JSON values
        All that decides the result, besides the results of ``needs``.
    needs : tuple of Unit
        Units whose results go in, in this order.
    """

    kind: str
    settings: Mapping[str, Any]
    needs: tuple[Unit, ...] = ()

    @cached_property
    def digest(self) -> str:
        """SHA-256 of kind, settings and the digests of ``needs``, as hexadecimal."""
        what = {"format": FORMAT, "kind": self.kind, "settings": self.settings, "needs": [unit.digest for unit in self.needs]}
        text = json.dumps(what, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def name(self) -> str:
        """Kind and digest: the name of the folder of its result."""
        return f"{self.kind}-{self.digest[:DIGITS]}"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unit) and self.digest == other.digest

    def __hash__(self) -> int:
        return hash(self.digest)

    def description(self) -> dict[str, Any]:
        """Plain values for JSON: what the digest covers."""
        return {
            "name": self.name,
            "kind": self.kind,
            "digest": self.digest,
            "settings": dict(self.settings),
            "needs": [unit.name for unit in self.needs],
        }


def in_order(results: Iterable[Unit]) -> tuple[Unit, ...]:
    """The units that lead to ``results``, each once and after all that it needs.

    One result is led to before the next one is begun, so that a sweep that was stopped has whole results.
    """
    ordered: dict[Unit, None] = {}
    for result in results:
        waiting = [result]
        while waiting:
            unit = waiting[-1]
            missing = [need for need in unit.needs if need not in ordered]
            if missing:
                waiting.extend(reversed(missing))
            else:
                ordered.setdefault(waiting.pop())
    return tuple(ordered)
