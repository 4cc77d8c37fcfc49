"""The compiled kernel: event-driven, in local time, one image after the other.

A population's whole raster of T steps is computed before the next population's. That is exact (in local time a population
needs nothing but the populations before it) and keeps one projection's weights in the cache for T steps. Each step has two
phases: all neurons are updated and those that fire are listed, then each spike adds its row of weights to the next currents.

All in one file, because numba's cache notices a change in the file of the compiled function alone, not in those it calls.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import int64, njit, types
from numba.extending import intrinsic
from numpy.typing import NDArray

from sparsespike.backends.native.arrays import WORD, Outputs, Scratch
from sparsespike.backends.native.plan import AEC, INPUT, LIF, READOUT, SIGNED_IF, Plan
from sparsespike.export.population import DECAY_UNIT


def _count_trailing_zeros(typing_context: Any, word: Any) -> Any:
    """Code of a function uint64 -> uint64: the number of zero bits below the lowest set bit; the word must not be zero."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.cttz(arguments[0], context.get_constant(types.boolean, True))

    return types.uint64(types.uint64), generate


_trailing_zeros: Any = intrinsic(_count_trailing_zeros)


@njit(cache=True, nogil=True)
def simulate(
    plan: Plan,
    values: NDArray[np.int64],
    inject: bool,
    limit: int,
    record: NDArray[np.int64],
    scratch: Scratch,
    out: Outputs,
) -> None:
    """Run images of shape (B, N).

    Parameters
    ----------
    plan : Plan
    values : int64 array, shape (B, N)
    inject : bool
        Whether the input's current is computed once an image and added in each step, without counting events.
    limit : int
        Largest membrane allowed (and twice the largest current of kind ``lif``); 0 where the plan's number type is proven wide
        enough. An image that leaves it is ended.
    record : int64 array, shape (P,)
        Where a population begins in ``out.rasters``, or -1.
    scratch : Scratch
    out : Outputs
    """
    for image in range(len(values)):
        end: Any = int64(0)  # not a literal: numba would compile what takes it twice
        for p in range(len(plan.kind)):
            if plan.kind[p] == INPUT:
                end = _emit_input(plan, p, image, values[image], scratch, out, end)
            elif plan.kind[p] == AEC:
                end = _run_coded(plan, p, image, inject, record[p], scratch, out, end)
            else:
                end = _run_population(plan, p, image, inject, limit, record[p], scratch, out, end)
            if end < 0:
                break


@njit(cache=True, nogil=True)
def _emit_input(plan: Plan, p: int, image: int, values: NDArray[np.int64], scratch: Scratch, out: Outputs, end: int) -> int:
    """List the input's values that are not zero, once for all steps; returns where the list ends."""
    begin = end
    steps = scratch.start.shape[1]
    emissions = steps if plan.every_step[p] else 1
    positive = negative = 0
    for j in range(len(values)):
        if values[j] != 0:
            scratch.source[end] = j
            scratch.payload[end] = values[j]
            end += 1
        if values[j] > 0:
            positive += 1
            out.positive[image, plan.offset[p] + j] = emissions
        elif values[j] < 0:
            negative += 1
            out.negative[image, plan.offset[p] + j] = emissions
    for t in range(steps):
        scratch.start[p, t] = begin
        scratch.stop[p, t] = end if t < emissions else begin
        if t < emissions:
            out.positive_by_step[image, p, t] = positive
            out.negative_by_step[image, p, t] = negative
    return end


@njit(cache=True, nogil=True)
def _run_population(
    plan: Plan, p: int, image: int, inject: bool, limit: int, record: int, scratch: Scratch, out: Outputs, end: int
) -> int:
    """All steps of one population; returns where its events end, or -1 if a membrane left ``limit``."""
    low, high = plan.offset[p], plan.offset[p + 1]
    size = high - low
    threshold, threshold_neg = plan.threshold[low:high], plan.threshold_neg[low:high]
    v, u, drive, constant = scratch.v[:size], scratch.u[:size], scratch.drive[:size], scratch.constant[:size]
    net_count, fired = scratch.net_count[:size], scratch.fired[: (size + WORD - 1) // WORD * WORD]
    for j in range(size):
        v[j] = plan.v_init[low + j]
        u[j] = net_count[j] = 0
    for j in range(size, len(fired)):
        fired[j] = 0
    _begin_drive(plan, p, inject, scratch)
    for t in range(scratch.start.shape[1]):
        for r in range(plan.into[p], plan.into[p + 1]):
            if not (inject and plan.kind[plan.pre[r]] == INPUT):
                out.events[image, r, t] = _propagate(plan, r, t, scratch, drive)
        if plan.kind[p] == LIF:
            _leak(v, u, drive, plan.decay_current[low:high], plan.decay_voltage[low:high])
            if limit > 0:
                for j in range(size):
                    if abs(u[j]) > limit // 2:
                        out.overflow[image, 0], out.overflow[image, 1], out.overflow[image, 2] = p + 1, t, u[j]
                        return -1
            if t == 0 or plan.every_step[p]:
                for j in range(size):
                    drive[j] += plan.bias[low + j]
        if limit > 0:
            for j in range(size):
                if abs(v[j] + drive[j]) > limit:
                    out.overflow[image, 0], out.overflow[image, 1], out.overflow[image, 2] = p + 1, t, v[j] + drive[j]
                    return -1
        if plan.kind[p] == READOUT:
            for j in range(size):
                v[j] += drive[j]
                drive[j] = constant[j]
                out.readout[image, t, j] = v[j]
            continue
        if plan.kind[p] == SIGNED_IF:
            _fire_signed(v, drive, constant, threshold, threshold_neg, plan.zero_reset[p], net_count, fired)
        else:
            _fire(v, drive, constant, threshold, plan.zero_reset[p], fired)
        scratch.start[p, t] = end
        end = _list_spikes(fired, end, scratch, out.positive[image, low:high], out.negative[image, low:high])
        scratch.stop[p, t] = end
        for event in range(scratch.start[p, t], end):
            if scratch.payload[event] > 0:
                out.positive_by_step[image, p, t] += 1
            else:
                out.negative_by_step[image, p, t] += 1
        if record >= 0:
            for j in range(size):
                out.rasters[image, t, record + j] = fired[j]
    return end


@njit(cache=True, nogil=True)
def _run_coded(plan: Plan, p: int, image: int, inject: bool, record: int, scratch: Scratch, out: Outputs, end: int) -> int:
    """A population of kind ``aec``: its decode window, then its encode window; returns where its events end.

    No check of the range: such graphs are proven to stay below 2^53 before they are run.
    """
    low, high = plan.offset[p], plan.offset[p + 1]
    size = high - low
    v, drive, stage = scratch.v[:size], scratch.drive[:size], scratch.net_count[:size]
    fired = scratch.fired[: (size + WORD - 1) // WORD * WORD]
    slots = scratch.start.shape[1]
    _begin_drive(plan, p, inject, scratch)
    for r in range(plan.into[p], plan.into[p + 1]):
        if not (inject and plan.kind[plan.pre[r]] == INPUT):
            for t in range(slots):
                out.events[image, r, t] = _propagate(plan, r, t, scratch, drive)
    for j in range(size):
        v[j] = plan.v_init[low + j] + drive[j]
        stage[j] = 0
    for j in range(size, len(fired)):
        fired[j] = 0
    for t in range(slots):
        scratch.start[p, t] = end
        _fire_coded(v, stage, plan.tables[p, 0, t], plan.tables[p, 2, t], fired)
        end = _list_coded(fired, plan.tables[p, 1, t], plan.tables[p, 3, t], end, scratch, out.positive[image, low:high])
        scratch.stop[p, t] = end
        out.positive_by_step[image, p, t] = end - scratch.start[p, t]
        if record >= 0:
            for j in range(size):
                out.rasters[image, t, record + j] = fired[j]
    return end


@njit(cache=True, nogil=True)
def _begin_drive(plan: Plan, p: int, inject: bool, scratch: Scratch) -> None:
    """What drives each neuron as a constant in every step (bias, injected current), and in the first step.

    Of kind ``lif`` only what is injected: its bias goes past the current.
    """
    first: Any = int64(0)  # not a literal: numba would compile what takes it twice
    low, high = plan.offset[p], plan.offset[p + 1]
    drive, constant = scratch.drive[: high - low], scratch.constant[: high - low]
    for j in range(high - low):
        drive[j] = 0
    if inject:
        for r in range(plan.into[p], plan.into[p + 1]):
            if plan.kind[plan.pre[r]] == INPUT:
                _propagate(plan, r, first, scratch, drive)
    repeated = plan.every_step[0]  # the input is the first population
    for j in range(high - low):
        bias = 0 if plan.kind[p] == LIF else plan.bias[low + j]
        constant[j] = (drive[j] if repeated else 0) + (bias if plan.every_step[p] else 0)
        drive[j] += bias


@njit(cache=True, nogil=True)
def _propagate(plan: Plan, r: int, t: int, scratch: Scratch, drive: NDArray[np.int64]) -> int:
    """Add to ``drive`` what projection r carries from step t; returns the weights added, counted where they are gathered."""
    begin, end = scratch.start[plan.pre[r], t], scratch.stop[plan.pre[r], t]
    source, payload = scratch.source[begin:end], scratch.payload[begin:end]
    if plan.geometry[r, 0] > 0:
        return _scatter_kernel(
            source, payload, plan.geometry[r], plan.first_row[r], plan.pointers, plan.indices, plan.values, drive
        )
    return _scatter_rows(source, payload, plan.first_row[r], plan.pointers, plan.indices, plan.values, drive)


@njit(cache=True, nogil=True)
def _scatter_rows(
    source: NDArray[np.int32],
    payload: NDArray[np.int32],
    first_row: int,
    pointers: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: NDArray[np.int32],
    drive: NDArray[np.int64],
) -> int:
    """Add one row of weights times its payload for each event; returns the weights added."""
    added = 0
    for event in range(len(source)):
        row, factor = first_row + source[event], payload[event]
        begin, end = pointers[row], pointers[row + 1]
        added += end - begin
        if factor == 1:
            for k in range(begin, end):
                drive[indices[k]] += values[k]
        else:
            for k in range(begin, end):
                drive[indices[k]] += np.int64(values[k]) * factor
    return added


@njit(cache=True, nogil=True)
def _scatter_kernel(
    source: NDArray[np.int32],
    payload: NDArray[np.int32],
    geometry: NDArray[np.int64],
    first_row: int,
    pointers: NDArray[np.int64],
    indices: NDArray[np.uint32],
    values: NDArray[np.int32],
    drive: NDArray[np.int64],
) -> int:
    """Add the weights that a convolution gives to each event's neuron, borders excluded; returns the weights added."""
    in_y, in_x, kernel_y, kernel_x, stride_y, stride_x, pad_y, pad_x, dilation_y, dilation_x, out_y, out_x = geometry
    added = 0
    for event in range(len(source)):
        factor = np.int64(payload[event])
        channel, position = divmod(np.int64(source[event]), in_y * in_x)
        y, x = divmod(position, in_x)
        for dy in range(kernel_y):
            to_y, off_y = divmod(y + pad_y - dy * dilation_y, stride_y)
            if off_y != 0 or to_y < 0 or to_y >= out_y:
                continue
            for dx in range(kernel_x):
                to_x, off_x = divmod(x + pad_x - dx * dilation_x, stride_x)
                if off_x != 0 or to_x < 0 or to_x >= out_x:
                    continue
                row = first_row + (channel * kernel_y + dy) * kernel_x + dx
                begin, end = pointers[row], pointers[row + 1]
                added += end - begin
                for k in range(begin, end):
                    drive[indices[k] + to_y * out_x + to_x] += values[k] * factor
    return added


@njit(cache=True, nogil=True)
def _leak(
    v: NDArray[np.int64],
    u: NDArray[np.int64],
    drive: NDArray[np.int64],
    decay_current: NDArray[np.int64],
    decay_voltage: NDArray[np.int64],
) -> None:
    """Let currents and membranes of kind ``lif`` decay; what arrives joins the current, which then drives the membrane."""
    for j in range(len(v)):
        u[j] = _decayed(u[j], decay_current[j]) + drive[j]
        v[j] = _decayed(v[j], decay_voltage[j])
        drive[j] = u[j]


@njit(cache=True, nogil=True)
def _decayed(value: int, decay: int) -> int:
    """As ``population.decayed``, of one number."""
    size, keep = abs(value), DECAY_UNIT - decay
    left = size // DECAY_UNIT * keep + size % DECAY_UNIT * keep // DECAY_UNIT
    return -left if value < 0 else left


@njit(cache=True, nogil=True)
def _fire(
    v: NDArray[np.int64],
    drive: NDArray[np.int64],
    constant: NDArray[np.int64],
    threshold: NDArray[np.int64],
    zero: bool,
    fired: NDArray[np.int8],
) -> None:
    """Update neurons of kind ``if`` and ``lif``; without branches, so that the compiler makes it SIMD."""
    for j in range(len(v)):
        x = v[j] + drive[j]
        drive[j] = constant[j]
        spike = x >= threshold[j]
        kept = 0 if zero else x - threshold[j]
        v[j] = kept if spike else x
        fired[j] = spike


@njit(cache=True, nogil=True)
def _fire_signed(
    v: NDArray[np.int64],
    drive: NDArray[np.int64],
    constant: NDArray[np.int64],
    threshold: NDArray[np.int64],
    threshold_neg: NDArray[np.int64],
    zero: bool,
    net_count: NDArray[np.int32],
    fired: NDArray[np.int8],
) -> None:
    """Update neurons of kind ``signed_if``: a -1 spike takes back an earlier +1, so it needs a positive net count."""
    for j in range(len(v)):
        x = v[j] + drive[j]
        drive[j] = constant[j]
        positive = x >= threshold[j]
        negative = x <= -threshold_neg[j] and net_count[j] > 0
        kept = 0 if zero else x - threshold[j]
        v[j] = kept if positive else (x + threshold_neg[j] if negative else x)
        fired[j] = np.int8(positive) - np.int8(negative)
        net_count[j] += fired[j]


@njit(cache=True, nogil=True)
def _list_spikes(
    fired: NDArray[np.int8], end: int, scratch: Scratch, positive: NDArray[np.int64], negative: NDArray[np.int64]
) -> int:
    """Append the neurons that fired, in order, and count their spikes; returns where the list ends.

    Eight flags are looked at as one word, and the lowest set bit of the word tells the next neuron that fired: the cost
    follows the spikes, not the neurons.
    """
    words = fired.view(np.uint64)
    for k in range(len(words)):
        word = words[k]
        while word != 0:
            byte = _trailing_zeros(word) >> np.uint64(3)
            word &= ~(np.uint64(0xFF) << (byte << np.uint64(3)))
            j = WORD * k + np.int64(byte)
            scratch.source[end] = j
            scratch.payload[end] = fired[j]
            end += 1
            if fired[j] > 0:
                positive[j] += 1
            else:
                negative[j] += 1
    return end


@njit(cache=True, nogil=True)
def _fire_coded(v: NDArray[np.int64], stage: NDArray[np.int32], primary: int, compensation: int, fired: NDArray[np.int8]) -> None:
    """Update neurons of kind ``aec`` in one slot; stage 0, 1, 2 = neither, the primary, both spikes have gone."""
    for j in range(len(v)):
        first = stage[j] == 0 and v[j] >= primary
        x = v[j] - primary if first else v[j]
        second = (first or stage[j] == 1) and x >= compensation
        v[j] = x - compensation if second else x
        fired[j] = np.int8(first) | np.int8(second) << 1
        stage[j] += np.int32(first) + np.int32(second)


@njit(cache=True, nogil=True)
def _list_coded(
    fired: NDArray[np.int8], primary: int, compensation: int, end: int, scratch: Scratch, positive: NDArray[np.int64]
) -> int:
    """Append one event a spike, two for a neuron that fired both, with their payloads; returns where the list ends."""
    for j in range(len(positive)):
        if fired[j] & 1:
            scratch.source[end], scratch.payload[end] = j, primary
            positive[j] += 1
            end += 1
        if fired[j] & 2:
            scratch.source[end], scratch.payload[end] = j, compensation
            positive[j] += 1
            end += 1
    return end
