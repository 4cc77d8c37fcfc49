"""What a conversion did to a network, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One population and the layers of the ANN that it came from.

    Attributes
    ----------
    name : str
        Name of the population.
    layers : tuple of str
        Layers of the ANN whose weights lead to it.
    projections : dict of str to str
        For each population before it, ``csr`` or ``conv2d``.
    neurons_ann, neurons : int
        Neurons before and after.
    silent, folded : int
        Neurons that were removed: without fan-in (or, in a method with calibration, never active) and with the constant output
        0; without fan-in and with another constant, which joined the next biases.
    silenced : int
        Neurons that were never active in calibration and stay, as part of a convolution, with a threshold out of reach.
    without_fan_out : int
        Neurons that are kept although nothing reads them.
    nnz_ann : int
        Links of the ANN whose weight is not zero, with pooling composed and convolutions expanded.
    zero_links : int
        Links of the ANN whose weight is exactly zero, those of a convolution counted once a kernel; they are no synapses.
    links_removed : int
        Links that came from or led to a removed neuron.
    nnz : int
        Synapses of the projections: ``nnz_ann - links_removed``.
    sparsity : float
        1 - weights that are not zero / weights of the same layers if they were dense.
    raised : int
        Weights that would have rounded to zero and became +1 or -1, those of a convolution counted once a kernel.
    weight_error : float
        Largest rounding error of a weight, relative to the largest weight that shares its scale.
    threshold_error : float
        Largest relative rounding error of a threshold.
    scale_min, scale_max : float
        Smallest and largest real value of one integer unit.
    """

    name: str
    layers: tuple[str, ...]
    projections: dict[str, str]
    neurons_ann: int
    neurons: int
    silent: int
    folded: int
    silenced: int
    without_fan_out: int
    nnz_ann: int
    zero_links: int
    links_removed: int
    nnz: int
    sparsity: float
    raised: int
    weight_error: float
    threshold_error: float
    scale_min: float
    scale_max: float


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes
    ----------
    method : str
    bits : int
        Width of a weight, sign included.
    settings : dict of str to JSON values
        Of the method: for QCFS ``levels``, the quantisation steps L of the ANN's activations (at T = L steps every layer can
        equal its ANN layer); for SNM and percentile balancing ``percentile``, ``granularity``, ``calibration_images``; for AEC
        ``T``, ``payload_bits``, and whether the thresholds were trained or calibrated.
    layers : tuple of LayerReport
    """

    method: str
    bits: int
    settings: dict[str, Any]
    layers: tuple[LayerReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def notes(self) -> list[str]:
        """One line for each count that a user may not expect; empty if there is none."""
        kinds = {
            "silent": "neurons without input or activity, of constant output 0, removed",
            "folded": "neurons without input, of another constant output, folded into the next biases",
            "silenced": "neurons never active in calibration, given a threshold out of reach",
            "links_removed": "links of removed neurons, removed with them",
            "zero_links": "links of weight exactly 0, which are no synapses",
            "without_fan_out": "neurons without fan-out, kept though nothing reads them",
            "raised": f"weights that would round to 0 at {self.bits} bits, raised to +1 or -1",
        }
        counts = [(layer.name, text, getattr(layer, field)) for layer in self.layers for field, text in kinds.items()]
        return [f"{name}: {text}: {count}" for name, text, count in counts if count]
