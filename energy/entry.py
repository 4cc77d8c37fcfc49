"""One line of the ledger: the exact account of one projection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Annotated, Literal, get_args

from pydantic import Field

from sparsespike.common.errors import ConfigError

RateOf = Literal["input", "output"]
"""Which rate multiplies a layer's FLOPs: that of the neurons whose spikes enter it, or that of its own neurons."""

Operation = Literal["MAC", "AC"]

Count = Annotated[int, Field(ge=0, lt=2**63)]
"""A number of events, spikes or synapses, checked where it is read from a file."""
Size = Annotated[int, Field(ge=1, lt=2**63)]
"""A number of neurons, steps or images, checked where it is read from a file."""
Flops = Annotated[Fraction, Field(ge=0)]
"""Floating-point operations of an ANN's layer, likewise."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Events of one projection, summed over images and steps; every number is an integer or a rational.

    With pre-neurons i = 1..N, spikes s_i (both signs) and fan-outs d_i::

        computed           = sum_i s_i d_i
        computed           = analytic_graph + covariance
        analytic_graph     = T LASFR nnz = mean(s) nnz
        covariance         = N cov(s, d)
        residual(backend)  = measured[backend] - (analytic_graph + covariance)
        analytic_graph     = analytic_paper + rate_term - border + pool

    Attributes
    ----------
    pre, post : str
        Populations.
    operation : {"MAC", "AC"}
        MAC for a projection out of the input, whose events carry numbers.
    backends : tuple of str
        Backends that fired these spikes.
    steps, images : int
        T, and the number of images summed over.
    neurons, post_neurons : int
        N of the two populations.
    nnz : int
        Synapses.
    nominal : int
        Synapses before borders cut any: for a convolution, weights that are not zero x output positions.
    ann_flops : Fraction
        FL_ANN of the ANN's layer (Eq. 4), one image, one pass.
    spikes, post_spikes : int
        Sum of s_i, and the spikes of the postsynaptic population (0 for the readout, which never fires).
    computed : int
        sum_i s_i d_i.
    covariance : Fraction
        N cov(s, d), calculated from s and d.
    measured, reported : mapping of backend to int
        Events that a backend counted where it adds a weight, and events that a backend reports but computed.
    """

    pre: str
    post: str
    operation: Operation
    backends: tuple[str, ...]
    steps: Size
    images: Size
    neurons: Size
    post_neurons: Size
    nnz: Count
    nominal: Count
    ann_flops: Flops
    spikes: Count
    post_spikes: Count
    computed: Count
    covariance: Fraction
    measured: Mapping[str, Count]
    reported: Mapping[str, Count]

    @property
    def mean_spikes(self) -> Fraction:
        """Spikes of a presynaptic neuron, averaged over neurons and summed over images: images x T x LASFR."""
        return Fraction(self.spikes, self.neurons)

    @property
    def lasfr(self) -> Fraction:
        """LASFR of the presynaptic population (Eq. 2), mean over images: spikes per neuron and step."""
        return self.mean_spikes / (self.steps * self.images)

    @property
    def analytic_graph(self) -> Fraction:
        """T LASFR nnz: events if every neuron had the mean fan-out."""
        return self.mean_spikes * self.nnz

    def residual(self, backend: str) -> Fraction | None:
        """measured - (analytic_graph + covariance); None if this backend measured nothing here."""
        if backend not in self.measured:
            return None
        return self.measured[backend] - (self.analytic_graph + self.covariance)

    def paper_rate(self, rate_of: RateOf) -> Fraction:
        """T LASFR as the paper's equations multiply it, summed over images: 1 a step for the first layer, no rate factor.

        Raises
        ------
        ConfigError
            If ``rate_of`` is unknown.
        """
        if rate_of not in get_args(RateOf):
            raise ConfigError(f"energy: found rate_of = {rate_of!r}, expected 'input' or 'output'")
        if self.operation == "MAC":
            return Fraction(self.steps * self.images)
        return self.mean_spikes if rate_of == "input" else Fraction(self.post_spikes, self.post_neurons)

    def analytic_paper(self, rate_of: RateOf = "input") -> Fraction:
        """FL_SNN(T) = T LASFR FL_ANN (section 2.2.1), FL_ANN by Eq. 4."""
        return self.paper_rate(rate_of) * self.ann_flops

    def rate_term(self, rate_of: RateOf = "input") -> Fraction:
        """What the graph's own rates change: pixels of value zero in the first layer, input for output rate in the others."""
        return (self.mean_spikes - self.paper_rate(rate_of)) * self.ann_flops

    @property
    def border(self) -> Fraction:
        """Events that the nominal count charges to taps in the padding: mean(s) (nominal - nnz)."""
        return self.mean_spikes * (self.nominal - self.nnz)

    @property
    def pool(self) -> Fraction:
        """Events that a pool composed into this projection adds to the ANN's layer: mean(s) (nominal - FL_ANN)."""
        return self.mean_spikes * (self.nominal - self.ann_flops)
