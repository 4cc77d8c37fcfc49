"""What a training run tells while it works. Subclass, override what you want to show."""

from __future__ import annotations

from dataclasses import dataclass

from sparsespike.ann.config import RunConfig


@dataclass(frozen=True)
class EpochRecord:
    """One row of ``metrics.csv``.

    Attributes
    ----------
    epoch : int
        Counted from 1.
    loss, train_accuracy : float
        Means over the epoch's batches, as they were trained on.
    validation_accuracy : float
        After the epoch; none without a validation split.
    sparsity : float
        Fraction of absent links over all layers that hold a topology, 0 for a dense network.
    anp : float
        Active neuron percolation: fraction of neurons, from inputs to the last hidden layer, that take part.
    overlap : float
        Share of the links added before the epoch that had just been removed.
    lr : float
    seconds : float
        The whole epoch, change of topology and evaluation included.
    update_seconds : float
        The change of topology before the epoch; 0 if there was none.
    itop : float, optional
        In-time over-parametrisation: fraction of the possible links of all layers with a topology that were active in this
        epoch or an earlier one. None for dense and convolutional networks, and for runs begun before it was recorded.
    """

    epoch: int
    loss: float
    train_accuracy: float
    validation_accuracy: float | None
    sparsity: float
    anp: float
    overlap: float
    lr: float
    seconds: float
    update_seconds: float
    itop: float | None = None


class TrainProgress:
    """Callbacks of a training run; these do nothing."""

    def on_data(self, what: str, done: int, total: int) -> None:
        """``done`` of ``total`` items of some preparation, such as decoding images, are ready."""

    def on_start(self, config: RunConfig, steps: int, epoch: int) -> None:
        """Training starts: ``steps`` a whole epoch, ``epoch`` epochs already complete."""

    def on_step(self, step: int, loss: float) -> None:
        """Step ``step`` of the running epoch, counted from 1, had this loss."""

    def on_epoch(self, record: EpochRecord) -> None:
        """An epoch is complete and its checkpoint written."""
