"""A training step of a 99 % sparse network holds nothing as large as a mask of a layer, neither in torch nor in numpy."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import load
from sparsespike.ann.masked import MaskedLinear
from sparsespike.ann.networks import build
from sparsespike.ann.progress import TrainProgress
from sparsespike.ann.run_folder import RunFolder
from sparsespike.ann.sparse import SparseLinear
from sparsespike.ann.training import Training

WIDTH = 1024
MASK_BYTES = WIDTH * WIDTH
"""A bool mask of a hidden layer; its weights as a matrix take four times as much."""
CONFIG = TrainConfig(hidden=(WIDTH,) * 3, sparsity=0.99, method="static", topology="er", activation="qcfs", batch=32, dropout=0.1)


class LargestTensor(TorchDispatchMode):
    """The size of the largest tensor that goes into or comes out of any torch operation, backward and optimizer included."""

    def __init__(self) -> None:
        super().__init__()
        self.nbytes = 0
        self.operations: set[str] = set()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, torch.Tensor)]
        self.nbytes = max([self.nbytes, *(tensor.nbytes for tensor in tensors)])
        self.operations.add(function.name())
        return result


@pytest.fixture
def three_steps(tmp_path: Path) -> Callable[..., Training]:
    """A new run on three batches of images."""
    digits = load("digits", validation=0.1, seed=0)
    splits = replace(digits, train=digits.train.take(np.arange(3 * CONFIG.batch)))

    def start() -> Training:
        run = Training.started(CONFIG, splits, RunFolder(tmp_path))
        run.pass_over_data(0, TrainProgress())  # compiles the kernels, gives the optimizer its state
        return run

    return start


def largest_tensor(run: Training) -> LargestTensor:
    with LargestTensor() as seen:
        run.pass_over_data(1, TrainProgress())
    assert {"aten::_fused_sgd_", "aten::_log_softmax_backward_data"} <= {name.split(".")[0] for name in seen.operations}
    return seen


def numpy_peak(run: Training) -> int:
    """Most bytes that Python objects and numpy arrays made during the steps held together; torch's memory is not in it."""
    tracemalloc.start()
    try:
        run.pass_over_data(1, TrainProgress())
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_no_tensor_of_a_step_is_as_large_as_a_mask(three_steps: Callable[..., Training]) -> None:
    run = three_steps()
    assert {type(layer) for layer in run.model.sparse_layers} == {SparseLinear}
    links = max(layer.topology.nnz for layer in run.model.sparse_layers)
    activations = WIDTH * CONFIG.batch
    assert largest_tensor(run).nbytes == 4 * max(links, activations) < MASK_BYTES


def test_a_masked_network_is_caught(three_steps: Callable[..., Training]) -> None:
    run = three_steps()
    sparse, run.model = run.model, build(run.spec, masked=True)
    run.model.load_state_dict(sparse.state_dict())
    run.prepare()
    assert {type(layer) for layer in run.model.sparse_layers} == {MaskedLinear}
    assert largest_tensor(run).nbytes == 4 * MASK_BYTES


def test_no_array_of_a_step_is_as_large_as_a_mask(three_steps: Callable[..., Training]) -> None:
    run = three_steps()
    assert numpy_peak(run) < MASK_BYTES
    layer = run.model.sparse_layers[1]

    def make_mask(*_: object) -> None:
        layer.topology.to_dense()

    layer.register_forward_hook(make_mask)
    assert numpy_peak(run) > MASK_BYTES  # a mask made and dropped within a step is caught
