from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from domainnorm.errors import CheckpointError, DomainNormError
from domainnorm.evaluation import EvaluationError, Predictions


def three_samples() -> Predictions:
    probabilities = torch.tensor([[0.7, 0.3], [0.2, 0.8], [0.5, 0.5]])
    return Predictions(probabilities, torch.tensor([0, 1, -1]), torch.tensor([4, 5, 9]))


def test_predictions_know_whether_there_is_anything_to_measure() -> None:
    assert three_samples().is_labelled
    nothing = Predictions(torch.ones(2, 1), torch.tensor([-1, -1]), torch.arange(2))
    assert not nothing.is_labelled


def test_saved_predictions_load_equal(tmp_path: Path) -> None:
    saved = three_samples()
    saved.save(tmp_path / "folder" / "test.safetensors")
    loaded = Predictions.load(tmp_path / "folder" / "test.safetensors")
    for name in ("probabilities", "target", "index"):
        torch.testing.assert_close(getattr(loaded, name), getattr(saved, name), rtol=0, atol=0)


def test_saving_leaves_no_other_file(tmp_path: Path) -> None:
    three_samples().save(tmp_path / "test.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["test.safetensors"]


def test_truncated_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "test.safetensors"
    three_samples().save(path)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(CheckpointError, match=r"test\.safetensors: cannot be read"):
        Predictions.load(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"absent\.safetensors: cannot be read"):
        Predictions.load(tmp_path / "absent.safetensors")


def test_foreign_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file({"conv.weight": torch.zeros(2)}, path)
    with pytest.raises(CheckpointError, match=r"weights\.safetensors: holds \['conv\.weight'\]"):
        Predictions.load(path)


def test_file_with_wrong_values_is_named(tmp_path: Path) -> None:
    path = tmp_path / "odd.safetensors"
    save_file(
        {
            "probabilities": torch.ones(2, 2),
            "target": torch.tensor([0, 7]),
            "index": torch.tensor([0, 1]),
        },
        path,
    )
    with pytest.raises(CheckpointError, match=r"odd\.safetensors: Predictions\.target"):
        Predictions.load(path)


@pytest.mark.parametrize(
    ("probabilities", "target", "index", "message"),
    [
        (
            torch.ones(3),
            torch.zeros(3).long(),
            torch.zeros(3).long(),
            r"probabilities: shape \(3,\)",
        ),
        (torch.ones(3, 2).double(), torch.zeros(3).long(), torch.zeros(3).long(), "float64"),
        (torch.ones(3, 2), torch.zeros(2).long(), torch.zeros(3).long(), r"target: shape \(2,\)"),
        (torch.ones(3, 2), torch.zeros(3), torch.zeros(3).long(), "target: dtype torch.float32"),
        (torch.ones(3, 2), torch.zeros(3).long(), torch.zeros(3).int(), "index: dtype torch.int32"),
        (torch.ones(1, 2), torch.tensor([2]), torch.tensor([0]), "labels from 2 to 2"),
        (torch.ones(1, 2), torch.tensor([-2]), torch.tensor([0]), "labels from -2 to -2"),
        (torch.full((1, 2), torch.nan), torch.tensor([0]), torch.tensor([0]), "nan"),
        (torch.full((1, 2), 3.0), torch.tensor([0]), torch.tensor([0]), "softmax outputs"),
    ],
)
def test_malformed_tensors_are_refused(
    probabilities: torch.Tensor, target: torch.Tensor, index: torch.Tensor, message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        Predictions(probabilities, target, index)


def test_labelled_drops_samples_without_label() -> None:
    assert three_samples().labelled().index.tolist() == [4, 5]


def test_evaluation_error_is_a_user_error() -> None:
    assert issubclass(EvaluationError, DomainNormError)
