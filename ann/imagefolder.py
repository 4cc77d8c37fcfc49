"""Image folders (``train/<class>/*``, ``test/<class>/*``), decoded once into one array and cached."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from sparsespike.common.errors import DataError
from sparsespike.common.extras import require
from sparsespike.common.files import atomic_path

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".webp", ".tif", ".tiff", ".pgm", ".ppm"})
PARTS = ("train", "test")
CHUNK = 512


class Listing(NamedTuple):
    """The image files of one part, in order, with their class numbers."""

    files: list[Path]
    labels: npt.NDArray[np.int64]


def read_image_folder(
    path: Path, cache: Path, progress: Callable[[str, int, int], None] | None = None
) -> tuple[dict[str, npt.NDArray[Any]], tuple[str, ...]]:
    """Read an image folder, from the cache if its files are unchanged.

    Parameters
    ----------
    path : Path
        Folder with ``train/<class>/<image>`` and ``test/<class>/<image>``; class numbers follow the sorted class names.
    cache : Path
        Folder for the decoded copy, one file keyed by the path and by every file's name, size and time of change.
    progress : callable, optional
        Called as ``progress(what, done, total)``.

    Returns
    -------
    arrays : dict
        ``train_images``, ``test_images`` ``[n, C, y, x]`` uint8; ``train_labels``, ``test_labels`` ``[n]`` int64.
    classes : tuple of str

    Raises
    ------
    DataError
        If the layout is wrong, an image cannot be decoded, or images differ in size.
    """
    classes = _classes(path)
    listings = {part: _list(path / part, classes) for part in PARTS}
    stored = cache / f"{_digest(path, listings)}.safetensors"
    if stored.is_file():
        try:
            return load_file(stored), classes
        except (SafetensorError, OSError):
            stored.unlink(missing_ok=True)  # a damaged cache file is only a lost copy: decode again
    arrays: dict[str, npt.NDArray[Any]] = {}
    for part, (files, labels) in listings.items():
        arrays[f"{part}_images"] = _decode(files, f"decoding {part} images", progress)
        arrays[f"{part}_labels"] = labels
    if arrays["train_images"].shape[1:] != arrays["test_images"].shape[1:]:
        raise DataError(
            f"images of {path} have shape {arrays['train_images'].shape[1:]} in train/ and {arrays['test_images'].shape[1:]} "
            "in test/; expected one shape (channels, height, width): resize or convert them first"
        )
    with atomic_path(stored) as temporary:
        temporary.write_bytes(save(arrays))
    return arrays, classes


def _classes(path: Path) -> tuple[str, ...]:
    for part in PARTS:
        if not (path / part).is_dir():
            raise DataError(f"image folder {path} has no folder {part}/; expected {part}/<class>/<image> beneath it")
    train, test = (sorted(entry.name for entry in os.scandir(path / part) if entry.is_dir()) for part in PARTS)
    if not train or train != test:
        raise DataError(f"image folder {path} has classes {train} in train/ and {test} in test/; expected the same, at least one")
    return tuple(train)


def _list(folder: Path, classes: tuple[str, ...]) -> Listing:
    files: list[Path] = []
    labels: list[int] = []
    for number, name in enumerate(classes):
        found = sorted(entry for entry in (folder / name).iterdir() if entry.suffix.lower() in SUFFIXES)
        if not found:
            raise DataError(f"folder {folder / name} holds no image; expected files ending in {', '.join(sorted(SUFFIXES))}")
        files += found
        labels += [number] * len(found)
    return Listing(files, np.asarray(labels, np.int64))


def _digest(path: Path, listings: dict[str, Listing]) -> str:
    digest = hashlib.sha256(os.fsencode(path.resolve()))
    for listing in listings.values():
        for file in listing.files:
            status = file.stat()
            digest.update(os.fsencode(file) + f"\0{status.st_size}\0{status.st_mtime_ns}\0".encode())
    return digest.hexdigest()[:32]


def _decode(files: list[Path], what: str, progress: Callable[[str, int, int], None] | None) -> npt.NDArray[np.uint8]:
    image_module = require("PIL.Image", extra="train")

    def read(file: Path, mode: str) -> npt.NDArray[np.uint8]:
        try:
            with image_module.open(file) as image:
                pixels = np.asarray(image.convert(mode), np.uint8)
        except OSError as error:
            raise DataError(f"image {file} cannot be decoded ({error}); replace or remove it") from error
        return pixels[None] if mode == "L" else pixels.transpose(2, 0, 1)

    try:
        with image_module.open(files[0]) as image:
            mode = "L" if image.mode in ("1", "L") else "RGB"
    except OSError as error:
        raise DataError(f"image {files[0]} cannot be decoded ({error}); replace or remove it") from error
    shape = read(files[0], mode).shape
    images = np.empty((len(files), *shape), np.uint8)

    def fill(start: int) -> int:
        chunk = files[start : start + CHUNK]
        for position, file in enumerate(chunk, start):
            pixels = read(file, mode)
            if pixels.shape != shape:
                raise DataError(f"image {file} has shape {pixels.shape}, the first one {shape}; resize them to one size first")
            images[position] = pixels
        return len(chunk)

    done = 0
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for count in pool.map(fill, range(0, len(files), CHUNK)):
            done += count
            if progress is not None:
                progress(what, done, len(files))
    return images
