"""``sparsespike train`` with convolutional networks, up to their spikes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., Any]

SMALL = ("--model", "vgg-small", "--width", "0.1", "--sparsity", "0.5", "--epochs", "2", "--batch", "128", "--schedule", "cosine")
SMALL += ("--dropout", "0.1", "--conv-mode", "im2col", "--amp", "bfloat16")


def test_a_convolutional_network_is_trained_converted_and_run(sparsespike: Run, tmp_path: Path) -> None:
    trained = sparsespike("train", "--out", tmp_path, *SMALL, "--json")
    assert trained.code == 0, trained.err
    summary = json.loads(trained.out)
    wanted = {"model": "vgg-small", "width": 0.1, "schedule": "cosine", "dropout": 0.1, "conv_mode": "im2col", "amp": "bfloat16"}
    assert wanted.items() <= summary["config"].items()
    assert summary["sparsity"] == pytest.approx(0.5, abs=0.02)
    converted = sparsespike("convert", tmp_path, "--json")
    assert converted.code == 0, converted.err
    simulated = sparsespike("simulate", json.loads(converted.out)["graph"], "--images", "3", "--steps", "4", "--json")
    assert simulated.code == 0, simulated.err
    refused = sparsespike("topology", tmp_path)
    assert refused.code == 2
    assert "holds a vgg-small; expected an MLP" in refused.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model", "vgg11"), "model is 'vgg11'; expected mlp, vgg-small"),
        (("--device", "tpu"), "device is 'tpu'; expected cpu or cuda"),
        (("--device", "cuda"), "device 'cuda' is not available to torch"),
        (("--model", "vgg16", "--conv-mode", "window"), "conv_mode is 'window'"),
        (("--model", "vgg16", "--amp", "float16"), "expected none or bfloat16 for this vgg16 on cpu"),
    ],
)
def test_settings_that_do_not_go_together_have_one_clear_message(
    sparsespike: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...], message: str
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "-1")
    ended = sparsespike("train", "--out", tmp_path / "run", *arguments)
    assert ended.code == 2
    assert message in " ".join(ended.err.split())
    assert not (tmp_path / "run").exists()
