"""Multilayer perceptrons, described by plain values so that a file can rebuild one without running code."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn

from sparsespike.ann.masked import MaskedLinear
from sparsespike.ann.replace import check_activation, make_activation
from sparsespike.ann.sparse import DenseLinear, SparseLayer, SparseLinear
from sparsespike.ann.topology import Topology
from sparsespike.common.errors import ConfigError, ModelError


@dataclass(frozen=True)
class MLPSpec:
    """What a multilayer perceptron is made of.

    Parameters
    ----------
    widths : tuple of int
        Inputs, hidden layers, classes.
    sparse : bool
        Whether the layers before the classifier hold a topology. The classifier is always dense.
    activation : str
        One of :data:`~sparsespike.ann.replace.KINDS`.
    levels : int
        Quantisation steps L of QCFS in its three forms.
    lam : float
        Initial threshold of these.
    dropout : float
        Probability with which an output of a hidden layer is dropped in training.
    steps : int
        Last slot T of AEC.
    quirks : tuple of str
        Of :data:`~sparsespike.ann.finetune_config.QUIRKS`, those that AEC has.

    Raises
    ------
    ConfigError
        If there are fewer than two widths, one is below 1, the activation is unknown, or the dropout is out of range.
    """

    widths: tuple[int, ...]
    sparse: bool = True
    activation: str = "relu"
    levels: int = 8
    lam: float = 4.0
    dropout: float = 0.0
    steps: int = 5
    quirks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if len(self.widths) < 2 or min(self.widths) < 1:
            raise ConfigError(f"widths are {self.widths}; expected inputs, hidden layers and classes, each at least 1")
        check_activation(self)
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"dropout is {self.dropout}; expected at least 0 and below 1")

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Shape (outputs, inputs) of every layer, the classifier last."""
        return tuple((m, n) for n, m in zip(self.widths[:-1], self.widths[1:], strict=True))

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> MLPSpec:
        """Inverse of :meth:`to_dict`, for values read back from JSON.

        Raises
        ------
        ModelError
            If a field is absent, unknown or of the wrong type.
        """
        try:
            widths, quirks = fields["widths"], fields.get("quirks", ())
            return cls(**{**fields, "widths": tuple(int(width) for width in widths), "quirks": tuple(quirks)})
        except (KeyError, TypeError, ValueError) as error:
            raise ModelError(f"model description {fields!r} is malformed ({error}); expected the fields of MLPSpec") from error


class MLP(nn.Module):
    """A multilayer perceptron: ``layers[i]`` then ``activations[i]``; after the last layer, the classifier, nothing.

    Parameters
    ----------
    spec : MLPSpec
    topologies : sequence of Topology, optional
        One for every layer before the classifier; needed if the network is sparse. Without them a sparse network starts with
        no links, to be loaded into.
    masked : bool
        Whether sparse layers take the masked dense form (:class:`~sparsespike.ann.masked.MaskedLinear`), for a GPU.
    """

    def __init__(self, spec: MLPSpec, topologies: list[Topology] | None = None, *, masked: bool = False) -> None:
        super().__init__()
        self.spec = spec
        *hidden, head = spec.shapes
        if topologies is not None and [topology.shape for topology in topologies] != hidden:
            raise ModelError(f"network of widths {spec.widths} got topologies {topologies}; expected one for each of {hidden}")
        self.layers = nn.ModuleList()
        for position, (m, n) in enumerate(hidden):
            if spec.sparse:
                topology = Topology.from_links((m, n), []) if topologies is None else topologies[position]
                self.layers.append(MaskedLinear(topology) if masked else SparseLinear(topology))
            else:
                self.layers.append(DenseLinear(n, m))
        self.layers.append(DenseLinear(head[1], head[0]))
        self.activations = nn.ModuleList(make_activation(spec, m) for m, _ in hidden)

    def reset_parameters(self, generator: np.random.Generator) -> None:
        """Draw all weights and biases, layer by layer: weights have variance 2 / fan-in."""
        for layer in self.layers:
            if isinstance(layer, DenseLinear | SparseLayer):
                layer.reset_parameters(generator)

    @property
    def sparse_layers(self) -> list[SparseLayer]:
        """The layers that hold a topology, in order."""
        return [layer for layer in self.layers if isinstance(layer, SparseLayer)]

    def forward(self, x: Tensor) -> Tensor:
        """Class scores ``[B, classes]`` of real inputs ``[B, inputs]`` (images flattened in the order C, y, x)."""
        for layer, activation in zip(self.layers, self.activations, strict=False):
            x = nn.functional.dropout(activation(layer(x)), self.spec.dropout, self.training)
        scores: Tensor = self.layers[-1](x)
        return scores
