"""Many networks: the table of their records, and whether rates saturate before accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from sparsespike.common.errors import ConfigError
from sparsespike.energy.lag import GROUPS, PAPER_MANN_WHITNEY, PAPER_WILCOXON, lag_study
from sparsespike.energy.paperplots import lag_panels
from sparsespike.energy.record import Record
from sparsespike.energy.report.blocks import Block, Cell, Column, Facts, Picture, Table, Text
from sparsespike.energy.report.folder import Contents
from sparsespike.energy.report.images import png_figure

MOST_ROWS = 500


def records_blocks(contents: Contents) -> list[Block]:
    """A row for each record; what all of them share is said once."""
    records = list(contents.records.values())
    names = list(dict.fromkeys(name for record in records for name in record.what))
    shared = [name for name in names if len(records) > 1 and len({repr(record.what.get(name)) for record in records}) == 1]
    blocks: list[Block] = []
    if shared:
        blocks.append(Facts(rows=tuple((name, records[0].what.get(name)) for name in shared)))
    own = [name for name in names if name not in shared]
    blocks.append(
        Table(
            caption=f"{len(records):,} networks" + (f", the first {MOST_ROWS} of them" if len(records) > MOST_ROWS else ""),
            columns=(
                Column("network"),
                *(Column(name) for name in own),
                Column("images"),
                Column("T", "steps"),
                Column("ANN", "%", 2),
                Column("SNN", "%", 2),
                Column("energy", "nJ an image"),
                Column("accuracy saturates", "step"),
                Column("rate saturates", "step"),
                Column("lag", "steps"),
            ),
            rows=tuple(_row(index, record, own) for index, record in enumerate(records[:MOST_ROWS], 1)),
            note="SNN: after all T steps. Energy: profile paper, the graph's events, first layer at every step. Saturation: at "
            "most 1 % better over 10 steps, the end of that window; none within T is left empty. An AEC network answers once.",
        )
    )
    return blocks


def lag_blocks(records: Sequence[Record]) -> list[Block]:
    """Saturation times, their statistics beside the paper's, and the figure."""
    try:
        study = lag_study(records)
    except ConfigError as error:
        return [Text(text=f"No lags: {error}.")]
    summary = study.summary()
    blocks: list[Block] = [
        Text(text=line[0].upper() + line[1:] + ".")
        for line in summary.describe().replace("\n  ", "; ").splitlines()[len(GROUPS) :]  # the groups are in the table
    ]
    blocks.append(
        Table(
            caption="Lag of accuracy behind the firing rate (accuracy saturation time − MASFR saturation time)",
            columns=(
                Column("group"),
                Column("networks with a lag"),
                Column("positive"),
                Column("zero"),
                Column("negative"),
                Column("without one within T"),
                Column("mean lag", "steps"),
                Column("mean positive lag", "steps"),
                Column("Wilcoxon, one-sided", "p"),
                Column("the paper's", "p"),
            ),
            rows=tuple(
                (
                    f"{dataset} {group}".lstrip(),
                    part.networks[group],
                    part.positive[group],
                    part.zero[group],
                    part.negative[group],
                    part.unsaturated[group],
                    part.mean_lag_steps[group],
                    part.mean_positive_lag_steps[group],
                    part.wilcoxon_p[group],
                    None if dataset else PAPER_WILCOXON[group],
                )
                for dataset, part in {"": summary, **summary.datasets}.items()
                for group in GROUPS
            ),
            note="Mann-Whitney U, two-sided, positive lags of sparse against dense networks: the paper has "
            f"p = {PAPER_MANN_WHITNEY:g}.",
        )
    )
    if study.points:
        alt = (
            f"Scatter of accuracy saturation time over rate saturation time of {len(study.points)} networks, and densities of "
            "their positive lags, dense and sparse."
        )
        blocks.append(Picture(uri=png_figure(lag_panels(study)), alt=alt, caption="Saturation times and lags"))
    return blocks


def failure_blocks(contents: Contents) -> list[Block]:
    """Units of a sweep that failed, and why."""
    return [
        Table(
            caption=f"{len(contents.failures):,} units failed",
            columns=(Column("unit"), Column("why")),
            rows=tuple(contents.failures.items()),
        )
    ]


def _row(index: int, record: Record, own: Sequence[str]) -> tuple[Cell, ...]:
    accuracy, rate, lag = None, None, None
    if record.slots is None:
        accuracy, rate, lag = record.accuracy_saturation(), record.masfr_saturation(), record.lag()
    return (
        str(index),
        *(record.what.get(name) for name in own),
        record.images,
        record.steps,
        float(100 * record.ann_accuracy),
        float(100 * record.accuracy()),
        float(record.energy().total_pj / record.images / 1000),
        None if accuracy is None else accuracy.end,
        None if rate is None else rate.end,
        lag,
    )
