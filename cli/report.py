"""``sparsespike report``: a folder of results as one HTML page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sparsespike.cli.console import out
from sparsespike.energy.profiles import load_profiles
from sparsespike.energy.report.page import write_report


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a run, of a demo, of results, of records or of a sweep.")],
    page: Annotated[Path | None, typer.Option("--out", help="HTML file. Default: report.html in the folder.")] = None,
    profiles: Annotated[Path | None, typer.Option(help="TOML file of further energy profiles, beside the built-in ones.")] = None,
) -> None:
    """Write one HTML page about everything in a folder: training, accuracy over T, rasters, ledger, energy, links, diagnosis.

    The page needs no network, no script and no other file. What the folder does not hold is named with the command for it.

    Examples:

    sparsespike report runs/demo

    sparsespike report runs/sparse --out sparse.html
    """
    target = page or folder / "report.html"
    size = write_report(folder, target, None if profiles is None else load_profiles(profiles))
    out.print(f"Wrote {target} ({size / 1e6:.2f} MB); it opens in any browser", highlight=False, markup=False)
