from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from domainnorm.errors import CheckpointError
from domainnorm.evaluation import Predictions, load_evaluated

TENSORS = {
    "probabilities": torch.tensor([[0.25, 0.75]]),
    "target": torch.tensor([1]),
    "index": torch.tensor([3]),
}


def test_class_is_that_of_the_metadata(tmp_path: Path) -> None:
    Predictions(**TENSORS).save(tmp_path / "test.safetensors")
    assert type(load_evaluated(tmp_path / "test.safetensors")) is Predictions


def test_files_without_a_kind_hold_class_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    save_file(TENSORS, path, metadata={"format": "domainnorm.predictions"})
    assert load_evaluated(path).index.tolist() == [3]


def test_unknown_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    save_file(TENSORS, path, metadata={"kind": "depth"})
    with pytest.raises(
        CheckpointError, match=r"test\.safetensors: predictions of the kind 'depth'"
    ):
        load_evaluated(path)


def test_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    save_file(TENSORS, path, metadata={"kind": "segmentation"})
    with pytest.raises(CheckpointError, match="segmentation model, expected classification"):
        Predictions.load(path)


def test_unknown_option_is_not_ignored() -> None:
    with pytest.raises(TypeError, match="bin"):
        Predictions(**TENSORS).metrics(bin=10)
