"""The benchmark network of Lava's stock processes (LIF and Sparse), image by image: prints, for each image, the seconds that its
steps took and the seconds with building, starting and stopping the processes.

    python benchmarks/peers/lava_stock.py NETWORK.npz MESSAGE_BITS STEPS IMAGES

NETWORK.npz as for brian2_by_hand.py; MESSAGE_BITS 0 or 8. Stock LIF sets the membrane to zero at a spike, and nothing sets it to
half the threshold for the next image, so that every image has processes of its own: it is timed, not compared. The first two
steps, slowed by starting, count as if they had taken what the others took.
"""

import sys
import time
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from lava.magma.core.run_conditions import RunSteps
from lava.magma.core.run_configs import Loihi2SimCfg
from lava.proc.lif.process import LIF
from lava.proc.sparse.process import Sparse

STARTING = 2


def network(arrays, bits, image):
    """The first population of a new network."""
    thresholds = [arrays[f"theta_{layer}"].astype(float) for layer in range(sum(n.startswith("theta_") for n in arrays))]
    populations = []
    for layer, theta in enumerate(thresholds):
        bias = arrays["current"][image].astype(float) if layer == 0 else 0.0
        populations.append(LIF(shape=theta.shape, du=1.0, dv=0.0, vth=theta, v=theta / 2, bias_mant=bias))
        if layer:
            ends = arrays[f"post_{layer}"], arrays[f"pre_{layer}"]
            shape = (len(theta), len(thresholds[layer - 1]))
            weights = sp.csr_matrix((arrays[f"weight_{layer}"].astype(float), ends), shape=shape)
            way = Sparse(weights=weights, num_message_bits=bits)
            populations[layer - 1].s_out.connect(way.s_in)
            way.a_out.connect(populations[layer].a_in)
    return populations[0]


def main(path: Path, bits: int, steps: int, images: int) -> None:
    """Run images one after the other."""
    arrays = dict(np.load(path))
    configuration = Loihi2SimCfg(select_tag="floating_pt")
    for image in range(images):
        began = time.perf_counter()
        first = network(arrays, bits, image)
        first.run(condition=RunSteps(num_steps=STARTING), run_cfg=configuration)
        started = time.perf_counter()
        first.run(condition=RunSteps(num_steps=steps - STARTING), run_cfg=configuration)
        run = time.perf_counter() - started
        first.stop()
        print(run * steps / (steps - STARTING), time.perf_counter() - began)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
