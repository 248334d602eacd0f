from __future__ import annotations

import math
from pathlib import Path

import pytest

from domainnorm.evaluation import (
    EvaluationError,
)
from domainnorm.report import (
    Result,
    save_curves,
    save_results_bars,
)
from domainnorm.report.figure import create_figure
from domainnorm.report.result_charts import _draw_panel, _read_panels
from tests.report.conftest import is_png, result

CURVES = """epoch,step,train/loss_step,train/loss_epoch,val/a/loss,val/a/accuracy,val/b/accuracy
0,0,2.0,,,,
0,1,,1.5,,,
0,1,,,1.0,0.25,0.5
0,1,,,2.0,,
1,2,9.0,,,,
1,3,,0.5,0.75,1.0,
"""


def test_bars_of_several_seeds_are_drawn(tmp_path: Path, results: list[Result]) -> None:
    save_results_bars(results, "balanced_accuracy", tmp_path / "bars.png")
    assert is_png(tmp_path / "bars.png")


def test_bars_with_a_missing_method_are_drawn(tmp_path: Path, results: list[Result]) -> None:
    other = [result("tent", 0.3, transfer="b → c", domain="c", intervals={"ece": (0.6, 0.8)})]
    save_results_bars([*results, *other], "ece", tmp_path / "bars.png")
    assert is_png(tmp_path / "bars.png")


def test_bars_need_a_target(tmp_path: Path) -> None:
    source = result("tent", 0.3, domain="a", role="source")
    with pytest.raises(EvaluationError, match="no result on a target domain"):
        save_results_bars([source], "ece", tmp_path / "bars.png")


def test_curves_are_drawn(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CURVES)
    save_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")
    assert is_png(tmp_path / "curves.png")


def test_diverged_curve_says_so(tmp_path: Path) -> None:
    _, ((axes,),) = create_figure(3, 2)
    curves = {"train": {0.0: 2.0, 1.0: math.inf}, "a": {0.0: math.nan}}
    _draw_panel(axes, "loss", curves, {"train": "black", "a": "red"})
    assert [text.get_text() for text in axes.texts] == ["train (then not finite)"]
    assert axes.get_title(loc="left") == "Loss (never finite: a)"


def test_rows_of_one_epoch_are_averaged(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CURVES)
    panels = _read_panels(tmp_path / "metrics.csv")
    assert panels["loss"]["a"] == {0: 1.5, 1: 0.75}


def test_epoch_loss_is_preferred_to_step_loss(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CURVES)
    assert _read_panels(tmp_path / "metrics.csv")["loss"]["train"] == {0: 1.5, 1: 0.5}


def test_loss_is_the_first_panel(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text(CURVES)
    assert list(_read_panels(tmp_path / "metrics.csv")) == ["loss", "accuracy"]


@pytest.mark.parametrize("text", ["", "epoch,step,lr\n0,0,0.1\n", "epoch,train/loss\n0,\n"])
def test_file_without_curves_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(EvaluationError, match=r"metrics\.csv: no values under train/loss"):
        save_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")


def test_broken_curves_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "metrics.csv").write_text("epoch,train/loss\n0,abc\n")
    with pytest.raises(EvaluationError, match=r"metrics\.csv: cannot be read"):
        save_curves(tmp_path / "metrics.csv", tmp_path / "curves.png")


def test_number_of_images_is_no_curve(tmp_path: Path) -> None:
    text = "epoch,val/a/accuracy,val/a/n\n0,0.5,20\n1,0.6,20\n"
    (tmp_path / "metrics.csv").write_text(text)
    assert list(_read_panels(tmp_path / "metrics.csv")) == ["accuracy"]


def test_curves_are_of_the_metrics_asked_for(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "metrics.csv").write_text(CURVES)
    drawn = []
    monkeypatch.setattr(
        "domainnorm.report.result_charts._draw_panel",
        lambda axes, metric, *rest: drawn.append(metric),
    )
    save_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", ["accuracy", "last"])
    save_curves(tmp_path / "metrics.csv", tmp_path / "curves.png", ["last"])
    assert drawn == ["loss", "accuracy", "loss"]
