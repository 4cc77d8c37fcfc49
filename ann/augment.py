"""Batches: integer images, randomly shifted and mirrored, straight to real inputs in feature-major layout."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
import numpy.typing as npt

from sparsespike.common.errors import ConfigError

AUGMENTATIONS = ("none", "crop", "crop-flip")
PADDING = 4


@dataclass(frozen=True)
class Draws:
    """One random change per image: shift in pixels ``[n, 2]`` (down, right) and whether it is mirrored ``[n]``."""

    shift: npt.NDArray[np.int8]
    flip: npt.NDArray[np.bool_]

    def __getitem__(self, part: slice) -> Draws:
        return Draws(self.shift[part], self.flip[part])


def draw(name: str, n: int, generator: np.random.Generator, padding: int = PADDING) -> Draws:
    """Draw the changes for ``n`` images.

    ``crop`` shifts by -padding..padding in both directions, as a random crop out of the image padded with zero pixels does;
    ``crop-flip`` also mirrors left to right with probability 1/2.

    Raises
    ------
    ConfigError
        If the name is unknown.
    """
    if name not in AUGMENTATIONS:
        raise ConfigError(f"augmentation {name!r} is unknown; expected one of {', '.join(AUGMENTATIONS)}")
    reach = padding if name != "none" else 0
    shift = generator.integers(-reach, reach, (n, 2), np.int8, endpoint=True)
    flip = generator.random(n) < 0.5 if name == "crop-flip" else np.zeros(n, bool)
    return Draws(shift, flip)


def assemble(
    images: npt.NDArray[np.uint8], index: npt.NDArray[np.int64], table: npt.NDArray[np.float32], draws: Draws | None = None
) -> npt.NDArray[np.float32]:
    """Gather a batch as real inputs.

    Parameters
    ----------
    images : array [n, C, y, x] uint8
    index : array [B] int64
        Which images.
    table : array [C, values] float32
        Real value of every pixel value (:meth:`Encoding.table`).
    draws : Draws, optional
        One change per image of the batch; none leaves the images as they are.

    Returns
    -------
    array [C*y*x, B] float32
        Feature-major: all images' values of one pixel lie side by side.
    """
    if draws is None:
        draws = Draws(np.zeros((len(index), 2), np.int8), np.zeros(len(index), bool))
    out = np.empty((int(np.prod(images.shape[1:])), len(index)), np.float32)
    _assemble(images, index, draws.shift, draws.flip, table, out)
    return out


@numba.njit(cache=True, parallel=True)
def _assemble(images, index, shift, flip, table, out):  # type: ignore[no-untyped-def]  # compiled per dtype by numba
    channels, height, width = images.shape[1:]
    for line in numba.prange(channels * height):
        c = line // height
        y = line % height
        for b in range(len(index)):
            image = index[b]
            row = y - shift[b, 0]
            inside = 0 <= row < height
            for x in range(width):
                column = (width - 1 - x if flip[b] else x) - shift[b, 1]
                pixel = images[image, c, row, column] if inside and 0 <= column < width else 0
                out[line * width + x, b] = table[c, pixel]
