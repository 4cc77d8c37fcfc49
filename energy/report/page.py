"""A folder of results as one HTML page that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sparsespike.common.extras import require
from sparsespike.common.files import write_text
from sparsespike.energy.profiles import Profile, builtin_profiles
from sparsespike.energy.report.blocks import Block, Chapter, Page, Section, Table, show
from sparsespike.energy.report.charts import draw, draw_raster
from sparsespike.energy.report.folder import Contents, Network, read_folder
from sparsespike.energy.report.sections.accounts import energy_blocks, ledger_blocks, profile_table
from sparsespike.energy.report.sections.diagnosed import diagnosis_blocks
from sparsespike.energy.report.sections.origin import files_blocks, origin_blocks
from sparsespike.energy.report.sections.overview import overview_blocks
from sparsespike.energy.report.sections.runs import accuracy_blocks, raster_blocks
from sparsespike.energy.report.sections.structure import mapping_blocks, topology_blocks
from sparsespike.energy.report.sections.study import failure_blocks, lag_blocks, records_blocks
from sparsespike.energy.report.sections.training import conversion_blocks, training_blocks


def write_report(folder: Path, target: Path, profiles: Mapping[str, Profile] | None = None) -> int:
    """Write the report about a folder, atomically; give its size in bytes.

    Parameters
    ----------
    folder : Path
        Of a training run, of several (such as ``runs/demo``), of results, of records, or of a sweep.
    target : Path
        The HTML file.
    profiles : mapping of name to Profile, optional
        Profiles to charge energy by, beside the built-in ones.

    Raises
    ------
    ConfigError
        If there is nothing to report on, a file is damaged, or the page cannot be written.
    MissingExtraError
        If jinja2 or matplotlib is not installed.
    """
    text = render(page_of(read_folder(folder), {**builtin_profiles(), **(profiles or {})}))
    write_text(target, text)
    return len(text.encode("utf-8"))


def page_of(contents: Contents, profiles: Mapping[str, Profile]) -> Page:
    """Everything that the page says."""
    name = contents.path.resolve().name
    networks, records = len(contents.networks), len(contents.records)
    counted = [f"{count:,} {what}{'s' * (count != 1)}" for count, what in ((networks, "network"), (records, "record")) if count]
    chapters = []
    if contents.networks:
        chapters.append(_chapter("overview", "Overview", {"summary": ("At a glance", overview_blocks(contents, profiles))}))
    for index, network in enumerate(contents.networks, 1):
        chapters.append(_chapter(f"n{index}", network.name, _network_sections(network, profiles)))
    study: dict[str, tuple[str, list[Block]]] = {}
    if contents.records:
        study["records"] = ("Networks", records_blocks(contents))
        study["lag"] = ("Saturation and lag", lag_blocks(list(contents.records.values())))
    if contents.failures:
        study["failures"] = ("Failures", failure_blocks(contents))
    if study:
        chapters.append(_chapter("study", "Sweep" if contents.sweep else "Records", study))
    if any(results.account is not None for network in contents.networks for results in network.results.values()):
        chapters.append(
            _chapter("profiles", "Energy profiles", {"constants": ("Constants and sources", [profile_table(profiles)])})
        )
    chapters.append(_chapter("files", "Files", {"read": ("What this page was made from", files_blocks(contents))}))
    lead = (
        f"{' and '.join(counted) or 'No finished network'} in {contents.path}; written by sparsespike {version('sparsespike')}."
    )
    return Page(title=f"Report: {name}", lead=lead, chapters=tuple(chapters))


def render(page: Page) -> str:
    """The page as HTML; every text in it is escaped."""
    jinja2 = require("jinja2", extra="report")
    environment: Any = jinja2.Environment(
        loader=jinja2.FunctionLoader(_template),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(
        draw=draw, draw_raster=draw_raster, show=show, is_number=_is_number, numeric_columns=_numeric_columns
    )
    return str(environment.get_template("page.html").render(page=page, style=_template("style.css")))


def _network_sections(network: Network, profiles: Mapping[str, Profile]) -> dict[str, tuple[str, list[Block]]]:
    return {
        "training": ("Training", training_blocks(network)),
        "conversion": ("Conversion", conversion_blocks(network)),
        "accuracy": ("Accuracy over time", accuracy_blocks(network)),
        "rasters": ("Rasters", raster_blocks(network)),
        "ledger": ("Event ledger", ledger_blocks(network)),
        "energy": ("Energy by profile", energy_blocks(network, profiles)),
        "topology": ("Topology", topology_blocks(network)),
        "diagnosis": ("Diagnosis", diagnosis_blocks(network)),
        "mapping": ("On a chip", mapping_blocks(network)),
        "origin": ("Provenance", origin_blocks(network)),
    }


def _chapter(id: str, title: str, sections: Mapping[str, tuple[str, list[Block]]]) -> Chapter:
    return Chapter(
        id=id,
        title=title,
        sections=tuple(Section(id=f"{id}-{key}", title=head, blocks=tuple(blocks)) for key, (head, blocks) in sections.items()),
    )


def _template(name: str) -> str:
    return (resources.files("sparsespike.energy.report") / "templates" / name).read_text(encoding="utf-8")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numeric_columns(table: Table) -> list[bool]:
    """Which columns of a table hold numbers and nothing else."""
    columns = [[row[index] for row in table.rows if row[index] is not None] for index in range(len(table.columns))]
    return [bool(cells) and all(_is_number(cell) for cell in cells) for cells in columns]
