"""Hold a spiking graph against the model that it came from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from sparsespike.ann.convnets import ConvNet
from sparsespike.ann.encoding import Encoding
from sparsespike.ann.models import MLP
from sparsespike.backends.base import Backend, RunResult
from sparsespike.backends.native import NativeBackend
from sparsespike.common.errors import ConfigError, DataError, GraphError
from sparsespike.export.build import Conversion
from sparsespike.export.calibrate import Progress, real_inputs
from sparsespike.export.diagnosis.code import Code
from sparsespike.export.diagnosis.layers import SAMPLE, LayerSums
from sparsespike.export.diagnosis.rates import rate_code
from sparsespike.export.diagnosis.report import Diagnosis
from sparsespike.export.diagnosis.stages import Tally
from sparsespike.export.diagnosis.windows import window_code
from sparsespike.export.graph import SpikingGraph
from sparsespike.export.network import Activate, Dense, FloatArray, Network
from sparsespike.export.source import read_network

ANN, FLOAT = "ANN (torch)", "SNN in floating point"
DENSE_ABOVE = 0.1
"""Density from which a product with a dense array is faster than one with a sparse matrix."""


def diagnose(
    model: nn.Module,
    encoding: Encoding,
    graph: SpikingGraph,
    conversions: Mapping[int, Conversion],
    pixels: NDArray[Any],
    labels: NDArray[Any],
    steps: int,
    *,
    input_shape: Sequence[int] | None = None,
    backend: Backend | None = None,
    batch: int = 64,
    progress: Progress | None = None,
) -> Diagnosis:
    """Where the accuracy of a converted network went: layer by layer, and stage by stage.

    Parameters
    ----------
    model : Module
        As it was converted.
    encoding : Encoding
    graph : SpikingGraph
        The graph to look into: one of the conversions, or one read from a file, or changed.
    conversions : mapping of bits to Conversion
        Of this model by this graph's method. Each is a stage; the one of most bits tells what a spike stands for, and which
        neurons were kept.
    pixels : integer array, shape (B, N) or (B, C, y, x)
    labels : integer array, shape (B,)
    steps : int
        T.
    input_shape : (N,) or (C, y, x), optional
        Of one input; known for the networks of this package.
    backend : Backend, optional
        Native by default.
    batch : int
        Images at a time; for memory and speed only.
    progress : callable, optional
        Called with ("diagnosis", images done, images).

    Returns
    -------
    Diagnosis

    Raises
    ------
    ConfigError, DataError
        If there is nothing to compare, or images and labels do not fit.
    GraphError
        If the graph is not of this model.
    BackendError
        If a graph cannot be run.
    """
    if steps < 1 or batch < 1:
        raise ConfigError(f"diagnosis: found steps = {steps} and batch = {batch}, expected at least 1")
    if not conversions:
        raise ConfigError("diagnosis: found no conversion, expected at least one of the same model and method")
    if len(pixels) == 0 or len(pixels) != len(labels):
        raise DataError(f"diagnosis: found {len(pixels)} images and {len(labels)} labels, expected one label an image")
    network = _with_dense_products(read_network(model, input_shape))
    real_inputs(network, encoding, pixels[:1])
    finest = conversions[max(conversions)]
    _check_same(graph, finest)
    code = rate_code(network, finest, steps) if finest.graph.slots is None else window_code(network, finest)
    session = _Session(model, encoding, graph, conversions, code, steps, backend or NativeBackend(), len(pixels))
    for start in range(0, len(pixels), batch):
        session.add(pixels[start : start + batch], np.asarray(labels[start : start + batch]))
        if progress is not None:
            progress("diagnosis", min(start + batch, len(pixels)), len(pixels))
    return session.diagnosis()


def _check_same(graph: SpikingGraph, conversion: Conversion) -> None:
    found = {name: graph.population(name).size for name in graph.spiking}
    expected = {name: len(kept) for name, kept in conversion.kept.items()}
    if found != expected or (graph.input.size, graph.readout.size) != (
        conversion.graph.input.size,
        conversion.graph.readout.size,
    ):
        raise GraphError(
            f"graph: found populations {found}, expected {expected} as the model has when converted the same way; give the graph "
            "that was converted from this model, or convert it again"
        )


class _Session:
    """What is added up over batches of images."""

    def __init__(
        self,
        model: nn.Module,
        encoding: Encoding,
        graph: SpikingGraph,
        conversions: Mapping[int, Conversion],
        code: Code,
        steps: int,
        backend: Backend,
        images: int,
    ) -> None:
        self.model, self.encoding, self.graph, self.code, self.steps, self.backend = model, encoding, graph, code, steps, backend
        self.network = code.network
        self.kept = conversions[max(conversions)].kept
        self.images = images
        self.layers = {node.name: LayerSums(len(self.kept[node.name]), True) for node in self.network.activations}
        self.readout = LayerSums(graph.readout.size, False)
        self.runs = {f"SNN, {bits} bits": conversions[bits].graph for bits in sorted(conversions, reverse=True)}
        names = [ANN, *(stage for stage, _, _ in code.replacements), *([FLOAT] if graph.slots is None else []), *self.runs]
        self.tallies = [Tally(name, before) for before, name in zip([None, *names], names, strict=False)]
        digest = graph.digest()
        same = next((name for name, converted in self.runs.items() if converted.digest() == digest), None)
        self.graph_stage = same or "this graph"
        if same is None:
            of_its_bits = f"SNN, {graph.provenance.get('bits')} bits"
            self.tallies.append(Tally(self.graph_stage, of_its_bits if of_its_bits in self.runs else next(iter(self.runs))))
            self.runs[self.graph_stage] = graph

    def add(self, pixels: NDArray[Any], labels: NDArray[Any]) -> None:
        """A batch of images through all stages and layers."""
        x = real_inputs(self.network, self.encoding, pixels)
        inputs = self.graph.check_inputs(pixels)
        last = self.network.nodes[-1].name
        predictions = {ANN: _classes(self.model, x)}
        for stage, _, activation in self.code.replacements:
            predictions[stage] = self.network.run(x, activation)[last].argmax(axis=1)
        simulated = self.code.simulate(x)
        if simulated is not None:
            predictions[FLOAT] = simulated
        for name, graph in self.runs.items():
            record = self.code.record(graph) if name == self.graph_stage else ()
            result = self.backend.run(graph, inputs, self.steps, input="current", record=record)
            predictions[name] = result.predictions
            if name == self.graph_stage:
                self._add_layers(x, inputs, labels, result)
        for tally in self.tallies:
            tally.add(predictions[tally.name], labels)

    def _add_layers(self, x: FloatArray, inputs: NDArray[np.int64], labels: NDArray[Any], result: RunResult) -> None:
        network, code = self.network, self.code
        ann = network.evaluate(x)
        decoded, even = code.decoded(result, self.graph), code.even(result, self.graph, inputs)
        drives: dict[str, tuple[Activate, FloatArray]] = {}

        def as_sent(name: str, layer: Activate, drive: FloatArray) -> FloatArray:
            drives[name] = layer, drive
            return decoded[name].reshape(drive.shape)

        sent = network.run(x, as_sent)
        last, pairs = network.nodes[-1].name, max(1, SAMPLE * len(x) // self.images)
        sent_so_far: set[str] = set()
        for name, sums in self.layers.items():
            layer, drive = drives[name]
            chain = {"expected": layer(drive)}
            chain |= {cause: activation(name, layer, drive) for _, cause, activation in code.replacements}
            chain |= {"integers": even[name], "unevenness": decoded[name]}
            kept = self.kept[name]
            flat = {step: values.reshape(len(x), -1)[:, kept] for step, values in chain.items()}
            sums.add(ann[name].reshape(len(x), -1)[:, kept], flat["unevenness"], flat, pairs)
            sums.add_spikes(code.spiked(result, name), code.saturated(result, name))
            sent_so_far.add(name)
            handed = network.run(
                x, lambda at, layer, drive: decoded[at].reshape(drive.shape) if at in sent_so_far else layer(drive)
            )
            sums.correct += int(np.count_nonzero(handed[last].argmax(axis=1) == labels))
        scores = code.scores(result, self.graph)
        self.readout.add(ann[last], scores, {"expected": sent[last], "integers": scores}, pairs)

    def diagnosis(self) -> Diagnosis:
        """The sums as a diagnosis."""
        found = [sums.diagnosis(name) for name, sums in self.layers.items()]
        bits = self.graph.provenance.get("bits")
        return Diagnosis(
            method=str(self.graph.provenance.get("method", "unknown")),
            bits=bits if isinstance(bits, int) else None,
            steps=self.steps,
            images=self.images,
            stages=tuple(tally.stage() for tally in self.tallies),
            graph_stage=self.graph_stage,
            layers=(*found, self.readout.diagnosis(self.graph.readout.name)),
        )


def _classes(model: nn.Module, x: FloatArray) -> NDArray[np.int64]:
    """Classes that a torch model gives, in its own precision, shape (B,)."""
    flat = x.reshape(len(x), -1) if isinstance(model, MLP | ConvNet) else x
    parameter = next(model.parameters())
    was_training = model.training
    model.eval()
    with torch.no_grad():
        scores = model(torch.from_numpy(flat).to(parameter.device, parameter.dtype))
    model.train(was_training)
    return np.asarray(scores.argmax(dim=1).cpu().numpy(), np.int64)


class _DenseProduct(Dense):
    """A dense layer that is multiplied as a dense array; sums are in another order than those of a sparse matrix."""

    @cached_property
    def _array(self) -> FloatArray:
        return np.ascontiguousarray(self.weights.toarray().T)

    def __call__(self, x: FloatArray) -> FloatArray:
        return np.asarray(x @ self._array + self.bias, np.float64)


def _with_dense_products(network: Network) -> Network:
    """The network with its dense layers fast."""

    def fast(layer: Any) -> Any:
        if isinstance(layer, Dense) and layer.weights.nnz > DENSE_ABOVE * layer.weights.shape[0] * layer.weights.shape[1]:
            return _DenseProduct(layer.weights, layer.bias, layer.links)
        return layer

    return replace(network, nodes=tuple(replace(node, layer=fast(node.layer)) for node in network.nodes))
