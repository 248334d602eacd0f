from __future__ import annotations

from pathlib import Path

import pytest

from domainnorm.evaluation import METRICS, CrossDomainMatrix, EvaluationError, Predictions
from domainnorm.report import save_heatmap, save_heatmaps
from domainnorm.report.heatmap import _caption, _ink
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
