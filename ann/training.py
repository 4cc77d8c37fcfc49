"""A training run from one epoch to the next: a new network whose topology evolves."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import DataSplits
from sparsespike.ann.evolution import evolve_model, initial_topologies, link_gradients
from sparsespike.ann.loop import Run, Stream
from sparsespike.ann.masks import takes_masks
from sparsespike.ann.models import MLPSpec
from sparsespike.ann.networks import build, spec_of
from sparsespike.ann.progress import EpochRecord
from sparsespike.ann.run_folder import Checkpoint, RunFolder
from sparsespike.ann.topology.science import ExploredLinks, explored_share


class Training(Run):
    """A training run between two epochs."""

    config: TrainConfig
    explored: list[ExploredLinks]
    """Of each sparse layer of an MLP; empty for other networks, and for a run whose checkpoint does not have it."""

    def __init__(self, config: TrainConfig, splits: DataSplits, files: RunFolder) -> None:
        self.spec = spec_of(config, splits.shape, len(splits.classes))
        super().__init__(config, splits, files, build(self.spec, masked=takes_masks(config.device, config.sparsity)))
        self.explored = []

    @classmethod
    def started(cls, config: TrainConfig, splits: DataSplits, files: RunFolder) -> Training:
        """A new run."""
        run = cls(config, splits, files)
        if run.spec.sparse:
            topologies = initial_topologies(config, run.spec, splits, Stream.TOPOLOGY.generator(config.seed))
            for layer, topology in zip(run.model.sparse_layers, topologies, strict=True):
                layer.reset_topology(topology)
            if isinstance(run.spec, MLPSpec):
                run.explored = [ExploredLinks.of(topology) for topology in topologies]
        run.model.reset_parameters(Stream.WEIGHTS.generator(config.seed))
        run.begin()
        return run

    @classmethod
    def restored(cls, config: TrainConfig, splits: DataSplits, files: RunFolder) -> Training:
        """The run as its last checkpoint left it."""
        run = cls(config, splits, files)
        run.take(files.load_checkpoint())
        return run

    def take(self, state: Checkpoint) -> None:
        super().take(state)
        layers = self.model.sparse_layers if "explored.0" in state.tensors else []
        self.explored = [
            ExploredLinks(layer.topology.shape, state.tensors[f"explored.{index}"].numpy()) for index, layer in enumerate(layers)
        ]

    def own_state(self) -> dict[str, Tensor]:
        return {f"explored.{index}": torch.from_numpy(layer.bits) for index, layer in enumerate(self.explored)}

    def itop(self) -> float | None:
        return explored_share(self.explored) if self.explored else None

    def new_optimizer(self) -> torch.optim.Optimizer:
        config = self.config
        return torch.optim.SGD(self.model.parameters(), config.lr, config.momentum, weight_decay=config.weight_decay, fused=True)

    def is_best(self, record: EpochRecord) -> bool:
        """Whether an epoch's model replaces the one kept: as sparse (a schedule reaches its goal late), and not less accurate."""
        kept = self.history[self.best]
        return (record.sparsity, record.validation_accuracy or 0.0) >= (kept.sparsity, kept.validation_accuracy or 0.0)

    def origin(self) -> dict[str, Any]:
        return {"training": self.config.to_dict()}

    def before_epoch(self, number: int) -> float:
        """Change the topology if it is time; the share of regrown links that had just been removed (0 without a change)."""
        evolution = self.config.evolution_config()
        progress = evolution.progress(number - 1, self.config.epochs) if self.spec.sparse and number > 0 else None
        if progress is None or self.settled:
            return 0.0
        gradients = None
        if evolution.regrowth == "gradient":
            with self.dropout(number):
                gradients = link_gradients(self.model, *next(self.batches(number)))
        generator = Stream.EVOLUTION.generator(self.config.seed, number)
        overlap, self.settled = evolve_model(
            self.model, self.optimizer, evolution, progress, generator, gradients, self.config.conv_mode
        )
        if self.explored:
            layers = zip(self.explored, self.model.sparse_layers, strict=True)
            self.explored = [explored.including(layer.topology) for explored, layer in layers]
        return overlap
