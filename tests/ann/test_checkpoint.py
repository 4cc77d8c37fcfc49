"""Model files: what is written is what is read, and a bad file has one clear message."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsespike.ann.checkpoint import FORMAT_VERSION, MODEL_KEY, load_model, save_model
from sparsespike.ann.models import MLP, MLPSpec
from sparsespike.ann.topology import er
from sparsespike.common.errors import ConfigError, ModelError


@pytest.fixture
def model() -> MLP:
    generator = np.random.default_rng(0)
    mlp = MLP(MLPSpec((9, 8, 7, 3), activation="qcfs", levels=4), [er((8, 9), 0.5, generator), er((7, 8), 0.5, generator)])
    mlp.reset_parameters(generator)
    return mlp


@pytest.mark.parametrize("sparse", [True, False])
def test_a_model_comes_back_the_same(tmp_path: Path, model: MLP, sparse: bool) -> None:
    if not sparse:
        model = MLP(MLPSpec((9, 8, 3), sparse=False))
        model.reset_parameters(np.random.default_rng(1))
    save_model(tmp_path / "model.safetensors", model, {"classes": ["a", "b", "c"]})
    loaded, metadata = load_model(tmp_path / "model.safetensors")
    assert loaded.spec == model.spec
    assert not loaded.training
    assert metadata["classes"] == ["a", "b", "c"]
    assert metadata["format_version"] == FORMAT_VERSION
    x = torch.randn(5, 9)
    assert torch.equal(loaded(x), model(x))
    assert [layer.topology for layer in loaded.sparse_layers] == [layer.topology for layer in model.sparse_layers]
    assert load_model(tmp_path)[1] == metadata


def test_bad_files_have_one_clear_message(tmp_path: Path, model: MLP) -> None:
    file = tmp_path / "model.safetensors"
    with pytest.raises(ConfigError, match=r"there is no file .*model\.safetensors"):
        load_model(tmp_path)
    save_model(file, model, {})
    whole = file.read_bytes()
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()}
    header = {"format_version": FORMAT_VERSION, "model": model.spec.to_dict()}

    def write(metadata: dict[str, object], **changes: torch.Tensor) -> None:
        save_file({**tensors, **changes}, file, {MODEL_KEY: json.dumps(metadata)})

    for damaged in (b"", b"text", whole[:-10], whole[:40], b"\xff" * 100):
        file.write_bytes(damaged)
        with pytest.raises(ModelError, match="is damaged"):
            load_model(file)
    save_file(tensors, file)
    with pytest.raises(ModelError, match="has no 'sparsespike-model' in its header"):
        load_model(file)
    write({**header, "format_version": 99})
    with pytest.raises(ModelError, match="has format version 99; expected 1"):
        load_model(file)
    write({"format_version": FORMAT_VERSION})
    with pytest.raises(ModelError, match="has no 'model' in its header"):
        load_model(file)
    write({**header, "model": {"widths": [9, 8]}})
    with pytest.raises(ModelError, match="has tensors that do not fit its description"):
        load_model(file)
    write({**header, "model": {"width": [9, 8]}})
    with pytest.raises(ModelError, match="is malformed"):
        load_model(file)
    indices = tensors["layers.0.indices"].clone()
    indices[0] = 1000
    write(header, **{"layers.0.indices": indices})
    with pytest.raises(ModelError, match=r"has inputs .*1000, expected 0\.\.8"):
        load_model(file)
    write(header, **{"layers.2.bias": torch.tensor([0.0, float("nan"), 0.0])})
    with pytest.raises(ModelError, match=r"has a value in 'layers\.2\.bias' that is not finite"):
        load_model(file)
