"""Intel Lava as a backend: hardware-shaped execution in floating or fixed point, in a supervised worker process.

Every population and every projection is a Lava process of its own (package ``processes``), joined by ports with unit delays, as
on a neuromorphic chip: a population at depth d takes its local step t at global step t + d (of kind ``aec`` it encodes from step
d * slots on), and the synapses of a skip keep currents in a ring for the steps between. Blocks of images run side by side (ports
of shape (block, N)) and one block after the other in one run, without a pause and without compiling again.

What is measured where: a synapse process gathers the CSR rows of the arriving spikes (``gather``) and counts in that loop, image
by image, each weight that it adds to a current. It writes the counts by image and step into memory shared with the worker, as
the population processes do with spikes, rasters and the readout: reading a Lava Var costs a message per number (35 microseconds),
minutes for one raster. The total of each counter is a Lava Var too, is read back after the run and must equal the sum of the
table.

In floating point all numbers are integers in float64, exact below 2^53: a graph that could go beyond is refused. In fixed point
they are the words of Loihi 2 (``fixed``): a graph that does not fit is refused, and a membrane or current that leaves its word
ends the run, naming population, image and step. Both give the graph's own results, integer for integer. Lava itself (package
``lava-nc``, Python 3.10) is imported in the worker alone; module ``supervisor`` says how the worker is ended.
"""

from sparsespike.backends.lava.backend import LavaBackend, Run

__all__ = ["LavaBackend", "Run"]
