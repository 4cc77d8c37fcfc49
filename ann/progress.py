"""What a training run tells while it works. Subclass, override what you want to show."""

from __future__ import annotations

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.run_folder import EpochRecord


class TrainProgress:
    """Callbacks of a training run; these do nothing."""

    def on_data(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` items of some preparation, such as decoding images, are ready."""

    def on_start(self, config: TrainConfig, steps: int, epoch: int) -> None:
        """Training starts: ``steps`` a whole epoch, ``epoch`` epochs already complete."""

    def on_step(self, step: int, loss: float) -> None:
        """Step ``step`` of the running epoch, counted from 1, had this loss."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch is complete and its checkpoint written."""
