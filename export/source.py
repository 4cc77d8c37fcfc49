"""Models as networks, with the names that their populations get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import nn

from sparsespike.ann.convnets import ConvNet
from sparsespike.ann.models import MLP
from sparsespike.common.errors import ModelError
from sparsespike.export.network import Activate, Network, Shape
from sparsespike.export.trace import Verdict, trace, trace_network


def read_network(model: nn.Module, input_shape: Sequence[int] | None = None) -> Network:
    """The network of a model. Populations are named as its activations; those of an MLP ``hidden1``, ``hidden2`` ...

    Parameters
    ----------
    model : Module
    input_shape : (N,) or (C, y, x), optional
        Of one input; known for the networks of this package.

    Raises
    ------
    ModelError
        If a layer cannot be converted (naming each, why, and what to do), or the shape is missing.
    """
    network = trace_network(*_source(model, input_shape))
    return _renamed(network) if isinstance(model, MLP) else network


def verdicts(model: nn.Module, input_shape: Sequence[int] | None = None) -> tuple[Verdict, ...]:
    """What becomes of each layer of a model, before anything is done; see :func:`sparsespike.export.trace.trace`."""
    return trace(*_source(model, input_shape)).verdicts


def _source(model: nn.Module, input_shape: Sequence[int] | None) -> tuple[nn.Module, Shape]:
    """The module to trace, and the shape of its input."""
    if isinstance(model, ConvNet):  # it takes flat images, and gives them their shape first
        return model.network, model.spec.shape
    if input_shape is not None:
        return model, tuple(input_shape)
    if isinstance(model, MLP):
        return model, (model.spec.widths[0],)
    raise ModelError(
        f"model: found {type(model).__name__} and no input_shape, expected the shape of one input: (N,) or (C, y, x)"
    )


def _renamed(network: Network) -> Network:
    names = {node.name: f"hidden{i}" for i, node in enumerate(network.activations, 1)}
    nodes = (
        replace(node, name=names.get(node.name, node.name), inputs=tuple(names.get(name, name) for name in node.inputs))
        for node in network.nodes
    )
    return Network(network.input_shape, tuple(nodes))


def check_activations(network: Network, kind: str, advice: str) -> tuple[Activate, ...]:
    """The activations of a network, all of one kind.

    Raises
    ------
    ModelError
        If there is none, or one of another kind.
    """
    names = {"relu": "ReLU", "qcfs": "QCFS", "aec": "AEC"}
    for node in network.activations:
        if isinstance(node.layer, Activate) and node.layer.kind != kind:
            raise ModelError(
                f"layer {node.name!r}: found the activation {names[node.layer.kind]}, expected {names[kind]}; {advice}"
            )
    found = tuple(node.layer for node in network.activations if isinstance(node.layer, Activate))
    if not found:
        raise ModelError(f"model: found no activation, expected {names[kind]} after at least one hidden layer")
    return found
