from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from domainnorm.evaluation import (
    METRICS,
    CrossDomainMatrix,
    EvaluationError,
    MultiLabelPredictions,
    Predictions,
    SegmentationCounts,
)
from domainnorm.report import save_confusions, save_heatmap, save_heatmaps
from domainnorm.report.heatmap import _caption, _fractions, _ink
from tests.report.conftest import is_png


def filled(names: list[str], predictions: Predictions, seeds: int = 1) -> CrossDomainMatrix:
    matrix = CrossDomainMatrix(names, names, resamples=5)
    for seed in range(seeds):
        for row in names:
            for column in names:
                matrix.add(seed, row, column, predictions)
    return matrix


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_is_drawn(tmp_path: Path, predictions: Predictions, metric: str) -> None:
    save_heatmap(filled(["a", "b"], predictions), metric, tmp_path / "map.png")
    assert is_png(tmp_path / "map.png")


def test_matrix_with_missing_cells_is_drawn(tmp_path: Path, predictions: Predictions) -> None:
    matrix = CrossDomainMatrix(["a", "b"], ["a", "b"], resamples=5)
    matrix.add(0, "a", "b", predictions)
    save_heatmap(matrix, "ece", tmp_path / "map.png")
    assert is_png(tmp_path / "map.png")


def test_matrix_without_cells_has_no_metric_to_draw(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="unknown metric 'accuracy': known: none"):
        save_heatmap(CrossDomainMatrix(["a"], ["b"]), "accuracy", tmp_path / "map.png")


def test_long_names_with_dollar_signs_are_drawn(tmp_path: Path, predictions: Predictions) -> None:
    names = ["a hospital with a very long name", "another $x_{1 hospital", "c"]
    save_heatmap(filled(names, predictions), "accuracy", tmp_path / "map.png")
    assert is_png(tmp_path / "map.png")


def test_main_metrics_are_saved_by_name(tmp_path: Path, predictions: Predictions) -> None:
    paths = save_heatmaps(filled(["a"], predictions), tmp_path)
    assert [path.name for path in paths] == [
        "accuracy.png",
        "balanced_accuracy.png",
        "macro_f1.png",
        "ece.png",
    ]
    assert all(map(is_png, paths))


def test_caption_of_one_seed_explains_the_interval(predictions: Predictions) -> None:
    matrix = filled(["a", "b"], predictions)
    caption = _caption(matrix, "accuracy", matrix.summary()["accuracy"])
    assert "95 % bootstrap interval over samples" in caption
    assert "worst 0.800" in caption


def test_caption_of_seeds_explains_the_spread(predictions: Predictions) -> None:
    matrix = filled(["a", "b"], predictions, seeds=2)
    caption = _caption(matrix, "accuracy", matrix.summary()["accuracy"])
    assert "standard deviation over seeds" in caption
    assert "bootstrap" not in caption


def test_caption_says_when_seeds_differ_between_cells(predictions: Predictions) -> None:
    matrix = filled(["a", "b"], predictions)
    matrix.add(1, "a", "a", predictions)
    assert "1 to 2 seeds" in _caption(matrix, "accuracy", matrix.summary()["accuracy"])


def test_caption_names_groups(predictions: Predictions) -> None:
    matrix = CrossDomainMatrix(["a"], ["a"], resamples=5)
    matrix.add(0, "a", "a", predictions, groups=[str(i // 6) for i in range(60)])
    assert "interval over groups" in _caption(matrix, "nll", matrix.summary()["nll"])


@pytest.mark.parametrize(("grey", "ink"), [(0.0, "white"), (0.3, "white"), (0.6, "black")])
def test_text_contrasts_with_its_cell(grey: float, ink: str) -> None:
    assert _ink((grey, grey, grey, 1.0)) == ink


def test_unknown_metric_is_an_error(tmp_path: Path, predictions: Predictions) -> None:
    with pytest.raises(EvaluationError, match="unknown metric 'acc'"):
        save_heatmap(filled(["a"], predictions), "acc", tmp_path / "map.png")


def test_confusion_rows_are_fractions_of_the_true_class() -> None:
    guesses, target = torch.tensor([0, 1, 1, 1]), torch.tensor([0, 0, 0, 1])
    one = Predictions(torch.eye(3)[guesses], target, torch.arange(4))
    nan = float("nan")
    expected = [[1 / 3, 2 / 3, 0], [0, 1, 0], [nan, nan, nan]]
    np.testing.assert_allclose(_fractions("a", one), expected)


def test_confusion_of_masks_is_that_of_all_their_pixels() -> None:
    confusion = torch.tensor([[[1, 1], [0, 4]], [[5, 1], [4, 0]]])
    counts = SegmentationCounts(confusion, torch.zeros(2, 2, 2).long(), torch.arange(2))
    np.testing.assert_allclose(_fractions("a", counts), [[0.75, 0.25], [0.5, 0.5]])


def test_findings_have_no_confusion_matrix(tmp_path: Path) -> None:
    findings = MultiLabelPredictions(torch.rand(2, 3), torch.ones(2, 3).long(), torch.arange(2))
    with pytest.raises(EvaluationError, match="'a' has multilabel predictions, expected one class"):
        save_confusions({"a": findings}, ["x", "y", "z"], tmp_path / "confusions.png")


@pytest.mark.parametrize("domains", [1, 4])
def test_confusions_are_drawn(tmp_path: Path, predictions: Predictions, domains: int) -> None:
    by_domain = {f"domain {i}": predictions for i in range(domains)}
    save_confusions(by_domain, ["x", "y", "long name"], tmp_path / "confusions.png")
    assert is_png(tmp_path / "confusions.png")


def test_confusions_of_many_classes_are_drawn(tmp_path: Path) -> None:
    many = Predictions(torch.eye(40), torch.arange(40), torch.arange(40))
    save_confusions({"a": many}, [str(k) for k in range(40)], tmp_path / "confusions.png")
    assert is_png(tmp_path / "confusions.png")


def test_wrong_number_of_class_names_is_an_error(tmp_path: Path, predictions: Predictions) -> None:
    with pytest.raises(EvaluationError, match="2 class names for the 3 classes of 'a'"):
        save_confusions({"a": predictions}, ["x", "y"], tmp_path / "confusions.png")
