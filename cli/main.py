"""The commands, and how their errors end: one message on standard error, exit code 2."""

from __future__ import annotations

import sys

import typer
from rich.markup import escape

from sparsespike.cli.benchmark import benchmark
from sparsespike.cli.compare import compare
from sparsespike.cli.console import err
from sparsespike.cli.convert import convert
from sparsespike.cli.counters import counters
from sparsespike.cli.demo import demo
from sparsespike.cli.diagnose import diagnose
from sparsespike.cli.doctor import doctor
from sparsespike.cli.export import export
from sparsespike.cli.finetune import finetune
from sparsespike.cli.inspect import inspect
from sparsespike.cli.mapping import mapping
from sparsespike.cli.paper import paper
from sparsespike.cli.report import report
from sparsespike.cli.simulate import simulate
from sparsespike.cli.sweep import sweep
from sparsespike.cli.topology import topology
from sparsespike.cli.train import train
from sparsespike.common.errors import SparseSpikeError

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    help="Train sparse, convert to a spiking graph, run it on native, Brian2 and Lava, and reconcile every synaptic event.",
)
for command in (
    train,
    topology,
    finetune,
    convert,
    diagnose,
    simulate,
    compare,
    counters,
    inspect,
    mapping,
    export,
    report,
    doctor,
    demo,
):
    app.command()(command)
app.add_typer(benchmark, name="benchmark")
app.add_typer(paper, name="paper")
app.add_typer(sweep, name="sweep")


def main() -> None:
    """Run the command line."""
    try:
        app(prog_name="sparsespike")
    except SparseSpikeError as error:
        _end(str(error))
    except MemoryError as error:
        _end(f"out of memory ({error}); use fewer images at once (simulate --block) or fewer steps")


def _end(message: str) -> None:
    err.print(f"[bold red]error:[/] {escape(message)}", highlight=False, soft_wrap=True)
    sys.exit(2)
