"""The interpreter in which one C++ program is made: ``python -m sparsespike.backends.brian2.worker FOLDER``.

Brian2 has one device a process and keeps global state about it.
"""

from __future__ import annotations

import os
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np

from sparsespike.backends.brian2.compilation import FLAGS, compile_program, compiler
from sparsespike.backends.brian2.network import Network
from sparsespike.backends.brian2.package import EXACT_NUMBERS, load_brian2
from sparsespike.backends.brian2.plan import Plan, drives
from sparsespike.backends.brian2.program import BINARY, STEPS_VARIABLE, Manifest
from sparsespike.backends.brian2.standalone import PROGRAM, REQUEST, Request

PREFERENCES = {**EXACT_NUMBERS, "codegen.cpp.extra_compile_args_gcc": list(FLAGS)}

# The last object of a step: the program is built for a whole batch, but a run may have fewer images.
STOP = f"""
network.add(&step_clock, []() {{
    static const long steps = atol(getenv("{STEPS_VARIABLE}"));
    if (step_clock.timestep[0] + 1 >= steps) Network::_globally_stopped = true;
}});
"""


# Room for a spike of every neuron in every step, which costs nothing until it is used; what grows is copied again and again.
RESERVE = f'{{array}}.reserve({{neurons}} * atol(getenv("{STEPS_VARIABLE}")));'


def make(request: Request, folder: Path) -> None:
    """Generate and compile a program, and put what a run needs into a folder of its own in ``folder``."""
    os.environ["CXX"] = compiler()  # Brian2 tries it for some flags
    b2 = load_brian2()
    project = folder / "project"
    b2.set_device("cpp_standalone", directory=str(project), build_on_run=False)
    for name, value in PREFERENCES.items():
        b2.prefs[name] = value
    graph, capacity = request.graph, request.capacity
    plan = Plan(graph, request.steps, request.input, compiled=True)
    blank = np.zeros((1, graph.input.size), np.int64)
    blanks = {name: np.repeat(values, capacity, axis=0) for name, values in drives(graph, blank, request.input).items()}
    network = Network(b2, plan, blanks, capacity, graph.order if request.rasters else ())
    b2.device.insert_code("before_network_run", STOP)
    for (name, _), events in network.fired.items():
        if events.neurons is not None:
            array = b2.device.get_array_name(events.neurons, access_data=False)
            b2.device.insert_code("before_network_run", RESERVE.format(array=array, neurons=graph.population(name).size))
    network.network.run(network.duration, namespace=network.namespace)
    for array in _synaptic_arrays(b2, network):
        b2.device.insert_code("before_end", f"brian::{array}.clear();")
    b2.device.build(directory=str(project), compile=False, run=False)
    compile_program(project)
    program = folder / PROGRAM
    program.mkdir()
    for name in (BINARY, "static_arrays"):
        (project / name).rename(program / name)
    _manifest(b2, plan, network, capacity).save(program)


def _synaptic_arrays(b2: Any, network: Network) -> list[str]:
    """Arrays that the program would write to the disk at its end, though nobody reads them."""
    return [
        b2.device.get_array_name(variable, access_data=False)
        for synapses in network.network.objects
        if isinstance(synapses, b2.Synapses)
        for variable in synapses.variables.values()
        if isinstance(variable, b2.core.variables.DynamicArrayVariable) and variable.owner.name == synapses.name
    ]


def _manifest(b2: Any, plan: Plan, network: Network, capacity: int) -> Manifest:
    def file(variable: Any) -> str:
        return "" if variable is None else str(b2.device.get_array_filename(variable))

    return Manifest(
        version=b2.__version__,
        capacity=capacity,
        injected=[list(item) for item in plan.injected.items()],
        fired=[
            [*key, *map(file, (events.so_far, events.before, events.count, events.neurons))]
            for key, events in network.fired.items()
        ],
        classes=plan.graph.readout.size,
        membrane=file(network.membrane.variables["v"]),
        totals=[[*it.projection.key, file(network.totals[it.total])] for it in plan.synaptic],
    )


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    make(pickle.loads((folder / REQUEST).read_bytes()), folder)
