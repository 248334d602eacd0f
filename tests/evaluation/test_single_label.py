from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from sklearn.metrics import accuracy_score, balanced_accuracy_score, f1_score, log_loss
from torchmetrics.functional.classification import multiclass_accuracy, multiclass_calibration_error

from domainnorm.errors import CheckpointError, DomainNormError
from domainnorm.evaluation import (
    METRICS,
    EvaluationError,
    MetricSums,
    Predictions,
)
from domainnorm.evaluation.single_label import _bin_of
from tests.reference import metrics as reference


def random_predictions(
    count: int = 200, classes: int = 5, seed: int = 0, absent: int | None = None
) -> Predictions:
    """Predictions better than chance; no target is ``absent``, though it may be predicted."""
    generator = torch.Generator().manual_seed(seed)
    target = torch.randint(0, classes, (count,), generator=generator)
    if absent is not None:
        target[target == absent] = (absent + 1) % classes
    logits = torch.randn(count, classes, generator=generator)
    logits[torch.arange(count), target] += 1
    return Predictions(logits.softmax(dim=1), target, torch.arange(count))


CASES = {
    "usual": random_predictions(),
    "two classes": random_predictions(50, 2, seed=1),
    "one sample": random_predictions(1, 3, seed=2),
    "class without samples": random_predictions(120, 4, seed=3, absent=2),
    "many classes, most absent": random_predictions(20, 50, seed=4),
}
cases = pytest.mark.parametrize("predictions", CASES.values(), ids=CASES.keys())


@cases
@pytest.mark.parametrize("metric", METRICS)
def test_metric_equals_slow_reference(predictions: Predictions, metric: str) -> None:
    rows, target = predictions.probabilities.tolist(), predictions.target.tolist()
    expected = getattr(reference, metric)(rows, target)
    assert predictions.metrics()[metric] == pytest.approx(expected, abs=1e-9)


@pytest.mark.filterwarnings("ignore:A single label was found")
@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@cases
def test_balanced_accuracy_equals_scikit_learn(predictions: Predictions) -> None:
    expected = balanced_accuracy_score(predictions.target, predictions.probabilities.argmax(dim=1))
    assert predictions.metrics()["balanced_accuracy"] == pytest.approx(expected)


@cases
def test_macro_f1_equals_scikit_learn(predictions: Predictions) -> None:
    guess = predictions.probabilities.argmax(dim=1)
    expected = f1_score(predictions.target, guess, average="macro")
    assert predictions.metrics()["macro_f1"] == pytest.approx(expected)


@cases
def test_accuracy_equals_scikit_learn(predictions: Predictions) -> None:
    expected = accuracy_score(predictions.target, predictions.probabilities.argmax(dim=1))
    assert predictions.metrics()["accuracy"] == pytest.approx(expected)


def test_nll_equals_scikit_learn() -> None:
    predictions = CASES["usual"]
    exact = predictions.probabilities.double()
    exact /= exact.sum(dim=1, keepdim=True)  # scikit-learn warns about float32 rounding
    expected = log_loss(predictions.target, exact, labels=range(5))
    assert predictions.metrics()["nll"] == pytest.approx(expected, rel=1e-6)


def test_ece_equals_torchmetrics_away_from_bin_borders() -> None:
    predictions = CASES["usual"]
    expected = multiclass_calibration_error(
        predictions.probabilities, predictions.target, num_classes=5, n_bins=15
    )
    assert predictions.metrics()["ece"] == pytest.approx(float(expected), abs=1e-6)


def test_class_predicted_but_absent_does_not_lower_balanced_accuracy() -> None:
    probabilities = torch.eye(3)[[0, 0, 2, 1]]
    predictions = Predictions(probabilities, torch.tensor([0, 0, 0, 1]), torch.arange(4))
    torchmetrics_value = multiclass_accuracy(
        probabilities, predictions.target, num_classes=3, average="macro"
    )
    assert float(torchmetrics_value) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert predictions.metrics()["balanced_accuracy"] == pytest.approx((2 / 3 + 1) / 2)


@pytest.mark.parametrize(("confidence", "number"), [(0.5, 1), (0.51, 2), (1.0, 3)])
def test_bins_are_closed_above(confidence: float, number: int) -> None:
    assert _bin_of(torch.tensor([confidence]), 4).tolist() == [number]


def test_samples_without_label_do_not_count() -> None:
    known = CASES["usual"]
    mixed = Predictions(
        torch.cat([known.probabilities, torch.eye(5)]),
        torch.cat([known.target, torch.full((5,), -1)]),
        torch.arange(205),
    )
    assert mixed.metrics() == known.metrics()


def test_n_counts_labelled_samples() -> None:
    predictions = Predictions(torch.eye(2), torch.tensor([0, -1]), torch.arange(2))
    assert predictions.metrics()["n"] == 1


def test_impossible_prediction_has_finite_nll() -> None:
    predictions = Predictions(torch.eye(2)[[0]], torch.tensor([1]), torch.tensor([0]))
    assert predictions.metrics()["nll"] == pytest.approx(87.3365, abs=1e-3)


@pytest.mark.parametrize("metric", METRICS)
def test_integer_weights_equal_repeated_samples(metric: str) -> None:
    predictions = CASES["class without samples"]
    times = torch.arange(120) % 4
    rows = torch.repeat_interleave(torch.arange(120), times)
    repeated = Predictions(predictions.probabilities[rows], predictions.target[rows], rows)
    weighted = MetricSums.of(predictions, 15).metrics(times.double()[:, None])
    expected = repeated.metrics()[metric]
    assert float(weighted[metric]) == pytest.approx(expected)


@pytest.mark.parametrize("target", [[], [-1, -1]])
def test_no_labelled_sample_is_an_error(target: list[int]) -> None:
    count = len(target)
    predictions = Predictions(
        torch.ones(count, 1), torch.tensor(target, dtype=torch.int64), torch.arange(count)
    )
    with pytest.raises(EvaluationError, match=f"none of {count} samples has a label"):
        predictions.metrics()


def test_bins_must_be_positive() -> None:
    with pytest.raises(EvaluationError, match="bins=0, expected a positive number"):
        CASES["usual"].metrics(bins=0)


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


@cases
def test_recall_of_each_class_has_the_balanced_accuracy_as_its_mean(
    predictions: Predictions,
) -> None:
    found = predictions.by_class()
    guess = predictions.probabilities.argmax(dim=1).tolist()
    for place, value in enumerate(found.values.tolist()):
        own = [g for g, t in zip(guess, predictions.target.tolist(), strict=True) if t == place]
        expected = sum(g == place for g in own) / len(own) if own else math.nan
        assert value == pytest.approx(expected, nan_ok=True)
        assert int(found.images[place]) == len(own)
    mean = float(found.values.nanmean())
    assert mean == pytest.approx(predictions.metrics()["balanced_accuracy"])
