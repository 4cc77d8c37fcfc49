"""From a PyTorch model to a :class:`~sparsespike.export.network.Network`, with a verdict on every layer before anything is done.

The model is traced symbolically (``torch.fx``), so that nothing depends on what a module happens to be called in. Everything that
the forward pass does appears in the verdicts; what is not understood is refused there, never skipped.
"""

from __future__ import annotations

import copy
import math
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional

from sparsespike.common.errors import ModelError
from sparsespike.export.modules import (
    NEURONS,
    NOTHING,
    OWN_LAYERS,
    POOLED,
    Reading,
    adaptive_pool,
    average_pool,
    read_module,
)
from sparsespike.export.network import INPUT, Activate, Add, Flatten, Network, Node, Same, Shape


@dataclass(frozen=True)
class Verdict:
    """What becomes of one layer of a model.

    Attributes
    ----------
    layer : str
        Path of the module in the model, or name of the operation in its forward pass.
    type : str
        Class of the module, or the function.
    shape : tuple of int or None
        Of the output, without the batch; None where it cannot be known.
    accepted : bool
    text : str
        What the layer becomes; or why it cannot be converted, and what to do.
    """

    layer: str
    type: str
    shape: Shape | None
    accepted: bool
    text: str


class Trace(NamedTuple):
    """A network and the verdict on each of its layers; the network is None if one was refused."""

    network: Network | None
    verdicts: tuple[Verdict, ...]


def trace(model: nn.Module, input_shape: Sequence[int]) -> Trace:
    """Read a model, layer by layer.

    Parameters
    ----------
    model : Module
        Of Linear, SparseLinear, MaskedLinear, Conv2d, BatchNorm, ReLU, QCFS, average pooling, Flatten, Dropout, Identity and
        residual additions, in any structure whose forward pass does not depend on the data. Models pruned with
        ``torch.nn.utils.prune`` included. It is read as in evaluation mode, and stays as it is.
    input_shape : (N,) or (C, y, x)
        Of one input.

    Raises
    ------
    ModelError
        If the forward pass cannot be traced at all.
    """
    shape = tuple(int(n) for n in input_shape)
    if len(shape) not in (1, 3) or min(shape) < 1:
        raise ModelError(f"input_shape: found {shape}, expected (N,) or (C, y, x) with sizes >= 1")
    tracer = _Tracer()
    root = nn.Sequential(model) if tracer.is_leaf_module(model, "") else model  # a model of one layer
    try:
        graph = tracer.trace(root)
    except Exception as error:  # tracing runs the model's own code, which may raise anything
        raise ModelError(
            f"model: {type(model).__name__} cannot be traced with torch.fx ({type(error).__name__}: {error}); "
            "its forward pass must not depend on the values of its input"
        ) from error
    return _Reader(root, shape).read(graph)


def trace_network(model: nn.Module, input_shape: Sequence[int]) -> Network:
    """The network of a model.

    Raises
    ------
    ModelError
        Naming every layer that cannot be converted, why, and what to do.
    """
    network, verdicts = trace(model, input_shape)
    refused = [verdict for verdict in verdicts if not verdict.accepted]
    if network is None:
        raise ModelError("; ".join(f"layer {v.layer!r} ({v.type}): {v.text}" for v in refused))
    return network


def with_average_pooling(model: nn.Module) -> nn.Module:
    """A copy of a model in which every MaxPool2d is an AvgPool2d of the same windows.

    The copy computes something else: train it a few epochs more before it is converted.

    Raises
    ------
    ModelError
        If a MaxPool2d has a dilation or returns indices, which AvgPool2d cannot.
    """
    changed = copy.deepcopy(model)
    for name, module in list(changed.named_modules()):
        if not isinstance(module, nn.MaxPool2d):
            continue
        if module.dilation not in (1, (1, 1)) or module.return_indices:
            raise ModelError(
                f"layer {name!r} (MaxPool2d): found a dilation or return_indices, expected neither; replace it by hand"
            )
        pool = nn.AvgPool2d(module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode)
        if not name:
            return pool
        parent, _, last = name.rpartition(".")
        setattr(changed.get_submodule(parent), last, pool)
    return changed


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, OWN_LAYERS) or super().is_leaf_module(m, module_qualified_name)


class _Refusal(NamedTuple):
    reason: str


class _Reader:
    """Walks over a traced graph; values are node names, sizes of the batch are marked as such."""

    def __init__(self, root: nn.Module, input_shape: Shape) -> None:
        self.modules = dict(root.named_modules())
        self.input_shape = input_shape
        self.taken = {INPUT, "readout"}
        self.names: dict[fx.Node, str] = {}
        """Name under which a traced node's value is read."""
        self.shapes: dict[str, Shape | None] = {}
        self.sizes: set[fx.Node] = set()
        """Traced nodes that stand for a size or a shape, such as ``x.size(0)``."""
        self.nodes: list[Node] = []
        self.verdicts: list[Verdict] = []

    def read(self, graph: fx.Graph) -> Trace:
        needed = _needed(graph)
        for node in graph.nodes:
            if node.op == "placeholder":
                self._placeholder(node)
            elif node.op == "output":
                self._output(node)
            elif _is_size(node):
                self.sizes.add(node)
            else:
                self._layer(node, node in needed)
        accepted = all(verdict.accepted for verdict in self.verdicts)
        return Trace(Network(self.input_shape, tuple(self.nodes)) if accepted else None, tuple(self.verdicts))

    def _placeholder(self, node: fx.Node) -> None:
        if INPUT in self.shapes:
            if node.users:
                self._refuse(str(node.target), "argument", "found a second input, expected one; convert a model of one input")
            return
        self.names[node], self.shapes[INPUT] = INPUT, self.input_shape

    def _output(self, node: fx.Node) -> None:
        value = node.args[0]
        if not isinstance(value, fx.Node) or value not in self.names:
            self._refuse("output", type(value).__name__, "expected one tensor of class scores")
            return
        name = self.names[value]
        if self.nodes and self.nodes[-1].name != name and all(verdict.accepted for verdict in self.verdicts):
            last = next(i for i, found in enumerate(self.nodes) if found.name == name)
            self.nodes.append(self.nodes.pop(last))
        last_layer = next((found.layer for found in self.nodes if found.name == name), None)
        if name == INPUT or isinstance(last_layer, Activate):
            self._refuse("output", name, "found an activation as the last layer, expected Linear: the class is the largest score")
        shape = self.shapes[name]
        if shape is not None and len(shape) != 1:
            self._refuse("output", name, f"found scores of shape {shape}, expected (classes,); flatten them")

    def _refuse(self, layer: str, kind: str, reason: str, shape: Shape | None = None) -> None:
        self.verdicts.append(Verdict(layer, kind, shape, False, reason))

    def _layer(self, node: fx.Node, needed: bool) -> None:
        module = self.modules.get(str(node.target)) if node.op == "call_module" else None
        name = self._unique(str(node.target) if module is not None else node.name)
        kind = type(module).__name__ if module is not None else getattr(node.target, "__name__", str(node.target))
        self.names[node], self.shapes[name] = name, None
        try:
            _check_in_place(node, module)
            if not needed:
                self.verdicts.append(Verdict(name, kind, None, True, "nothing: the output does not depend on it"))
                return
            inputs = tuple(self._value(argument) for argument in self._operands(node))
            reading = read_module(module) if module is not None else self._function(node)
            shapes = [self.shapes[value] for value in inputs]
            known = [shape for shape in shapes if shape is not None]
            shape = reading.layer.shape(*known) if len(known) == len(shapes) else None
        except ModelError as error:
            self._refuse(name, kind, str(error), self._by_running(module, node))
            self.shapes[name] = self.verdicts[-1].shape
            return
        self.shapes[name] = shape
        self.verdicts.append(Verdict(name, kind, shape, True, reading.becomes))
        if shape is not None:
            self.nodes.append(Node(name, reading.layer, inputs, shape))

    def _unique(self, name: str) -> str:
        candidate, count = name, 1
        while candidate in self.taken:
            count += 1
            candidate = f"{name}-{count}"
        self.taken.add(candidate)
        return candidate

    def _operands(self, node: fx.Node) -> list[Any]:
        if node.op == "get_attr":
            raise ModelError("found a parameter or buffer used by itself; put it into a Linear, Conv2d or BatchNorm module")
        if len(node.args) == 0:
            raise ModelError("found the input by keyword, expected it as the first argument")
        return list(node.args[:2]) if _function_of(node) in _ADDITIONS else [node.args[0]]

    def _value(self, argument: Any) -> str:
        if not isinstance(argument, fx.Node) or argument not in self.names:
            raise ModelError(f"found the operand {argument}, expected the output of a layer; convert a model of supported layers")
        return self.names[argument]

    def _function(self, node: fx.Node) -> Reading:
        target = _function_of(node)
        if target in _ADDITIONS:
            if node.kwargs.get("alpha", 1) != 1:
                raise ModelError("found a scaled addition (alpha), expected a plain sum")
            return Reading(Add(), "projections into one population")
        if target in _RELUS:
            return Reading(Activate("relu"), NEURONS)
        if target in _DROPOUTS:
            return Reading(Same(), NOTHING)
        if target in ("flatten", torch.flatten):
            start, end = _arguments(node, ("start_dim", 0), ("end_dim", -1))
            if start != 1 or end not in (-1, 3):
                raise ModelError(f"found flatten({start}, {end}), expected all but the batch: flatten(x, 1)")
            return Reading(Flatten(), NOTHING)
        if target in ("view", "reshape", torch.reshape):
            return self._view(node)
        if target is functional.avg_pool2d:
            kernel, stride, padding, ceil_mode, include, divisor = _arguments(
                node,
                ("kernel_size", None),
                ("stride", None),
                ("padding", 0),
                ("ceil_mode", False),
                ("count_include_pad", True),
                ("divisor_override", None),
            )
            window = _pair(kernel)
            return Reading(
                average_pool(window, _pair(stride) if stride else window, _pair(padding), ceil_mode, include, divisor), POOLED
            )
        if target is functional.adaptive_avg_pool2d:
            return Reading(adaptive_pool(_arguments(node, ("output_size", None))[0]), POOLED)
        raise ModelError(
            "this operation is not known; expected addition, relu, flatten, view, dropout or average pooling: write it with "
            "modules that can be converted"
        )

    def _view(self, node: fx.Node) -> Reading:
        sizes = node.args[1:] if not isinstance(node.args[1], tuple | list) else tuple(node.args[1])
        shape = self.shapes[self._value(node.args[0])]
        batch = sizes[0] in self.sizes or sizes[0] == -1
        rest = (-1,) if shape is None else (-1, math.prod(shape))
        if len(sizes) != 2 or not batch or sizes[1] not in rest:
            raise ModelError(f"found a change of shape to {sizes}, expected (batch, all the rest): write torch.flatten(x, 1)")
        return Reading(Flatten(), NOTHING)

    def _by_running(self, module: nn.Module | None, node: fx.Node) -> Shape | None:
        """Shape of the output of a refused module, so that the verdicts can go on; None if it cannot be had."""
        argument = node.args[0] if node.args else None
        shape = self.shapes.get(self.names.get(argument, "")) if isinstance(argument, fx.Node) else None
        if module is None or shape is None:
            return None
        try:
            with torch.no_grad():
                found = copy.deepcopy(module).eval()(torch.zeros(1, *shape))
            return tuple(found.shape[1:])
        except Exception:  # the module refuses its input, or gives no tensor: its verdict says what is wrong
            return None


def _needed(graph: fx.Graph) -> set[fx.Node]:
    """The nodes that the output depends on."""
    found: set[fx.Node] = set()
    for node in reversed(graph.nodes):
        if node.op == "output" or node in found:
            found.update(node.all_input_nodes)
    return found


def _function_of(node: fx.Node) -> Any:
    """A function, or a method's name."""
    return node.target if node.op in ("call_function", "call_method") else None


_ADDITIONS: tuple[Any, ...] = (operator.add, operator.iadd, torch.add, "add", "add_")
_RELUS: tuple[Any, ...] = (functional.relu, functional.relu_, torch.relu, torch.relu_, "relu", "relu_")
_DROPOUTS: tuple[Any, ...] = (functional.dropout, functional.dropout2d, "contiguous")
_IN_PLACE: tuple[Any, ...] = (operator.iadd, functional.relu_, torch.relu_, "add_", "relu_")


def _is_size(node: fx.Node) -> bool:
    function: Callable[..., Any] | str | None = _function_of(node)
    if function == "size":
        return True
    if function is getattr:
        return node.args[1] == "shape"
    return function is operator.getitem and isinstance(node.args[0], fx.Node) and _is_size(node.args[0])


def _check_in_place(node: fx.Node, module: nn.Module | None) -> None:
    """An operation in place changes its operand for all who read it afterwards, which no graph shows."""
    in_place = getattr(module, "inplace", False) or _function_of(node) in _IN_PLACE or node.kwargs.get("inplace", False)
    first = node.args[0] if node.args else None
    if in_place and isinstance(first, fx.Node) and len(first.users) > 1:
        raise ModelError(
            "found an operation in place on a value that is used elsewhere too; set inplace=False (or write x = x + y)"
        )


def _arguments(node: fx.Node, *defaults: tuple[str, Any]) -> list[Any]:
    """Arguments after the first, by position or keyword."""
    given: Iterable[Any] = node.args[1:]
    found = dict(zip((name for name, _ in defaults), given, strict=False)) | dict(node.kwargs)
    return [found.get(name, default) for name, default in defaults]


def _pair(value: Any) -> tuple[int, int]:
    y, x = (value, value) if isinstance(value, int) else tuple(value)
    return int(y), int(x)
