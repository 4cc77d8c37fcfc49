"""The JSON documents that the commands write, as far as a report reads them; a field too many is no error, a wrong one is."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sparsespike.energy.entry import Count, Size
from sparsespike.energy.report.account import Account

Share = Annotated[float, Field(ge=0, le=1)]


class MadeBy(BaseModel):
    """How a file was made: the command line, and the versions of what ran."""

    command: str
    versions: dict[str, str]


class TrainingSummary(BaseModel):
    """``summary.json`` of a training run; its other fields are shown as they are."""

    model_config = ConfigDict(extra="allow")

    best_epoch: int
    validation_accuracy: Share | None = None
    test_accuracy: Share | None = None
    config: dict[str, Any]


class PopulationRun(BaseModel):
    """Spikes of one population in one run, summed over images."""

    population: str
    neurons: Size
    positive_spikes: Count
    negative_spikes: Count
    events_by_step: list[Count]


class Run(BaseModel):
    """What one backend did."""

    backend: str
    version: str
    dtype: str
    graph_digest: str
    images: Size
    steps: Size
    accuracy_by_step: list[Share]
    populations: list[PopulationRun]
    wall_seconds: dict[str, float]

    @model_validator(mode="after")
    def _fits(self) -> Run:
        if len(self.accuracy_by_step) != self.steps:
            raise ValueError(f"accuracy_by_step has {len(self.accuracy_by_step)} values, expected {self.steps}, one a step")
        return self


class RasterPopulation(BaseModel):
    """Spike times of evenly spread neurons of one population: for each neuron shown, the steps in which it fired."""

    population: str
    neurons: Size
    shown: list[Count]
    positive: list[list[Count]]
    negative: list[list[Count]]

    @model_validator(mode="after")
    def _fits(self) -> RasterPopulation:
        if not len(self.positive) == len(self.negative) == len(self.shown):
            raise ValueError(
                f"spike times of {len(self.positive)} and {len(self.negative)} neurons, expected {len(self.shown)}, those shown"
            )
        return self


class RasterImage(BaseModel):
    """One image and the spikes it caused."""

    label: int
    predicted: int
    shape: list[Size]
    values: list[int]
    value_range: tuple[int, int]
    populations: list[RasterPopulation]

    @model_validator(mode="after")
    def _fits(self) -> RasterImage:
        size = 1
        for length in self.shape:
            size *= length
        if size != len(self.values):
            raise ValueError(f"shape {self.shape} takes {size} values, found {len(self.values)}")
        return self


class Rasters(BaseModel):
    """Rasters of a few images."""

    backend: str
    steps: Size
    images: list[RasterImage]

    @model_validator(mode="after")
    def _fits(self) -> Rasters:
        shown = (population for image in self.images for population in image.populations)
        last = max((time for each in shown for times in (*each.positive, *each.negative) for time in times), default=0)
        if last >= self.steps:
            raise ValueError(f"a spike at step {last}, expected 0 to {self.steps - 1}")
        return self


class Difference(BaseModel):
    """How far spike counts of one layer are from the quantised ANN's levels at T = L."""

    name: str
    fraction: float
    mean: float
    max: int


class Results(BaseModel):
    """A results file of ``simulate --out`` or of ``demo``."""

    runs: Annotated[list[Run], Field(min_length=1)]
    account: Account | None = None
    rasters: Rasters | None = None
    provenance: dict[str, Any] = {}
    made_by: MadeBy | None = None
    ann_test_accuracy: Share | None = None
    snn_test_accuracy_by_step: list[Share] | None = None
    differences_from_quantised_ann: list[Difference] = []


class PowerLaw(BaseModel):
    """A power law fitted to the tail of a degree distribution."""

    exponent: float
    minimum: int
    tail: int
    distance: float


class Degrees(BaseModel):
    """Degrees of one side of a layer."""

    minimum: int
    median: float
    maximum: int
    linked: int
    nodes: int
    power_law: PowerLaw | None
    verdict: str


class SmallWorld(BaseModel):
    """Clustering and path length beside those of a random layer."""

    clustering: float
    random_clustering: float
    path_length: float | None
    random_path_length: float | None
    sigma: float | None


class Layer(BaseModel):
    """One sparse layer in one state."""

    shape: tuple[int, int]
    links: int
    density: float
    in_degree: Degrees
    out_degree: Degrees
    active_outputs: Share
    active_inputs: Share
    small_world: SmallWorld | None


class TopologyReport(BaseModel):
    """``topology.json``: what evolution did to the links."""

    epoch: int
    active_neurons: dict[str, Share]
    itop: Share | None
    overlap_with_initial: list[float] | None
    layers: list[dict[str, Layer]]
    made_by: MadeBy | None = None


class Stage(BaseModel):
    """One stage of a conversion and its accuracy."""

    stage: str
    before: str | None
    accuracy: Share


class DiagnosedLayer(BaseModel):
    """One layer of the graph beside its layer of the ANN."""

    name: str
    neurons: int
    activation: float
    correlation: float | None
    error: float
    own_error: float
    causes: dict[str, float]
    dead: int | None
    saturated: int | None
    every_step: float | None
    accuracy: Share | None


class Diagnosis(BaseModel):
    """``diagnosis.json``."""

    method: str
    bits: int | None = None
    steps: int
    images: int
    stages: list[Stage]
    layers: list[DiagnosedLayer]
    sentence: str
    made_by: MadeBy | None = None
