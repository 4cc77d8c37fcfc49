"""64 images side by side, one population after the other, each for all steps: the course of a block, around the compiled kernel.

In local time a population needs nothing but what the populations before it fired, so one projection's weights stay in the cache
for all steps, and the activity of a population is known before anything is propagated: it decides, for each block and
projection, between gathering (every synapse, 64 images at a time) and scattering (every event).
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sparsespike.backends.native.activity import Activity, Lanes, Sums, Words
from sparsespike.backends.native.lanes import CURRENTS, GATHER_NS, ROOM_EVENTS, SCATTER_NS, SCATTER_ROOM, Layer, Way
from sparsespike.backends.native.library import LANES, STEPS, Arrival, Library, Populace, Room, address
from sparsespike.export.bounds import emitted_range
from sparsespike.export.graph import Population, SpikingGraph

_PRODUCTS = [(np.dtype(np.int16), np.dtype(np.int32)), (np.dtype(np.int32),) * 2, (np.dtype(np.int64),) * 2]
"""Types of values and currents that the kernel multiplies and adds."""
_KINDS = {"if": 0, "signed_if": 1, "readout": 2, "lif": 3}


@dataclass(frozen=True, eq=False)
class Course:
    """How every block of a run is run."""

    library: Library
    graph: SpikingGraph
    layers: tuple[Layer, ...]
    steps: int
    _local: threading.local = field(default_factory=threading.local)

    @property
    def _room(self) -> Room:
        """Work space of this thread."""
        if not hasattr(self._local, "room"):
            self._local.room = Room()
        room: Room = self._local.room
        return room

    def run(self, values: NDArray[np.int64], consume: Callable[[Population, Activity], None]) -> Lanes:
        """Run a block of up to 64 images.

        Parameters
        ----------
        values : int64 array, shape (images, N)
        consume : callable
            Called with the input, then with every population that fires, and its activity, which is not kept.

        Returns
        -------
        int64 array, shape (steps, classes, 64)
            Membranes of the readout; lanes beyond the block's images hold anything. Valid until this thread's next block.
        """
        inputs = self._enter(values, consume)
        fired: dict[str, Activity] = {}
        waiting = {name: len(self.graph.out_of(name)) for name in self.graph.spiking}
        readout: Lanes
        for layer in self.layers:
            name = layer.population.name
            if layer.population.kind == "readout":
                readout = self._read(layer, inputs, fired)
            else:
                fire = self._encode if self.graph.slots is not None else self._fire
                fired[name] = fire(layer, inputs, fired, (1 << len(values)) - 1)
                consume(layer.population, fired[name])
            for pre in (way.key[0] for way in layer.ways):
                waiting[pre] -= 1
            fired = {pre: activity for pre, activity in fired.items() if waiting[pre]}
        return readout

    def _enter(self, values: NDArray[np.int64], consume: Callable[[Population, Activity], None]) -> Lanes:
        """Images side by side; what the input population emits is consumed."""
        population = self.graph.input
        signs = 1 + (emitted_range(population)[0] < 0)
        counts = self._counts(population, signs)
        inputs = self._room.empty("inputs", (population.size, LANES), self._input_type)
        self.library.functions.simd_enter(
            self.library.isa,
            int(self._input_type is np.int32),
            population.size,
            len(values),
            self.emissions,
            *(address(each) for each in (values, inputs, counts[0], counts[1] if signs == 2 else None)),
        )
        consume(population, self.sums.activity(population, (), (), counts[0], counts[1] if signs == 2 else None))
        return inputs

    @cached_property
    def _input_type(self) -> type[np.int16] | type[np.int32]:
        """As narrow as the input's values allow."""
        return np.int16 if max(map(abs, emitted_range(self.graph.input))) < 2**15 else np.int32

    @cached_property
    def sums(self) -> Sums:
        """How what is fired is summed up."""
        return Sums(self.library, self.graph, self.steps)

    @property
    def emissions(self) -> int:
        """Steps in which the input emits its values."""
        return self.steps if self.graph.input.bias_mode == "every_step" else 1

    def _begin(self, layer: Layer, inputs: Lanes) -> tuple[Lanes, Lanes | None, Lanes | None]:
        """Membranes before the first step, with what comes in it alone; what comes in every step; currents of kind ``lif``.

        Each is of shape (N, 64) or None. Of kind ``lif`` membranes and currents are held as they are once they have decayed, and
        what is injected joins the currents.
        """
        population = layer.population
        flow = self._room.zeros("flow", (population.size, LANES), layer.start.dtype) if layer.decay_voltage is not None else None
        once = self._spread(layer.start, "membranes")
        repeated = self.graph.input.bias_mode == "every_step" and bool(layer.injected)
        constant = repeated or layer.always.any()
        always = self._spread(layer.always, "constant") if constant else once
        for way in layer.injected:
            self._add_values(way, inputs, always if repeated else once if flow is None else flow)
        return once, always if constant else None, flow

    def _spread(self, numbers: NDArray[Any], name: str) -> Lanes:
        """One number a neuron, the same for all images."""
        lanes = self._room.empty(name, (len(numbers), LANES), numbers.dtype)
        wide = int(numbers.dtype == np.int64)
        self.library.functions.simd_spread(self.library.isa, wide, len(numbers), address(numbers), address(lanes))
        return lanes

    def _add_values(self, way: Way, values: Lanes, current: Lanes) -> None:
        """Add weights times values of shape (n_pre, 64) to a current of shape (n_post, 64)."""
        arrival, rooms = way.arrival()
        if (values.dtype, current.dtype) not in _PRODUCTS:
            values = values.astype(current.dtype)
        types = _PRODUCTS.index((values.dtype, current.dtype))
        self.library.functions.simd_values(
            self.library.isa, types, len(current), ctypes.byref(arrival), address(values), address(current)
        )
        del rooms  # held until here

    def _fire(self, layer: Layer, inputs: Lanes, fired: dict[str, Activity], lanes: int) -> Activity:
        """All steps of a population of kind ``if``, ``signed_if`` or ``lif``."""
        signs = 1 + (layer.population.kind == "signed_if")
        planes, counts = self._planes(layer.population, signs), self._counts(layer.population, signs)
        self._integrate(layer, inputs, fired, lanes, planes, counts, None)
        if signs == 1:
            return self.sums.activity(layer.population, (planes[0],), (), counts[0], None)
        return self.sums.activity(layer.population, (planes[0],), (planes[1],) if counts[1].any() else (), counts[0], counts[1])

    def _planes(self, population: Population, number: int) -> list[Words]:
        """Room for what a population fires."""
        shape = len(self.sums.tiles), population.size, STEPS
        return [self._room.empty(f"words {plane} {population.name}", shape, np.uint64) for plane in range(number)]

    def _counts(self, population: Population, number: int) -> list[NDArray[np.int32]]:
        """Room for spike counts."""
        return [self._room.empty(f"counts {sign}", (population.size, LANES), np.int32) for sign in range(number)]

    def _read(self, layer: Layer, inputs: Lanes, fired: dict[str, Activity]) -> Lanes:
        """Membranes of the readout in all steps."""
        readout: Lanes = self._room.zeros("readout", (len(self.sums.tiles) * STEPS, layer.population.size, LANES), np.int64)
        if self.graph.slots is not None:
            self._read_coded(layer, inputs, fired, readout)
        else:
            self._integrate(layer, inputs, fired, 0, [], [], readout)
        return readout[: self.steps]

    def _integrate(
        self,
        layer: Layer,
        inputs: Lanes,
        fired: dict[str, Activity],
        lanes: int,
        planes: Sequence[Words],
        counts: Sequence[NDArray[np.int32]],
        readout: Lanes | None,
    ) -> None:
        """All steps of a population, tile after tile, into its planes and counts, or into ``readout``."""
        population = layer.population
        membranes, constant, flow = self._begin(layer, inputs)
        net = self._room.zeros("net", (population.size, LANES), np.int32) if population.kind == "signed_if" else None
        gathered, scattered = self._choose(layer, fired)
        arrivals, rooms = (Arrival * len(gathered))(), []
        for k, way in enumerate(gathered):
            arrivals[k], room = way.arrival()
            rooms.append(room)  # held until the last tile
        # What is scattered lies ready for one tile at a time; without it the kernel goes through all tiles in one call.
        for tile, first in enumerate(self.sums.tiles if scattered else (0,)):
            for k, way in enumerate(gathered):
                positive, negative = fired[way.key[0]].positive, fired[way.key[0]].negative
                arrivals[k].positive = address(positive[0][tile])
                arrivals[k].negative = address(negative[0][tile]) if negative else None
            arrived = self._scatter(layer, scattered, fired, tile) if scattered else None
            populace = Populace(
                kind=_KINDS[population.kind],
                zero_reset=population.reset == "zero",
                neurons=population.size,
                steps=min(STEPS, self.steps - first) if scattered else self.steps,
                fresh=not first,
                lanes=lanes,
                membranes=address(membranes),
                constant=address(constant),
                threshold=address(layer.threshold),
                threshold_neg=address(layer.threshold_neg),
                scattered=address(arrived),
                net=address(net),
                flow=address(flow),
                bias=address(layer.bias),
                decay_current=address(layer.decay_current),
                decay_voltage=address(layer.decay_voltage),
                positive=address(planes[0][tile]) if planes else None,
                negative=address(planes[1][tile]) if len(planes) > 1 else None,
                positive_counts=address(counts[0]) if counts else None,
                negative_counts=address(counts[1]) if len(counts) > 1 else None,
                readout=address(readout[first:]) if readout is not None else None,
            )
            self.library.functions.simd_population(
                self.library.isa, layer.currents, layer.membranes, ctypes.byref(populace), arrivals, len(arrivals)
            )

    def _choose(self, layer: Layer, fired: dict[str, Activity]) -> tuple[list[Way], list[Way]]:
        """Projections to gather, and those that carry so few events that scattering is faster."""
        gathered: list[Way] = []
        scattered: list[Way] = []
        room = STEPS * layer.population.size * LANES * np.dtype(CURRENTS[layer.currents]).itemsize
        for way in layer.ways:
            activity = fired[way.key[0]]
            signs = 1 + len(activity.negative)
            events = int(activity.events[way.key].sum())
            gathering = GATHER_NS[self.library.isa][layer.currents] * way.nnz * self.steps * signs
            scattering = SCATTER_NS[layer.currents] * (events + ROOM_EVENTS * layer.population.size * self.steps)
            (scattered if room <= SCATTER_ROOM and scattering < gathering else gathered).append(way)
        return gathered, scattered

    def _scatter(self, layer: Layer, ways: list[Way], fired: dict[str, Activity], tile: int) -> NDArray[Any]:
        """What the events of one tile carry, summed up, shape (8, N, 64)."""
        arrived = self._room.zeros("arrived", (STEPS, layer.population.size, LANES), CURRENTS[layer.currents])
        for way in ways:
            departure, rooms = way.departure()
            activity = fired[way.key[0]]
            for negate, planes in enumerate((activity.positive, activity.negative)):
                for plane in planes:
                    self.library.functions.simd_scatter(
                        layer.currents, ctypes.byref(departure), address(plane[tile]), negate, address(arrived)
                    )
            del rooms  # held until here
        return arrived

    def _encode(self, layer: Layer, inputs: Lanes, fired: dict[str, Activity], lanes: int) -> Activity:
        """The windows of a population of kind ``aec``: what all slots carried is decoded and summed up, then encoded."""
        population = layer.population
        membranes, *_ = self._begin(layer, inputs)
        for way in layer.ways:
            self._add_values(way, self._decode(way.key[0], fired[way.key[0]], range(self.steps)), membranes)
        planes, (counts,) = self._planes(population, 2), self._counts(population, 1)
        for plane in planes:
            plane[-1] = 0  # of steps that the last tile does not have
        thresholds = [population.tables[f"{spike}_threshold"] for spike in ("primary", "compensation")]
        self.library.functions.simd_encode(
            self.library.isa,
            population.size,
            self.steps,
            lanes,
            *(address(table) for table in thresholds),
            address(membranes),
            *(address(plane) for plane in planes),
            address(counts),
        )
        return self.sums.activity(population, tuple(planes), (), counts, None)

    def _read_coded(self, layer: Layer, inputs: Lanes, fired: dict[str, Activity], readout: Lanes) -> None:
        """The readout of an AEC graph: one slot after the other."""
        v, *_ = self._begin(layer, inputs)
        for slot in range(self.steps):
            for way in layer.ways:
                self._add_values(way, self._decode(way.key[0], fired[way.key[0]], range(slot, slot + 1)), v)
            readout[slot] = v

    def _decode(self, name: str, activity: Activity, slots: range) -> Lanes:
        """Values that a population of kind ``aec`` sends in some slots, shape (N, 64)."""
        tables = self.graph.population(name).tables
        values: Lanes = self._room.zeros("values", (self.graph.population(name).size, LANES), np.int64)
        for spike, plane in zip(("primary", "compensation"), activity.positive, strict=True):
            payloads = np.zeros(len(plane) * STEPS, np.int64)
            payloads[slots.start : slots.stop] = tables[f"{spike}_payload"][slots.start : slots.stop]
            for tile in range(slots.start // STEPS, (slots.stop - 1) // STEPS + 1):
                self.library.functions.simd_decode(
                    self.library.isa,
                    len(values),
                    address(plane[tile]),
                    STEPS,
                    address(payloads[tile * STEPS :]),
                    address(values),
                )
        return values
