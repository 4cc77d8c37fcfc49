"""Data sets: integer images, exact statistics, stratified splits, image folders and their cache."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sparsespike.ann import data
from sparsespike.ann.augment import Draws, assemble, draw
from sparsespike.ann.data import Split, stratified_split
from sparsespike.ann.encoding import Encoding
from sparsespike.common.errors import ConfigError, DataError


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SPARSESPIKE_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write_folder(path: Path, size: tuple[int, int] = (6, 5), mode: str = "RGB") -> None:
    generator = np.random.default_rng(0)
    for part, count in (("train", 4), ("test", 2)):
        for name in ("cat", "ant", "bee"):
            folder = path / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = generator.integers(0, 256, (*size, 3) if mode == "RGB" else size, np.uint8)
                Image.fromarray(pixels, mode).save(folder / f"{number}.png")


def test_digits_are_the_integers_of_scikit_learn() -> None:
    splits = data.load("digits", validation=0.1, seed=3)
    parts = (splits.train, splits.validation, splits.test)
    assert splits.shape == (1, 8, 8)
    assert splits.features == 64
    assert len(splits.classes) == 10
    assert sum(len(part) for part in parts) == 1797
    assert all(part.images.dtype == np.uint8 and part.labels.dtype == np.int64 for part in parts)
    assert splits.encoding.value_range == (0, 16)
    assert max(part.images.max() for part in parts) == 16


def test_the_validation_split_is_stratified_disjoint_and_seeded() -> None:
    first, again, other = (data.load("digits", validation=0.25, seed=seed) for seed in (0, 0, 1))
    assert np.array_equal(first.validation.images, again.validation.images)
    assert not np.array_equal(first.validation.images, other.validation.images)
    assert np.array_equal(first.test.images, other.test.images)
    whole = data.load("digits", validation=0.0)
    assert len(whole.validation) == 0
    for label, total in enumerate(np.bincount(whole.train.labels)):
        assert (first.validation.labels == label).sum() == round(0.25 * total)
    together = np.concatenate([first.train.images, first.validation.images]).reshape(-1, 64)
    assert np.array_equal(np.unique(together, axis=0), np.unique(whole.train.images.reshape(-1, 64), axis=0))
    assert len(together) == len(whole.train)


def test_a_class_is_never_held_out_entirely() -> None:
    split = Split(np.zeros((3, 1, 2, 2), np.uint8), np.array([0, 0, 1]))
    with pytest.raises(DataError, match=r"class 1 has 1 images, all would be held out; lower the fraction 0\.7"):
        stratified_split(split, 0.7, 0)


def test_encoding_statistics_are_those_of_the_real_pixels() -> None:
    images = np.random.default_rng(0).integers(0, 256, (50, 3, 4, 4), np.uint8)
    images[:, 2] = 7
    encoding = Encoding.fit(images, (0, 255))
    real = images / 255
    assert encoding.mean == pytest.approx(real.mean((0, 2, 3)), abs=1e-6)
    assert encoding.std == pytest.approx([real[:, 0].std(), real[:, 1].std(), 1.0], abs=1e-6)
    table = encoding.table()
    assert table.shape == (3, 256)
    assert table[1, 200] == pytest.approx((200 / 255 - encoding.mean[1]) / encoding.std[1], rel=1e-6)
    assert Encoding.from_dict(encoding.to_dict()) == encoding


def test_a_malformed_encoding_is_refused() -> None:
    with pytest.raises(DataError, match="one positive std a channel"):
        Encoding((0, 255), 255, (0.5,), (0.0,))
    with pytest.raises(DataError, match="expected value_range, unit, mean and std"):
        Encoding.from_dict({"unit": 255})


def test_an_image_folder_is_read_in_sorted_class_order(tmp_path: Path) -> None:
    write_folder(tmp_path / "set")
    calls: list[tuple[str, int, int]] = []
    splits = data.load(f"imagefolder:{tmp_path / 'set'}", validation=0.25, progress=lambda *call: calls.append(call))
    assert splits.classes == ("ant", "bee", "cat")
    assert splits.shape == (3, 6, 5)
    assert calls == [("decoding train images", 12, 12), ("decoding test images", 6, 6)]
    expected = np.asarray(Image.open(tmp_path / "set/test/bee/1.png")).transpose(2, 0, 1)
    position = 3  # ant 0, ant 1, bee 0, bee 1
    assert np.array_equal(splits.test.images[position], expected)
    assert splits.test.labels.tolist() == [0, 0, 1, 1, 2, 2]


def test_decoded_images_are_cached_until_a_file_changes(tmp_path: Path, cache: Path) -> None:
    folder = tmp_path / "set"
    write_folder(folder, mode="L")
    calls: list[str] = []

    def load() -> Split:
        return data.load(f"imagefolder:{folder}", validation=0.0, progress=lambda what, *_: calls.append(what)).test

    first = load()
    assert first.images.shape == (6, 1, 6, 5)
    assert np.array_equal(load().images, first.images)
    assert len(calls) == 2
    file = folder / "test/ant/0.png"
    Image.fromarray(255 - np.asarray(Image.open(file))).save(file)
    os.utime(file, ns=(1, 1))
    assert np.array_equal(load().images[0], 255 - first.images[0])
    assert len(calls) == 4
    for stored in (cache / "imagefolder").iterdir():
        stored.write_bytes(stored.read_bytes()[:100])
    load()
    assert len(calls) == 6


def test_problems_of_an_image_folder_have_one_clear_message(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    with pytest.raises(DataError, match=r"has no folder train/; expected train/<class>/<image> beneath it"):
        data.load(f"imagefolder:{folder}")
    write_folder(folder)
    (folder / "train/ant/extra.jpg").write_bytes(b"not an image")
    with pytest.raises(DataError, match=r"image .*extra\.jpg cannot be decoded .*; replace or remove it"):
        data.load(f"imagefolder:{folder}")
    Image.fromarray(np.zeros((9, 9, 3), np.uint8)).save(folder / "train/ant/extra.jpg")
    with pytest.raises(DataError, match=r"extra\.jpg has shape \(3, 9, 9\), the first one \(3, 6, 5\)"):
        data.load(f"imagefolder:{folder}")
    (folder / "train/dog").mkdir()
    with pytest.raises(DataError, match=r"classes \['ant', 'bee', 'cat', 'dog'\] in train/ and \['ant', 'bee', 'cat'\] in test/"):
        data.load(f"imagefolder:{folder}")
    (folder / "test/dog").mkdir()
    with pytest.raises(DataError, match="dog holds no image; expected files ending in"):
        data.load(f"imagefolder:{folder}")


def test_unknown_and_absent_data_sets_have_one_clear_message(cache: Path) -> None:
    with pytest.raises(DataError, match="data set 'imagenet' is unknown; expected one of digits, mnist"):
        data.load("imagenet")
    for name in ("mnist", "fashion-mnist", "emnist", "cifar10", "cifar100"):
        with pytest.raises(DataError, match=rf"data set '{name}' is not under .*; pass --download"):
            data.load(name)
    assert not cache.exists()  # nothing is fetched unasked
    with pytest.raises(ConfigError, match="validation fraction is 1"):
        data.load("digits", validation=1)


def write_idx(file: Path, array: np.ndarray) -> None:
    """The format of MNIST's files: two zero bytes, type uint8, number of dimensions, big-endian sizes, bytes."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes())


@pytest.mark.parametrize(
    ("name", "prefixes", "classes"),
    [
        ("mnist", ("MNIST/raw/train", "MNIST/raw/t10k"), 10),
        ("fashion-mnist", ("FashionMNIST/raw/train", "FashionMNIST/raw/t10k"), 10),
        ("emnist", ("EMNIST/raw/emnist-balanced-train", "EMNIST/raw/emnist-balanced-test"), 47),
    ],
)
def test_files_in_mnist_format_are_read(cache: Path, name: str, prefixes: tuple[str, str], classes: int) -> None:
    generator = np.random.default_rng(0)
    written = []
    for prefix, count in zip(prefixes, (4, 2), strict=True):
        images = generator.integers(0, 256, (count * classes, 28, 28), np.uint8)
        labels = np.repeat(np.arange(classes), count).astype(np.uint8)
        write_idx(cache / f"torchvision/{prefix}-images-idx3-ubyte", images)
        write_idx(cache / f"torchvision/{prefix}-labels-idx1-ubyte", labels)
        written.append((images.transpose(0, 2, 1) if name == "emnist" else images, labels))
    splits = data.load(name, validation=0.0)
    assert splits.shape == (1, 28, 28)
    assert splits.encoding.value_range == (0, 255)
    assert len(splits.classes) == classes
    for part, (images, labels) in zip((splits.train, splits.test), written, strict=True):
        assert np.array_equal(part.images[:, 0], images)
        assert np.array_equal(part.labels, labels)
    if name == "emnist":
        assert "".join(splits.classes) == "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabdefghnqrt"


@pytest.mark.parametrize("name", ["none", "crop", "crop-flip"])
def test_batches_equal_a_crop_of_the_padded_image(name: str) -> None:
    """The compiled gather against numpy: pad with zero pixels, crop, mirror, look up."""
    generator = np.random.default_rng(1)
    images = generator.integers(0, 256, (20, 3, 8, 9), np.uint8)
    table = Encoding((0, 255), 255, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)).table()
    index = generator.permutation(20)[:13]
    draws = draw(name, 13, generator)
    batch = assemble(images, index, table, draws)
    assert batch.shape == (3 * 8 * 9, 13)
    assert batch.flags.c_contiguous
    padded = np.pad(images, ((0, 0), (0, 0), (4, 4), (4, 4)))
    for b in range(13):
        down, right = 4 - draws.shift[b]
        crop = padded[index[b], :, down : down + 8, right : right + 9]
        if draws.flip[b]:
            crop = crop[:, :, ::-1]
        expected = np.stack([table[c, crop[c]] for c in range(3)])
        assert np.array_equal(batch[:, b].reshape(3, 8, 9), expected)


def test_draws_cover_all_shifts_and_half_the_flips() -> None:
    draws = draw("crop-flip", 4000, np.random.default_rng(0))
    assert set(draws.shift.reshape(-1).tolist()) == set(range(-4, 5))
    assert 0.45 < draws.flip.mean() < 0.55
    assert not draw("crop", 100, np.random.default_rng(0)).flip.any()
    assert not draw("none", 100, np.random.default_rng(0)).shift.any()
    part = draws[2:5]
    assert isinstance(part, Draws)
    assert np.array_equal(part.shift, draws.shift[2:5])
    with pytest.raises(ConfigError, match="augmentation 'rotate' is unknown; expected one of none, crop, crop-flip"):
        draw("rotate", 1, np.random.default_rng(0))
