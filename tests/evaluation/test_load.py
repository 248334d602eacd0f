from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from domainnorm.errors import CheckpointError
from domainnorm.evaluation import (
    Evaluated,
    MultiLabelPredictions,
    Predictions,
    SegmentationCounts,
    load_evaluated,
)

TENSORS = {
    "probabilities": torch.tensor([[0.25, 0.75]]),
    "target": torch.tensor([1]),
    "index": torch.tensor([3]),
}
KINDS = [
    Predictions(**TENSORS),
    SegmentationCounts(torch.ones(2, 3, 3).long(), torch.ones(2, 3, 2).long(), torch.arange(2)),
    MultiLabelPredictions(torch.rand(2, 3), torch.ones(2, 3).long(), torch.arange(2)),
]
kinds = pytest.mark.parametrize("saved", KINDS, ids=lambda one: one.kind)


@kinds
def test_saved_file_loads_as_its_class_with_equal_values(saved: Evaluated, tmp_path: Path) -> None:
    saved.save(tmp_path / "test.safetensors")
    loaded = load_evaluated(tmp_path / "test.safetensors")
    assert type(loaded) is type(saved)
    assert vars(loaded).keys() == vars(saved).keys()
    for name, tensor in vars(saved).items():
        torch.testing.assert_close(getattr(loaded, name), tensor, rtol=0, atol=0)


@kinds
def test_other_classes_refuse_the_file(saved: Evaluated, tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    saved.save(path)
    for other in KINDS:
        if type(other) is not type(saved):
            with pytest.raises(CheckpointError, match=rf"of a {saved.kind} model, expected"):
                type(other).load(path)


def test_files_without_a_kind_hold_class_probabilities(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    save_file(TENSORS, path, metadata={"format": "domainnorm.predictions"})
    assert load_evaluated(path).index.tolist() == [3]


def test_unknown_kind_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    save_file(TENSORS, path, metadata={"kind": "depth"})
    with pytest.raises(CheckpointError, match=r"test\.safetensors: .* the kind 'depth'"):
        load_evaluated(path)


@kinds
def test_unknown_option_is_not_ignored(saved: Evaluated) -> None:
    with pytest.raises(TypeError, match="'bin'"):
        saved.metrics(bin=10)
