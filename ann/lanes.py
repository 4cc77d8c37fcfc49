"""Vector registers for numba: a fixed number of float32 side by side, kept in registers across a loop.

numba cannot prove that an output row does not overlap the inputs, so a plain accumulation loop goes through memory once
per link. These intrinsics emit LLVM vector instructions instead, on any processor that LLVM knows; a vector wider than the
machine's is split over several registers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

INDEX = ir.IntType(32)


def instruction(define: Callable[..., Any]) -> Callable[..., Any]:
    """Make ``define(typing context, argument types...) -> signature, code generator`` callable in compiled functions."""
    return cast("Callable[..., Any]", intrinsic(define))


class Lanes(types.Type):
    """The numba type of ``count`` float32 lanes."""

    def __init__(self, count: int) -> None:
        super().__init__(name=f"Lanes({count})")
        self.count = count


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    """Lanes are an LLVM vector, in registers and in memory alike."""

    def __init__(self, manager: Any, lanes: Lanes) -> None:
        super().__init__(manager, lanes, _vector(lanes.count))  # type: ignore[no-untyped-call]  # numba


def _vector(count: int) -> ir.VectorType:
    return ir.VectorType(ir.FloatType(), count)


def _shuffle(builder: Any, value: Any, order: list[int]) -> Any:
    return builder.shuffle_vector(value, value, ir.Constant(ir.VectorType(INDEX, len(order)), order))


def _splat(builder: Any, scalar: Any, count: int) -> Any:
    single = builder.insert_element(ir.Constant(_vector(count), ir.Undefined), scalar, ir.Constant(INDEX, 0))
    return _shuffle(builder, single, [0] * count)


def _muladd(builder: Any, x: Any, y: Any, z: Any) -> Any:
    fused = ("contract",)  # one instruction where the machine has it
    return builder.fadd(builder.fmul(x, y, flags=fused), z, flags=fused)


def _pointer(context: Any, builder: Any, array_type: Any, args: Any, count: int) -> Any:
    array, row, column = args
    struct = context.make_array(array_type)(context, builder, array)
    item = cgutils.get_item_pointer(  # type: ignore[no-untyped-call]  # numba
        context, builder, array_type, struct, [row, column], wraparound=False, boundscheck=False
    )
    return builder.bitcast(item, _vector(count).as_pointer())


@instruction
def lanes_32(typing: Any) -> Any:
    """32 lanes of zero."""
    return _zero(32)


@instruction
def lanes_128(typing: Any) -> Any:
    """128 lanes of zero."""
    return _zero(128)


def _zero(count: int) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(_vector(count), [ir.Constant(ir.FloatType(), 0.0)] * count)

    return Lanes(count)(), generate


@instruction
def load(typing: Any, array: Any, row: Any, column: Any, like: Any) -> Any:
    """``array[row, column : column + n]`` of a C-contiguous float32 array, as many lanes as ``like`` has."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(context, builder, signature.args[0], args[:3], like.count))
        value.align = 4
        return value

    return like(array, types.int64, types.int64, like), generate


@instruction
def store(typing: Any, array: Any, row: Any, column: Any, value: Any) -> Any:
    """``array[row, column : column + n] = value``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _pointer(context, builder, signature.args[0], args[:3], value.count)
        builder.store(args[3], place).align = 4
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, value), generate


@instruction
def fill(typing: Any, scalar: Any, like: Any) -> Any:
    """All lanes equal to ``scalar``, as many as ``like`` has."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _splat(builder, args[0], like.count)

    return like(types.float32, like), generate


@instruction
def axpy(typing: Any, scalar: Any, x: Any, y: Any) -> Any:
    """``scalar * x + y``, lane by lane."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _muladd(builder, _splat(builder, args[0], x.count), args[1], args[2])

    return x(types.float32, x, y), generate


@instruction
def dot(typing: Any, x: Any, y: Any) -> Any:
    """Sum over the lanes of ``x * y``, added up by halves."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.fmul(*args)
        count = x.count
        while count > 1:
            count //= 2
            low, high = list(range(count)), list(range(count, 2 * count))
            value = builder.fadd(_shuffle(builder, value, low), _shuffle(builder, value, high))
        return builder.extract_element(value, ir.Constant(INDEX, 0))

    return types.float32(x, y), generate
