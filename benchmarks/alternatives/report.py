"""The tables of a run, as Markdown and as plain values."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from alternatives.brian2 import BY_HAND, LOWERING
from alternatives.native import NATIVE
from alternatives.timing import Alternative
from sparsespike.ann.comparison import markdown_table


def table(alternatives: Sequence[Alternative], events: float) -> tuple[str, list[dict[str, Any]]]:
    """Time per image of each, as a Markdown table and as plain values."""
    ours = next(each for each in alternatives if each.name == NATIVE)
    rows, records = [], []
    for each in alternatives:
        ratios = each.fastest / ours.fastest, each.median / ours.median
        rows.append(
            (
                each.name,
                f"{1e3 * each.fastest:.3f}",
                f"{1e3 * each.median:.3f}",
                f"{1e3 * min(each.wholes):.3f}" if each.wholes else "",
                f"{events / each.fastest:.2e}",
                *(f"{ratio:.2f}" for ratio in ratios),
                each.exact,
            )
        )
        seconds = [measured.run for measured in each.measured]
        records.append({"name": each.name, "seconds": seconds, "exact": each.exact, "times_native": ratios})
        if each.wholes:
            records[-1]["seconds_with_building"] = each.wholes
    heads = (
        "",
        "fastest_ms",
        "median_ms",
        "with_building_ms",
        "events_per_s",
        "times native's (fastest)",
        "(median)",
        "same spikes",
    )
    return markdown_table(heads, rows), records


def comparisons(alternatives: Sequence[Alternative]) -> list[tuple[str, str, str]]:
    """The aims: what, how many times faster (fastest, median)."""
    by_name = {each.name.split(", batch")[0]: each for each in alternatives}
    stock = [each for name, each in by_name.items() if name.startswith("Lava stock")]
    pairs = [
        ("native, 1 core, than Brian2 C++ standalone by hand (aim 10, then 16)", BY_HAND, NATIVE),
        ("native, 1 core, than torch sparse_csr", "torch sparse_csr @ dense", NATIVE),
        ("native, 1 core, than scipy", "scipy csr @ dense", NATIVE),
        ("our Brian2 lowering than the script by hand (aim 1)", BY_HAND, LOWERING),
    ]
    rows = []
    for title, slow, fast in pairs:
        if slow in by_name and fast in by_name:
            a, b = by_name[slow], by_name[fast]
            rows.append((title, f"{a.fastest / b.fastest:.2f}", f"{a.median / b.median:.2f}"))
    for name, ours in by_name.items():
        if stock and name.startswith("Lava, our"):
            a, b = min(stock, key=lambda each: each.fastest), min(stock, key=lambda each: each.median)
            title = f"{ours.name}, than the faster stock, image by image"
            rows.append((f"{title} (aim 20)", f"{a.fastest / ours.fastest:.1f}", f"{b.median / ours.median:.1f}"))
            fastest, median = (measure([w for each in stock for w in each.wholes]) for measure in (min, statistics.median))
            wholes = f"{fastest / min(ours.wholes):.1f}", f"{median / statistics.median(ours.wholes):.1f}"
            rows.append((f"{title}, building included", *wholes))
    return rows
