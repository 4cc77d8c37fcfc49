"""The test split is used once, for the model of the best epoch, when training is complete."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sparsespike.ann.config import TrainConfig
from sparsespike.ann.data import Split, load
from sparsespike.ann.evaluate import accuracy
from sparsespike.ann.progress import EpochRecord, TrainProgress
from sparsespike.ann.run_folder import RunFolder
from sparsespike.ann.training import Training

CONFIG = TrainConfig(hidden=(48, 40), sparsity=0.9, epochs=3)


class Sealed(Split):
    """A split that may be looked at only when it is open."""

    is_open = False

    def __getattribute__(self, name: str) -> Any:
        if name in ("images", "labels") and not Sealed.is_open:
            raise AssertionError(f"the test split's {name} are used before training is complete")
        return super().__getattribute__(name)


class OpenAtTheEnd(TrainProgress):
    """Opens the test split after the last epoch."""

    def on_epoch(self, record: EpochRecord) -> None:
        Sealed.is_open = record.epoch == CONFIG.epochs


@pytest.mark.parametrize("changes", [{}, {"method": "rigl"}, {"sparsity": 0.0}, {"validation": 0.0}])
def test_training_does_not_look_at_the_test_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, object]
) -> None:
    monkeypatch.setattr(Sealed, "is_open", False)
    config = replace(CONFIG, **changes)  # type: ignore[arg-type]  # a parametrised mapping
    splits = load("digits", validation=config.validation, seed=config.seed)
    sealed = replace(splits, test=Sealed(splits.test.images, splits.test.labels))
    run = Training.started(config, sealed, RunFolder(tmp_path))
    with pytest.raises(AssertionError, match="used before training is complete"):
        accuracy(run.model, sealed.test, splits.encoding)
    result = run.complete(OpenAtTheEnd())
    assert result.test_accuracy == accuracy(result.model, splits.test, splits.encoding)
    assert len(result.history) == CONFIG.epochs


def test_neither_training_images_nor_their_encoding_depend_on_the_test_split() -> None:
    splits = load("digits", validation=0.1, seed=0)
    whole = load("digits", validation=0.0)
    assert splits.encoding == type(splits.encoding).fit(whole.train.images, (0, 16))
    seen = {image.tobytes() for image in (*splits.train.images, *splits.validation.images)}
    assert not seen & {image.tobytes() for image in splits.test.images}
