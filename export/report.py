"""What a conversion did to a network, layer by layer."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class LayerReport:
    """One layer of the ANN and the population and projection that it became.

    Attributes
    ----------
    name : str
        Name of the population.
    neurons_ann, neurons : int
        Neurons before and after.
    silent, folded : int
        Neurons without fan-in that were removed: with the constant output 0, and with another constant, which joined the next
        layer's biases.
    without_fan_out : int
        Neurons that are kept although nothing reads them.
    nnz_ann : int
        Links of the ANN whose weight is not zero.
    zero_links : int
        Links of the ANN whose weight is exactly zero; they are no synapses.
    links_removed : int
        Links that came from a removed neuron of the layer before.
    nnz : int
        Synapses of the projection: ``nnz_ann - links_removed``.
    sparsity : float
        1 - nnz_ann / (outputs x inputs) of the ANN's layer.
    raised : int
        Weights that would have rounded to zero and became +1 or -1.
    weight_error : float
        Largest rounding error of a weight, relative to the largest weight that shares its scale.
    threshold_error : float
        Largest relative rounding error of a threshold.
    scale_min, scale_max : float
        Smallest and largest real value of one integer unit.
    """

    name: str
    neurons_ann: int
    neurons: int
    silent: int
    folded: int
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
    levels : int
        Quantisation steps L of the ANN's activations; at T = L steps every layer can equal its ANN layer.
    layers : tuple of LayerReport
    """

    method: str
    bits: int
    levels: int
    layers: tuple[LayerReport, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def notes(self) -> list[str]:
        """One line for each count that a user may not expect; empty if there is none."""
        kinds = {
            "silent": "neurons without input, of constant output 0, removed",
            "folded": "neurons without input, of another constant output, folded into the next biases",
            "links_removed": "links from removed neurons, removed with them",
            "zero_links": "links of weight exactly 0, which are no synapses",
            "without_fan_out": "neurons without fan-out, kept though nothing reads them",
            "raised": f"weights that would round to 0 at {self.bits} bits, raised to +1 or -1",
        }
        counts = [(layer.name, text, getattr(layer, field)) for layer in self.layers for field, text in kinds.items()]
        return [f"{name}: {text}: {count}" for name, text, count in counts if count]
