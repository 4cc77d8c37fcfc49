"""The results of a sweep as a table: a row a network, units in the names of columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd

from sparsespike.energy.model import EnergyModel
from sparsespike.energy.record import Record


def table(records: Iterable[tuple[Mapping[str, Any], Record]], model: EnergyModel | None = None) -> pd.DataFrame:
    """A row for each record: what it starts with, the settings that some record has, what was measured.

    Accuracy saturates, and energy is charged, at the end of the window of the paper's rule (section 2.3); a network that does not
    saturate within its steps, and one of AEC, which answers once, is charged for all of them.

    Parameters
    ----------
    records : iterable of (mapping, Record)
        With what the row starts with, such as the study.
    model : EnergyModel, optional
        How counts are charged; the paper's profile by default.
    """
    rows = [(first, record.what, _measured(record, model)) for first, record in records]
    present = {name: None for _, what, _ in rows for name, value in what.items() if value is not None}
    return pd.DataFrame([{**first, **{name: what.get(name) for name in present}, **measured} for first, what, measured in rows])


def _measured(record: Record, model: EnergyModel | None) -> dict[str, Any]:
    answers_once = record.slots is not None
    accuracy = None if answers_once else record.accuracy_saturation()
    rate = None if answers_once else record.masfr_saturation()
    charged = record.steps if accuracy is None else accuracy.end
    return {
        "images": record.images,
        "steps": record.steps,
        "ann_accuracy_%": float(100 * record.ann_accuracy),
        "accuracy_%": float(100 * record.accuracy()),
        "accuracy_saturation_start_step": accuracy and accuracy.start,
        "accuracy_saturation_step": accuracy and accuracy.end,
        "accuracy_at_saturation_%": None if accuracy is None else float(100 * record.accuracy(accuracy.end)),
        "masfr_saturation_start_step": rate and rate.start,
        "masfr_saturation_step": rate and rate.end,
        "lag_steps": None if accuracy is None or rate is None else accuracy.end - rate.end,
        "energy_at_step": charged,
        "energy_uJ": record.energy(charged, model).per_image_uj,
    }


def as_csv(frame: pd.DataFrame) -> str:
    """The table as CSV: whole numbers whole, nothing where there is none."""
    return _whole(frame).to_csv(index=False, lineterminator="\n")


def as_markdown(frame: pd.DataFrame) -> str:
    """The table as Markdown."""
    rows = [[str(name) for name in frame.columns], *([_cell(v) for v in row] for row in _whole(frame).itertuples(index=False))]
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join([lines[0], "|" + " --- |" * len(frame.columns), *lines[1:]]) + "\n"


def _whole(frame: pd.DataFrame) -> pd.DataFrame:
    """Columns that hold whole numbers and gaps stay whole: pandas would make them floats."""
    return frame.assign(**frame.select_dtypes("number").convert_dtypes().select_dtypes("integer"))


def _cell(value: Any) -> str:
    if value is None or pd.isna(value):
        return "–"
    return f"{value:.5g}" if isinstance(value, float) else str(value)
