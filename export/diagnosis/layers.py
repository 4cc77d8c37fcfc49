"""One layer of a converted network beside its ANN layer, added up over any number of images.

A layer's whole error holds what it inherited. Its own error is told apart by giving the ANN layer what this spiking layer really
got from the layers before it, and is split by cause:

* clipping: the ANN's activation is above what the method's neurons can express;
* levels: T steps have only so many counts, which are not the ANN's values;
* integers: the graph's weights, thresholds and biases are not the ANN's;
* unevenness: the spikes came unevenly, so that the neuron fired too early or too late, and cannot make up for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.export.network import FloatArray

CAUSES = {
    "clipping": "clipping at the thresholds",
    "levels": "the rounding of activations to what {steps} steps can say",
    "integers": "the graph's integers, which differ from the ANN's weights and thresholds",
    "unevenness": "spikes that come unevenly",
}
"""Causes of a layer's own error, in the order in which they arise, and what they are called."""

CONSTANT = 1e-12
"""Variance, relative to the mean square, up to which values are one constant and rounding."""

SAMPLE = 2000
"""(image, neuron) pairs of a layer that are kept for a plot."""


@dataclass(frozen=True, kw_only=True)
class LayerDiagnosis:
    """A population beside its ANN layer. Errors are in the ANN's real units, means over all images and neurons of the graph.

    Attributes
    ----------
    name : str
    neurons : int
        In the graph.
    activation : float
        Mean \\|activation\\| of the ANN.
    correlation : float or None
        Pearson's, between the ANN's activations and those that the spikes stand for; None where one of them is constant.
    error, bias : float
        Mean \\|SNN - ANN\\| and mean (SNN - ANN).
    own_error : float
        Mean \\|SNN - ANN layer fed what this spiking layer got\\|.
    causes : dict of str to float
        Mean magnitudes of the parts that ``own_error`` is made of, by cause (see ``CAUSES``); their sum is at least as large.
    dead, saturated : int or None
        Neurons that are active in the ANN on some image and never spike on any; that fire at every step (AEC: twice in slot 0) on
        some image. None for the readout, which does not spike.
    every_step : float or None
        Share of (image, neuron) pairs that do so.
    accuracy : float or None
        Of the ANN, 0..1, if this activation and all before it are those of the spikes, and the layers after it the ANN's.
    sample : float64 array, shape (2, pairs)
        Some activations of the ANN and of the SNN, for plots.
    """

    name: str
    neurons: int
    activation: float
    correlation: float | None
    error: float
    bias: float
    own_error: float
    causes: Mapping[str, float]
    dead: int | None
    saturated: int | None
    every_step: float | None
    accuracy: float | None
    sample: NDArray[np.float64]

    @property
    def relative(self) -> float:
        """Own error in units of the ANN's mean activation; infinite if something comes where the ANN is silent."""
        if self.activation == 0:
            return 0.0 if self.own_error == 0 else np.inf
        return self.own_error / self.activation

    @property
    def cause(self) -> str:
        """The largest part of the own error."""
        return max(self.causes, key=lambda name: self.causes[name])

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON, without the sample."""
        fields = {name: value for name, value in vars(self).items() if name != "sample"}
        return {**fields, "causes": dict(self.causes), "relative_own_error": self.relative}


@dataclass
class LayerSums:
    """What is added up over batches of images, for one layer."""

    neurons: int
    spiking: bool
    pairs: int = 0
    sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(5))
    """Of a, s, a^2, s^2 and a s, with a = ANN and s = SNN."""
    totals: dict[str, float] = field(default_factory=dict)
    active: NDArray[np.bool_] = field(init=False)
    spiked: NDArray[np.bool_] = field(init=False)
    full: NDArray[np.bool_] = field(init=False)
    every_step: int = 0
    correct: int = 0
    images: int = 0
    samples: list[FloatArray] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.active, self.spiked, self.full = (np.zeros(self.neurons, bool) for _ in range(3))

    def add(self, ann: FloatArray, snn: FloatArray, chain: Mapping[str, FloatArray], sample: int) -> None:
        """Add a batch.

        Parameters
        ----------
        ann, snn : float64 arrays, shape (B, N)
            Activations of the ANN and of the graph's spikes.
        chain : mapping of str to float64 array, shape (B, N)
            From ``expected``, the ANN layer on what the spiking layer got, by way of the causes to ``snn``: each entry differs
            from the one before by its cause.
        sample : int
            Pairs to keep.
        """
        self.pairs += ann.size
        self.images += len(ann)
        self.sums += [ann.sum(), snn.sum(), (ann * ann).sum(), (snn * snn).sum(), (ann * snn).sum()]
        values = list(chain.values())
        parts = {"error": snn - ann, "own_error": snn - values[0], "activation": ann}
        parts |= {cause: after - before for cause, before, after in zip(list(chain)[1:], values, values[1:], strict=False)}
        for name, part in parts.items():
            self.totals[name] = self.totals.get(name, 0.0) + float(np.abs(part).sum())
        self.totals["bias"] = self.totals.get("bias", 0.0) + float((snn - ann).sum())
        self.active |= (ann > 0).any(axis=0)
        chosen = np.random.default_rng(self.pairs).integers(0, ann.size, sample)
        self.samples.append(np.stack([ann.ravel()[chosen], snn.ravel()[chosen]]))

    def add_spikes(self, spiked: NDArray[np.bool_], saturated: NDArray[np.bool_]) -> None:
        """Add which neurons spiked, and which sent the largest value that they can, in a batch; both of shape (B, N)."""
        self.spiked |= spiked.any(axis=0)
        self.full |= saturated.any(axis=0)
        self.every_step += int(np.count_nonzero(saturated))

    def diagnosis(self, name: str) -> LayerDiagnosis:
        """The means."""
        mean = {part: total / self.pairs for part, total in self.totals.items()}
        return LayerDiagnosis(
            name=name,
            neurons=self.neurons,
            activation=mean["activation"],
            correlation=self._correlation(),
            error=mean["error"],
            bias=mean["bias"],
            own_error=mean["own_error"],
            causes={cause: mean[cause] for cause in CAUSES if cause in mean},
            dead=int(np.count_nonzero(self.active & ~self.spiked)) if self.spiking else None,
            saturated=int(np.count_nonzero(self.full)) if self.spiking else None,
            every_step=self.every_step / self.pairs if self.spiking else None,
            accuracy=self.correct / self.images if self.spiking else None,
            sample=np.concatenate(self.samples, axis=1),
        )

    def _correlation(self) -> float | None:
        a, s, aa, ss, both = self.sums / self.pairs
        spread_a, spread_s = aa - a * a, ss - s * s
        if spread_a <= CONSTANT * aa or spread_s <= CONSTANT * ss:
            return None
        return float((both - a * s) / np.sqrt(spread_a * spread_s))
