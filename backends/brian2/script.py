"""A graph as a Brian2 program of its own: ``run.py`` and data, for those who have Brian2 and not this package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.brian2 import plan as parts
from sparsespike.backends.brian2.equations import EXACT, RASTER
from sparsespike.backends.brian2.plan import Group, Plan, Synaptic, check_currents
from sparsespike.backends.brian2.timing import OWN_SLOTS
from sparsespike.common.files import atomic_path, write_text
from sparsespike.export.graph import SpikingGraph

PROGRAM, DATA = "run.py", "network.npz"


def write_script(graph: SpikingGraph, folder: Path) -> list[Path]:
    """Write a plain Brian2 program that simulates a graph and needs brian2 and numpy alone, with its data.

    ``python run.py inputs.npy --steps T --out results.npz`` gives the spikes, events and readout of backend ``brian2``, integer
    for integer.

    Parameters
    ----------
    graph : SpikingGraph
    folder : Path
        Made if it does not exist; files of the same names are replaced.

    Returns
    -------
    list of Path
        ``run.py`` and ``network.npz``.

    Raises
    ------
    MembraneOverflowError
        If a current or bias could leave the integers that float64 holds exactly.
    ConfigError
        If the folder cannot be written to.
    """
    check_currents(graph)
    plan = Plan(graph, graph.slots, "events", compiled=False)
    program, data = folder / PROGRAM, folder / DATA
    with atomic_path(data) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **_data(plan))
    write_text(program, "\n".join(_program(plan)) + "\n")
    return [program, data]


def _data(plan: Plan) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    for group in plan.groups:
        arrays |= {f"{group.name}/{constant}": values for constant, values in group.equations.constants.items()}
    for it in plan.synaptic:
        i, j, w = parts.synapses(it.projection)
        arrays |= {f"{it.name}/i": i, f"{it.name}/j": j, f"{it.name}/w": w}
    return arrays | dict(plan.tables)


def _program(plan: Plan) -> Iterator[str]:
    graph = plan.graph
    low, high = graph.input.value_range or (0, 0)
    default = f"default={graph.slots}, choices=[{graph.slots}]" if graph.slots is not None else "default=32"
    yield _HEAD.format(
        populations=len(graph.populations),
        synapses=f"{graph.nnz:,}",
        digest=graph.digest(),
        default=default,
        data=DATA,
        shapes=graph.input_shapes,
        expected=graph.expected_inputs,
        size=graph.input.size,
        low=low,
        high=high,
        windows=plan.timing.windows(0),
        classes=graph.readout.size,
    )
    yield "# What is injected and looked up: functions of time, a row an image or a value a slot."
    function = plan.injected[graph.input.name]
    yield f'{function} = b2.TimedArray(images, dt=steps*second, name="{function}")'
    for table in plan.tables:
        yield f'{table} = b2.TimedArray(data["{table}"], dt=second, name="{table}")'
    objects = "\n".join(_objects(plan))
    slots = [slot for slot in plan.timing.schedule if slot in OWN_SLOTS or f'"{slot}"' in objects]
    yield _SCHEDULE.format(schedule="".join(f'    "{slot}",\n' for slot in slots))
    yield objects
    yield from _results(plan)


def _objects(plan: Plan) -> Iterator[str]:
    for group in plan.groups:
        yield from _group(plan, group)
    for synaptic in plan.synaptic:
        yield from _synaptic(plan, synaptic)
    yield from _totals(plan)
    readout = plan.group(plan.graph.readout.name)
    yield f'membrane = b2.StateMonitor({readout.name}, "v", record=True, clock=step_clock, when="{plan.slot("look", readout)}")'
    yield "network.add(membrane)"


def _group(plan: Plan, group: Group) -> Iterator[str]:
    equations, population, name = group.equations, group.population, group.name
    yield ""
    yield f"# {population.name}: {population.kind}, {' x '.join(map(str, population.shape))}"
    yield f"{name} = b2.NeuronGroup("
    yield f"    {population.size},"
    yield f"    {_text(group.declarations)},"
    yield f"    events={_mapping({event: it.condition for event, it in equations.events.items()})},"
    yield "    clock=step_clock,"
    yield f'    name="{name}",'
    yield ")"
    for constant in equations.constants:
        yield f'{name}.{constant} = data["{name}/{constant}"]'
    yield f'{name}.run_regularly({_text(equations.begin)}, clock=image_clock, when="begin")'
    if equations.drive:
        yield f'{name}.run_regularly({_text(equations.drive)}, clock=step_clock, when="{plan.slot("drive", group)}")'
    for rank, (event, it) in enumerate(equations.events.items()):
        slot = plan.slot(f"test{rank}", group)
        yield f'{name}.set_event_schedule("{event}", when="{slot}", order=0)'
        if it.reset:
            code, when = _text(it.reset.split("\n")), plan.slot(f"apply{rank}", group)
            yield f'{name}.run_on_event("{event}", {code}, when="{when}", order=0)'
        yield f'watch({name}, "{event}", "{slot}")'
    yield f"network.add({name})"


def _synaptic(plan: Plan, it: Synaptic) -> Iterator[str]:
    paths = {f"on_{pathway.event}": pathway for pathway in it.pathways}
    delay = f"{it.windows}*steps*second" if it.windows else "0*second"
    yield ""
    yield f"# {it.projection.pre} -> {it.projection.post}: {it.projection.connection.nnz:,} synapses"
    yield f"{it.name} = b2.Synapses("
    yield f"    {it.pre},"
    yield f"    {it.post},"
    yield '    "w : 1 (constant)",'
    yield "    on_pre={" + ", ".join(f'"{path}": {_text(pathway.code)}' for path, pathway in paths.items()) + "},"
    yield f"    on_event={_mapping({path: pathway.event for path, pathway in paths.items()})},"
    yield "    delay={" + ", ".join(f'"{path}": {delay}' for path in paths) + "},"
    yield "    clock=step_clock,"
    yield f'    name="{it.name}",'
    yield ")"
    yield f'{it.name}.connect(i=data["{it.name}/i"], j=data["{it.name}/j"])'
    yield f'{it.name}.w = data["{it.name}/w"]'
    for path in paths:
        yield f'{it.name}.{path}.when = "{plan.timing.slot("send", it.projection.pre)}"'
    yield f"network.add({it.name})"


def _totals(plan: Plan) -> Iterator[str]:
    if not plan.synaptic:
        return
    names = [it.total for it in plan.synaptic]
    yield ""
    yield "# The events up to every step, by projection: what each neuron has counted, summed up."
    yield f'total = b2.NeuronGroup({parts.LANES}, {_text([f"{name} : 1" for name in names])}, clock=step_clock, name="total")'
    yield "network.add(total)"
    for it in plan.synaptic:
        yield f'add_up({it.post}, "{it.counter}", "{it.total}")'
    yield f'totals = b2.StateMonitor(total, {names!r}, record=True, clock=step_clock, when="end")'
    yield "network.add(totals)"


def _results(plan: Plan) -> Iterator[str]:
    graph, timing = plan.graph, plan.timing
    readout = graph.readout.name
    yield _TAIL.format(exact=EXACT, readout_window=timing.fires(readout))
    for name in (graph.input.name, *graph.spiking):
        group = plan.group(name)
        values = {event: RASTER[event] for event in group.equations.events if event in RASTER}
        found = f"spikes({group.name}, {_mapping(values)}, {timing.fires(name)})"
        yield f'results["spike_times/{name}"], results["spikes/{name}"] = {found}'
    simulated = {it.projection.key: it for it in plan.synaptic}
    for projection in graph.projections:
        it = simulated.get(projection.key)
        window = timing.hears(projection.post)
        totals = f"np.diff(totals.{it.total}[:].sum(axis=0), prepend=0)" if it else "np.zeros(windows*steps)"
        counts = f"by_image({totals}, {window})"
        yield f'results["events/{projection.pre}/{projection.post}"] = {counts}'
    yield "np.savez(arguments.out, **results)"
    yield 'print(f"{len(images)} images, {steps} steps: {arguments.out}")'


def _text(lines: Sequence[str]) -> str:
    """Lines of Brian2's language as a string in Python."""
    if len(lines) == 1:
        return f'"{lines[0]}"'
    return '"""\n' + "".join(f"    {line}\n" for line in lines) + '    """'


def _mapping(values: Mapping[str, object]) -> str:
    return "{" + ", ".join(f'"{key}": {_value(value)}' for key, value in values.items()) + "}"


def _value(value: object) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


_HEAD = '''"""A spiking network of {populations} populations and {synapses} synapses, in Brian2. Needs brian2 and numpy alone.

    python run.py inputs.npy --steps 32 --out results.npz

``inputs.npy`` holds integers of shape {expected}, {low}..{high}. Beside this file lies ``{data}`` (weights, thresholds ...).
``results.npz`` will hold

    readout                     (images, steps, classes)    membranes of the readout after each step
    predictions                 (images,)                   argmax of the last of them
    spikes/<population>         (images, neurons)           spikes of each neuron
    spike_times/<population>    (spikes, 4)                 image, step, neuron, and value of every spike
    events/<pre>/<post>         (images, steps)             synaptic events: weights added, by the step of the spike

All numbers are integers, held exactly in float64. A step takes one second of simulated time, and an image ``steps`` seconds;
images run one after the other.

Network {digest}
"""

import argparse
from pathlib import Path

import brian2 as b2
import numpy as np
from brian2 import second

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("inputs", type=Path, help="integers, shape {expected}, as .npy")
parser.add_argument("--steps", type=int, {default}, help="steps of every population")
parser.add_argument("--out", type=Path, default=Path("results.npz"))
parser.add_argument("--target", default="numpy", choices=["numpy", "cython"], help="Brian2's code generation")
arguments = parser.parse_args()
steps = arguments.steps
data = np.load(Path(__file__).with_name("{data}"))
images = np.load(arguments.inputs)
if steps < 1 or images.dtype.kind not in "iu" or images.shape[1:] not in {shapes} or len(images) == 0:
    parser.error(f"found {{steps}} steps and inputs {{images.dtype}} {{images.shape}}; expected integers, {expected}")
if images.min() < {low} or images.max() > {high}:
    parser.error(f"found inputs {{images.min()}}..{{images.max()}}, expected {low}..{high}")
images = images.reshape(len(images), {size})
windows = len(images) + {windows}  # an image takes that many windows more until it has left the network

b2.prefs.codegen.target = arguments.target
b2.prefs.core.default_float_dtype = np.float64
step_clock = b2.Clock(dt=second, name="step_clock")
image_clock = b2.Clock(dt=steps*second, name="image_clock")
network = b2.Network()
fired = {{}}


def watch(group, event, slot):
    """Record every event of a group."""
    monitor = b2.EventMonitor(
        group, event, ("i", "t_in_timesteps"), record=False, when=slot, order=1, name=f"{{event}}_{{group.name}}"
    )
    network.add(monitor)
    fired[group.name, event] = monitor


def add_up(group, counter, name):
    """Sum a counter over the neurons of a group, once a step; additions to several numbers do not wait for each other."""
    adder = b2.Synapses(group, total, f"{{name}}_post = {{counter}}_pre : 1 (summed)", clock=step_clock, name=f"sum_{{name}}")
    neurons = np.arange(len(group))
    adder.connect(i=neurons, j=neurons % len(total))
    adder.summed_updaters[f"{{name}}_post"].when = "end"
    network.add(adder)

'''

_SCHEDULE = """
# What happens in a step, in this order.
network.schedule = [
{schedule}]
"""

_TAIL = '''
network.run(windows*steps*second)


def by_image(values, window):
    """Values of every step, one row a step, as integers of shape (images, steps, ...); the first image is in that window."""
    part = values[window*steps : (window + len(images))*steps]
    return part.astype(np.int64).reshape(len(images), steps, *values.shape[1:])


def spikes(group, values, window):
    """Image, step, neuron and value of every spike, and how many there are of each neuron."""
    found = []
    for event, value in values.items():
        monitor = fired[group.name, event]
        image, step = np.divmod(np.asarray(monitor.t_in_timesteps[:], np.int64) - window*steps, steps)
        neuron = np.asarray(monitor.i[:], np.int64)
        found.append(np.stack([image, step, neuron, np.full_like(image, value)], axis=1))
    rows = np.concatenate(found)
    rows = rows[(rows[:, 0] >= 0) & (rows[:, 0] < len(images))]
    rows = rows[np.lexsort(rows.T[::-1])]
    counts = np.zeros((len(images), len(group)), np.int64)
    np.add.at(counts, (rows[:, 0], rows[:, 2]), 1)
    return rows, counts


for (group, event), monitor in fired.items():
    if event == "overflow" and monitor.num_events:
        raise SystemExit(f"a membrane of {{group}} has reached {exact}: beyond it float64 is not proven exact")
readout = by_image(membrane.v[:].T, {readout_window})
results = {{"readout": readout, "predictions": readout[:, -1].argmax(axis=1)}}'''
