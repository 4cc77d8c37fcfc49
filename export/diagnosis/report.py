"""What a diagnosis found, and the one sentence that it ends in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from sparsespike.export.diagnosis.layers import CAUSES, LayerDiagnosis
from sparsespike.export.diagnosis.stages import Stage


@dataclass(frozen=True, kw_only=True)
class Diagnosis:
    """A graph beside the model that it came from, on some images.

    Attributes
    ----------
    method : str
    bits : int or None
        Of the graph, if it says so.
    steps, images : int
    stages : tuple of Stage
        From the ANN to integers of ever fewer bits, the graph itself last if it is none of these.
    graph_stage : str
        The stage that is the graph itself.
    layers : tuple of LayerDiagnosis
        From the input to the readout.
    """

    method: str
    bits: int | None
    steps: int
    images: int
    stages: tuple[Stage, ...]
    graph_stage: str
    layers: tuple[LayerDiagnosis, ...]

    def stage(self, name: str) -> Stage:
        """The stage of a name."""
        return next(stage for stage in self.stages if stage.name == name)

    def loss(self, stage: Stage) -> float | None:
        """Accuracy that a stage loses against the one before it, 0..1; None for the first stage."""
        return None if stage.before is None else self.stage(stage.before).accuracy - stage.accuracy

    @property
    def worst_layer(self) -> LayerDiagnosis:
        """The layer with the largest own error, in units of its mean activation."""
        return max(self.layers, key=lambda layer: layer.relative)

    @property
    def path(self) -> tuple[Stage, ...]:
        """The stages that lead from the ANN to the graph; one of fewer bits is not among them."""
        names: list[str] = []
        name: str | None = self.graph_stage
        while name is not None:
            names.append(name)
            name = self.stage(name).before
        return tuple(self.stage(name) for name in reversed(names))

    @property
    def worst_stage(self) -> Stage | None:
        """The stage on the path to the graph that loses most accuracy; None if none loses any."""
        losses = [(stage, loss) for stage in self.path if (loss := self.loss(stage)) is not None]
        stage, loss = max(losses, key=lambda pair: pair[1])
        return stage if loss > 0 else None

    def sentence(self) -> str:
        """Where the accuracy went: the worst layer and the worst stage, with their figures."""
        layer, stage = self.worst_layer, self.worst_stage
        share = f"{100 * layer.relative:.1f} % of its mean activation" if layer.activation else "where its ANN layer is silent"
        layer_text = (
            f"Worst layer: {layer.name}, which misses what its ANN layer gives for the same input by {layer.own_error:.3g} on "
            f"average ({share}), mostly by {CAUSES[layer.cause].format(steps=self.steps)}; "
        )
        if stage is None or stage.before is None:
            return layer_text + f"no stage loses accuracy: {self._ends()}."
        loss = 100 * (self.loss(stage) or 0.0)
        before = self.stage(stage.before)
        return (
            layer_text + f"worst stage: {stage.name}, which loses {loss:.2f} points ({100 * stage.accuracy:.2f} % after "
            f"{100 * before.accuracy:.2f} % for {before.name}); {self._ends()}."
        )

    def _ends(self) -> str:
        ann, snn = self.stages[0].accuracy, self.stage(self.graph_stage).accuracy
        return f"ANN {100 * ann:.2f} %, this graph {100 * snn:.2f} % at T = {self.steps}, on {self.images:,} images"

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        worst = self.worst_stage
        return {
            "method": self.method,
            "bits": self.bits,
            "steps": self.steps,
            "images": self.images,
            "stages": [stage.to_dict() for stage in self.stages],
            "graph_stage": self.graph_stage,
            "layers": [layer.to_dict() for layer in self.layers],
            "worst_layer": self.worst_layer.name,
            "worst_cause": self.worst_layer.cause,
            "worst_stage": None if worst is None else worst.name,
            "sentence": self.sentence(),
        }
