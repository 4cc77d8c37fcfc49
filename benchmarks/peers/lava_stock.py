"""The benchmark network of Lava's stock processes (LIF and Sparse), one image: prints milliseconds per step.

    python benchmarks/peers/lava_stock.py NETWORK.npz MESSAGE_BITS STEPS

NETWORK.npz as for brian2_by_hand.py; MESSAGE_BITS 0 or 8. Stock LIF sets the membrane to zero at a spike, and there is no start
at half the threshold for a second image: it is timed, not compared.
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


def main(network: Path, bits: int, steps: int) -> None:
    """Time ``steps`` steps after two to get going."""
    arrays = np.load(network)
    thresholds = [arrays[f"theta_{layer}"].astype(float) for layer in range(sum(n.startswith("theta_") for n in arrays))]
    populations = []
    for layer, theta in enumerate(thresholds):
        bias = arrays["current"][0].astype(float) if layer == 0 else 0.0
        populations.append(LIF(shape=theta.shape, du=1.0, dv=0.0, vth=theta, v=theta / 2, bias_mant=bias))
        if layer:
            ends = arrays[f"post_{layer}"], arrays[f"pre_{layer}"]
            shape = (len(theta), len(thresholds[layer - 1]))
            weights = sp.csr_matrix((arrays[f"weight_{layer}"].astype(float), ends), shape=shape)
            way = Sparse(weights=weights, num_message_bits=bits)
            populations[layer - 1].s_out.connect(way.s_in)
            way.a_out.connect(populations[layer].a_in)
    first = populations[0]
    configuration = Loihi2SimCfg(select_tag="floating_pt")
    first.run(condition=RunSteps(num_steps=2), run_cfg=configuration)
    began = time.perf_counter()
    first.run(condition=RunSteps(num_steps=steps), run_cfg=configuration)
    elapsed = time.perf_counter() - began
    first.stop()
    print(1e3 * elapsed / steps)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
