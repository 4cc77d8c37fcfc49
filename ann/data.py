"""Data sets by name, as integer images with train, validation and test splits.

``digits`` comes with scikit-learn; ``mnist``, ``fashion-mnist``, ``emnist`` (its split "balanced", 47 classes), ``cifar10`` and
``cifar100`` through torchvision, downloaded only when asked for; ``imagefolder:PATH`` is any folder in torchvision's
ImageFolder layout (``train/<class>/*``, ``test/<class>/*``). ``NAME@4000,1000`` has 4,000 training and 1,000 test
images of it, evenly spread over the split; a number may be left out.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from sparsespike.ann.encoding import Encoding
from sparsespike.ann.imagefolder import read_image_folder
from sparsespike.common.errors import ConfigError, DataError
from sparsespike.common.extras import require

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int64]
Progress = Callable[[str, int, int], None]
"""Called as ``progress(what, done, total)``."""

TORCHVISION = {
    "mnist": "MNIST",
    "fashion-mnist": "FashionMNIST",
    "emnist": "EMNIST",
    "cifar10": "CIFAR10",
    "cifar100": "CIFAR100",
}
TORCHVISION_OPTIONS = {"emnist": {"split": "balanced"}}
NAMES = ("digits", *TORCHVISION, "imagefolder:PATH")
DIGITS_TEST_FRACTION = 0.2
SUBSET = re.compile(r"(?P<whole>.+)@(?P<train>[0-9]*),(?P<test>[0-9]*)")


@dataclass(frozen=True)
class Split:
    """Images ``[n, C, y, x]`` uint8 and their class numbers ``[n]`` int64."""

    images: Images
    labels: Labels

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: npt.NDArray[np.intp]) -> Split:
        """The images at ``index``, in that order."""
        return Split(self.images[index], self.labels[index])

    def spread(self, count: int) -> Split:
        """That many images, evenly spread: a split may be sorted by class.

        Raises
        ------
        DataError
            If there are not that many, or ``count`` is 0.
        """
        if not 1 <= count <= len(self):
            raise DataError(f"subset of a data set: found {count} images, expected 1 to {len(self)}, the images of the split")
        return self.take(np.arange(count) * len(self) // count)


@dataclass(frozen=True)
class DataSplits:
    """A data set: three splits of integer images, the class names, and how pixels stand for real inputs."""

    name: str
    classes: tuple[str, ...]
    train: Split
    validation: Split
    test: Split
    encoding: Encoding

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (C, y, x) of one image."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @property
    def features(self) -> int:
        """Number of inputs of a network that sees the flattened image."""
        return int(np.prod(self.shape))


class RawData(NamedTuple):
    """A data set before the validation split."""

    train: Split
    test: Split
    classes: tuple[str, ...]
    value_range: tuple[int, int]


def cache_folder() -> Path:
    """Where decoded and downloaded data are kept: ``$SPARSESPIKE_CACHE``, else ``~/.cache/sparsespike``."""
    return Path(os.environ.get("SPARSESPIKE_CACHE") or Path.home() / ".cache" / "sparsespike")


def load(
    name: str, *, validation: float = 0.1, seed: int = 0, download: bool = False, progress: Progress | None = None
) -> DataSplits:
    """Load a data set by name.

    Parameters
    ----------
    name : str
        One of :data:`NAMES`, or a subset ``NAME@TRAIN,TEST``.
    validation : float
        Fraction of the training images held out, stratified by class; 0 keeps all for training.
    seed : int
        Seed of the validation split. The test split never depends on it.
    download : bool
        Whether torchvision may download the data.
    progress : callable, optional
        Called as ``progress(what, done, total)`` while images are decoded.

    Raises
    ------
    DataError
        If the name is unknown, the data are absent or malformed, or a class is too small to split.
    """
    if not 0 <= validation < 1:
        raise ConfigError(f"validation fraction is {validation}; expected at least 0 and below 1")
    subset = SUBSET.fullmatch(name)
    raw = _raw(subset["whole"] if subset else name, download, progress)
    if subset:
        parts = {part: getattr(raw, part).spread(int(subset[part])) for part in ("train", "test") if subset[part]}
        raw = raw._replace(**parts)
    train, held_out = stratified_split(raw.train, validation, seed)
    return DataSplits(name, raw.classes, train, held_out, raw.test, Encoding.fit(raw.train.images, raw.value_range))


def _raw(name: str, download: bool, progress: Progress | None) -> RawData:
    kind, _, path = name.partition(":")
    if kind == "imagefolder" and path:
        return _image_folder(Path(path), progress)
    if name == "digits":
        return _digits()
    if name in TORCHVISION:
        return _torchvision(name, download)
    raise DataError(f"data set {name!r} is unknown; expected one of {', '.join(NAMES)}")


def stratified_split(split: Split, fraction: float, seed: int) -> tuple[Split, Split]:
    """Hold out ``round(fraction * n_c)`` images of every class ``c``; both parts keep the original order.

    Raises
    ------
    DataError
        If a class would be left without training images.
    """
    generator = np.random.default_rng([seed, 0x5917])
    held_out = np.zeros(len(split), bool)
    for label in np.unique(split.labels):
        members = np.flatnonzero(split.labels == label)
        count = round(fraction * len(members))
        if count == len(members):
            raise DataError(f"class {label} has {len(members)} images, all would be held out; lower the fraction {fraction}")
        held_out[generator.permutation(members)[:count]] = True
    return split.take(np.flatnonzero(~held_out)), split.take(np.flatnonzero(held_out))


def _digits() -> RawData:
    datasets = require("sklearn.datasets", extra="train")
    bunch = datasets.load_digits()
    images = np.asarray(bunch.images, np.uint8)[:, None]
    train, test = stratified_split(Split(images, np.asarray(bunch.target, np.int64)), DIGITS_TEST_FRACTION, seed=0)
    return RawData(train, test, tuple(str(digit) for digit in range(10)), (0, 16))


def _torchvision(name: str, download: bool) -> RawData:
    datasets = require("torchvision.datasets", extra="train")
    root = cache_folder() / "torchvision"
    options = {"root": str(root), "download": download, **TORCHVISION_OPTIONS.get(name, {})}
    parts = []
    for train in (True, False):
        try:
            data = getattr(datasets, TORCHVISION[name])(train=train, **options)
        except RuntimeError as error:
            if download:
                raise DataError(f"data set {name!r} could not be downloaded to {root}: {error}") from error
            raise DataError(f"data set {name!r} is not under {root}; pass --download (download=True) to fetch it") from error
        except OSError as error:
            raise DataError(f"data set {name!r} could not be fetched to or read from {root}: {error}") from error
        images = np.asarray(data.data)
        if name == "emnist":
            images = images.transpose(0, 2, 1)  # its files hold an image column by column
        images = images[:, None] if images.ndim == 3 else images.transpose(0, 3, 1, 2)
        parts.append(Split(np.ascontiguousarray(images, np.uint8), np.asarray(data.targets, np.int64)))
        classes = tuple(str(label) for label in data.classes)
    return RawData(parts[0], parts[1], classes, (0, 255))


def _image_folder(path: Path, progress: Progress | None) -> RawData:
    arrays, classes = read_image_folder(path, cache_folder() / "imagefolder", progress)
    train, test = (Split(arrays[f"{part}_images"], arrays[f"{part}_labels"]) for part in ("train", "test"))
    return RawData(train, test, classes, (0, 255))
