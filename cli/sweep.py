"""``sparsespike sweep``: experiments over many networks, resumable, on this machine or a cluster."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from sparsespike.cli.console import err, out, print_json, print_table
from sparsespike.cli.options import Download, Json, counted_progress
from sparsespike.common.errors import ConfigError
from sparsespike.common.extras import require
from sparsespike.common.files import write_text
from sparsespike.sweeps.execute import Names, Progress, execute
from sparsespike.sweeps.executors import dask, local
from sparsespike.sweeps.experiment import Experiment, read_experiment
from sparsespike.sweeps.folder import SweepFolder
from sparsespike.sweeps.units import Unit

if TYPE_CHECKING:
    import pandas as pd

    from sparsespike.sweeps.expand import Plan

sweep = typer.Typer(no_args_is_help=True, help="Train, convert and simulate the networks of an experiment file.")

File = Annotated[Path, typer.Argument(help="Experiment file (TOML).")]
Folder = Annotated[Path, typer.Argument(help="Folder of the sweep.")]
DataNames = Annotated[
    list[str],
    typer.Option("--data", help="What a data set's name in the file stands for: cifar10=imagefolder:PATH; several times."),
]
RunNames = Annotated[
    list[str], typer.Option("--run", help="Folder of a trained run that the file names: chts=PATH; may be given several times.")
]


@sweep.command()
def run(
    file: File,
    folder: Annotated[Path, typer.Option("--out", help="Folder of the sweep; on a cluster, one that all machines share.")],
    jobs: Annotated[int, typer.Option(help="Processes of this machine that share the units.")] = 1,
    where: Annotated[
        str | None,
        typer.Option("--dask", help="Run on Dask instead: a scheduler's address, local:N, or slurm (table slurm in the file)."),
    ] = None,
    data: DataNames = [],  # noqa: B006  # typer copies the default
    runs: RunNames = [],  # noqa: B006
    retry_failed: Annotated[bool, typer.Option("--retry-failed", help="Try units again that failed in an earlier run.")] = False,
    download: Download = False,
    as_json: Json = False,
) -> None:
    """Run an experiment. Run again after whatever stopped it: finished units are kept, and a training goes on with its epoch.

    A unit that fails is recorded, and all that does not depend on it goes on. Exit code 1 if some failed.

    Examples:

    sparsespike sweep run experiments/lag.toml --out runs/lag --jobs 2 --data cifar10=imagefolder:cifar10

    sparsespike sweep run experiments/lag.toml --out runs/lag --dask tcp://head:8786
    """
    from sparsespike.cli.units import WORK

    bound = Names(_named("--data", data), _named("--run", runs), download)
    experiment, plan = _plan(file, bound)
    sweep_folder = SweepFolder(folder)
    _save_plan(sweep_folder, plan, bound)
    try:
        with (
            counted_progress() as bar,
            local(jobs) if where is None else dask(where, experiment.slurm.settings()) as executor,
        ):
            state = execute(
                plan.units,
                sweep_folder,
                WORK,
                executor,
                bound,
                retry_failed=retry_failed,
                progress=lambda state, unit: _show(state, unit, sweep_folder, bar),
            )
    except KeyboardInterrupt:
        err.print("stopped; the same command goes on", highlight=False, markup=False)
        raise typer.Exit(130) from None
    if as_json:
        print_json(_status_document(sweep_folder))
    else:
        _print_status(sweep_folder)
    if state.failed:
        raise typer.Exit(1)


@sweep.command()
def plan(file: File, data: DataNames = [], runs: RunNames = [], as_json: Json = False) -> None:  # noqa: B006
    """Check an experiment file and say what it comes to; nothing is run."""
    _, units = _plan(file, Names(_named("--data", data), _named("--run", runs)))
    if as_json:
        print_json(units.to_dict())
        return
    kinds = Counter(unit.kind for unit in units.units)
    print_table(f"{file}: {len(units.results)} networks", ("units", "number"), [*kinds.items(), ("all", len(units.units))])


@sweep.command()
def status(folder: Folder, as_json: Json = False) -> None:
    """How far a sweep is, and what failed."""
    if as_json:
        print_json(_status_document(SweepFolder(folder)))
    else:
        _print_status(SweepFolder(folder))


@sweep.command()
def table(
    folder: Folder,
    target: Annotated[Path | None, typer.Option("--out", help="Write it to this file: .csv or .md.")] = None,
    as_json: Json = False,
) -> None:
    """The networks that are finished: accuracy, saturation, lag and energy, a row each. Without --out, CSV on standard output."""
    from sparsespike.sweeps.table import as_csv, as_markdown

    if target is not None and target.suffix not in (".csv", ".md"):
        raise ConfigError(f"--out {target}: found the ending {target.suffix!r}, expected .csv or .md")
    frame = results(SweepFolder(folder))
    if frame.empty and not as_json:
        raise ConfigError(
            f"sweep in {folder}: found no finished network, expected at least one; see sparsespike sweep status {folder}"
        )
    if as_json:
        print_json(frame.to_dict(orient="records"))
    elif target is None:
        print(as_csv(frame), end="")
    else:
        write_text(target, as_markdown(frame) if target.suffix == ".md" else as_csv(frame))
        out.print(f"Wrote {target}: {len(frame)} networks", highlight=False, markup=False)


def results(folder: SweepFolder) -> pd.DataFrame:
    """The table of the finished networks of a sweep's last experiment, in the order of its file."""
    from sparsespike.cli.units import RECORD
    from sparsespike.energy.record import Record
    from sparsespike.sweeps.table import table

    finished = folder.names("units")
    rows = [
        ({"study": each["study"], "record": each["unit"]}, Record.load(folder.result(each["unit"]) / RECORD))
        for each in _known_plan(folder)["results"]
        if each["unit"] in finished
    ]
    return table(rows)


def _plan(file: Path, names: Names) -> tuple[Experiment, Plan]:
    require("torch", extra="train")
    from sparsespike.cli.units import completion, tables
    from sparsespike.sweeps.expand import expand

    experiment = read_experiment(file, *tables())
    return experiment, expand(experiment, completion(names.data), names.runs)


def _save_plan(folder: SweepFolder, plan: Plan, names: Names) -> None:
    """Keep the plan, unless the folder was made with another meaning of a name: digests cover names, not paths."""
    known = (folder.load_plan() or {}).get("names", {}).get("data", {})
    for name, value in names.data.items():
        if known.get(name, value) != value:
            raise ConfigError(
                f"--data {name}={value}: the sweep in {folder.root} was begun with {name}={known[name]}; choose another folder"
            )
    folder.save_plan({**plan.to_dict(), "names": {"data": {**known, **names.data}, "runs": dict(names.runs)}})


def _named(option: str, pairs: Sequence[str]) -> dict[str, str]:
    named = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise ConfigError(f"{option} {pair!r}: expected NAME=VALUE, such as cifar10=imagefolder:PATH or chts=runs/chts")
        named[name] = value
    return named


def _show(state: Progress, unit: Unit | None, folder: SweepFolder, bar: Any) -> None:
    failures = f", {state.failed} failed" if state.failed else ""
    bar("units", state.done + state.failed + state.waiting, state.total)
    if unit is None:
        line = f"sweep: {state.done} of {state.total} units are finished{failures}"
    elif failure := folder.failure(unit.name):
        line = f"sweep: {unit.name} failed: {failure.message}"
    elif err.is_interactive:
        return
    else:
        line = f"sweep: {state.done} of {state.total}{failures}: {unit.name} ({folder.seconds(unit.name) or 0:.1f} s)"
    err.print(line, highlight=False, markup=False)


def _known_plan(folder: SweepFolder) -> dict[str, Any]:
    known = folder.load_plan()
    if known is None:
        raise ConfigError(f"there is no sweep in {folder.root}; expected the folder given to sweep run --out")
    return known


def _status_document(folder: SweepFolder) -> dict[str, Any]:
    known = _known_plan(folder)
    finished, failed = folder.names("units"), folder.names("failures")
    units: list[dict[str, Any]] = known["units"]
    blocked: set[str] = set()
    for unit in units:  # each stands after what it needs
        if unit["name"] not in finished | failed and any(need in failed or need in blocked for need in unit["needs"]):
            blocked.add(unit["name"])
    kinds: dict[str, Counter[str]] = {}
    for unit in units:
        name = unit["name"]
        state = "done" if name in finished else "failed" if name in failed else "waiting" if name in blocked else "to_do"
        kinds.setdefault(unit["kind"], Counter())[state] += 1
    return {
        "experiment": known["experiment"],
        "folder": str(folder.root),
        "units": len(units),
        "kinds": {kind: {s: counts[s] for s in ("done", "failed", "waiting", "to_do")} for kind, counts in kinds.items()},
        "networks": {"all": len(known["results"]), "done": sum(each["unit"] in finished for each in known["results"])},
        "seconds": sum(folder.seconds(unit["name"]) or 0.0 for unit in units if unit["name"] in finished),
        "failures": [
            {"unit": unit["name"], "message": failure.message}
            for unit in units
            if unit["name"] not in finished and (failure := folder.failure(unit["name"]))
        ],
    }


def _print_status(folder: SweepFolder) -> None:
    found = _status_document(folder)
    rows = [(kind, *counts.values()) for kind, counts in found["kinds"].items()]
    totals = [sum(row[column] for row in rows) for column in range(1, 5)]
    print_table(
        f"{found['experiment']}: {found['networks']['done']} of {found['networks']['all']} networks",
        ("units", "done", "failed", "waiting for a failed one", "to do"),
        [*rows, ("all", *totals)],
        caption=f"{found['seconds'] / 60:.1f} minutes of computing so far, in {found['folder']}",
    )
    for failure in found["failures"]:
        out.print(f"[bold]{failure['unit']}[/]: {escape(failure['message'])}", highlight=False)
    if found["failures"]:
        out.print("Tracebacks are in failures/; sweep run --retry-failed tries these again.", highlight=False)
    if found["networks"]["done"] and not totals[3]:
        out.print(f"Next: sparsespike sweep table {found['folder']}", highlight=False, markup=False)
