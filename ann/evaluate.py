"""What a trained model answers: class scores and accuracy over a split."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from sparsespike.ann.augment import assemble
from sparsespike.ann.data import Split
from sparsespike.ann.encoding import Encoding

BATCH = 512


def scores(model: nn.Module, images: npt.NDArray[np.uint8], encoding: Encoding) -> npt.NDArray[np.float32]:
    """Class scores ``[n, classes]`` of integer images ``[n, C, y, x]``."""
    table = encoding.table()
    device = next(model.parameters()).device
    parts = []
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(images), BATCH):
            index = np.arange(start, min(start + BATCH, len(images)))
            parts.append(model(torch.from_numpy(assemble(images, index, table)).to(device).t()).cpu().numpy())
    model.train(was_training)
    return np.concatenate(parts)


def accuracy(model: nn.Module, split: Split, encoding: Encoding) -> float:
    """Fraction of a split's images whose highest score is at their label."""
    return float((scores(model, split.images, encoding).argmax(1) == split.labels).mean())
