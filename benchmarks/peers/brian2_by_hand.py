"""The benchmark network as an expert writes it for Brian2's C++ standalone mode: builds the program and ends.

    python benchmarks/peers/brian2_by_hand.py NETWORK.npz FOLDER

NETWORK.npz: ``current`` (images, n_0), ``theta_l``, and ``pre_l``, ``post_l``, ``weight_l`` for l = 1, 2, ...; ``steps``. The
program, FOLDER/main, runs the images one after the other and writes its seconds to FOLDER/results/last_run_info.txt.

All layers of a step run within the step, by a schedule of their own; a synapse adds its weight and counts its event.
"""

import sys
from pathlib import Path

import brian2 as b2
import numpy as np

b2.prefs.logging.file_log = False
b2.prefs.logging.save_script = False
b2.BrianLogger.suppress_name("resolution_conflict")
b2.prefs.codegen.cpp.extra_compile_args_gcc = ["-w", "-O3", "-ffp-contract=off", "-march=native", "-std=c++11"]


def main(network: Path, folder: Path) -> None:
    """Build the program."""
    arrays = np.load(network)
    steps, current = int(arrays["steps"]), arrays["current"].astype(np.float64)
    layers = sum(name.startswith("theta_") for name in arrays)
    b2.set_device("cpp_standalone", directory=str(folder), build_on_run=False)
    dt = 1 * b2.ms
    b2.defaultclock.dt = dt
    schedule = ["start"]
    for layer in range(layers):
        schedule += [f"g{layer}", f"t{layer}", f"r{layer}", f"s{layer}"]
    schedule += ["groups", "thresholds", "synapses", "resets", "end"]
    drive = b2.TimedArray(current, dt=steps * dt, name="drive")
    groups, synapses = [], []
    for layer in range(layers):
        theta = arrays[f"theta_{layer}"].astype(np.float64)
        group = b2.NeuronGroup(
            len(theta),
            "v:1\n a:1\n theta:1 (constant)\n n_spk:integer\n n_ev:integer",
            threshold="v>=theta",
            reset="v-=theta; n_spk+=1",
            name=f"G{layer}",
            namespace={"drive": drive},
            method="euler",
        )
        group.theta = theta
        group.run_regularly("v=theta/2; a=0", dt=steps * dt, when="start", name=f"begin{layer}")
        update = "v+=drive(t,i)" if layer == 0 else "v+=a; a=0"
        group.run_regularly(update, dt=dt, when=f"g{layer}", name=f"update{layer}")
        group.thresholder["spike"].when = f"t{layer}"
        group.resetter["spike"].when = f"r{layer}"
        groups.append(group)
    for layer in range(1, layers):
        way = b2.Synapses(
            groups[layer - 1],
            groups[layer],
            "w:1 (constant)",
            on_pre="a_post+=w; n_ev_post+=1",
            delay=0 * b2.ms,
            name=f"S{layer}",
        )
        way.connect(i=arrays[f"pre_{layer}"], j=arrays[f"post_{layer}"])
        way.w = arrays[f"weight_{layer}"].astype(np.float64)
        way.pre.when = f"s{layer - 1}"
        synapses.append(way)
    net = b2.Network(groups, synapses)
    net.schedule = schedule
    net.run(len(current) * steps * dt)
    b2.device.build(directory=str(folder), compile=True, run=False)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
