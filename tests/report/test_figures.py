from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from domainnorm.evaluation import (
    EvaluationError,
    MultiLabelPredictions,
    Predictions,
    SegmentationCounts,
)
from domainnorm.report import (
    Result,
    save_confusions,
    save_contact_sheet,
    save_curves,
    save_reliability,
    save_results_bars,
)
from domainnorm.report.canvas import create_figure
from domainnorm.report.confusions import _fractions
from domainnorm.report.curves import _draw_panel, _read_panels
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
    axes = create_figure(3, 2).add_subplot()
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


def test_contact_sheet_takes_colour_grey_and_no_images(tmp_path: Path) -> None:
    colour, grey = np.zeros((8, 6, 3), np.uint8), np.zeros((4, 4, 1), np.uint8)
    images = {"a": [colour, colour], "b": [grey, grey[..., 0]], "c": []}
    save_contact_sheet(images, tmp_path / "sheet.png", "Images")
    assert is_png(tmp_path / "sheet.png")


def test_captions_stand_below_their_images(tmp_path: Path) -> None:
    images = {"a": [np.zeros((8, 8, 3), np.uint8)] * 2}
    sizes = []
    for captions in (None, {"a": ["b 0.70\nc 0.30", "$b$ 1.00"]}):
        save_contact_sheet(images, tmp_path / "sheet.png", captions=captions)
        with Image.open(tmp_path / "sheet.png") as sheet:
            sizes.append(sheet.size)
    assert sizes[1][0] == sizes[0][0]
    assert sizes[1][1] > sizes[0][1]


def test_float_image_is_named(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), np.float32)
    with pytest.raises(EvaluationError, match=r"image of 'a' is float32 \(8, 8, 3\)"):
        save_contact_sheet({"a": [image]}, tmp_path / "sheet.png")  # type: ignore[list-item]


@pytest.mark.parametrize("images", [{}, {"a": []}])
def test_contact_sheet_needs_an_image(tmp_path: Path, images: dict[str, list[object]]) -> None:
    with pytest.raises(EvaluationError, match="no image came"):
        save_contact_sheet(images, tmp_path / "sheet.png")  # type: ignore[arg-type]


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


@pytest.mark.parametrize("domains", [1, 5])
def test_reliability_is_drawn(tmp_path: Path, predictions: Predictions, domains: int) -> None:
    by_domain = {f"domain {i}": predictions for i in range(domains)}
    save_reliability(by_domain, tmp_path / "reliability.png")
    assert is_png(tmp_path / "reliability.png")


def test_reliability_needs_a_domain(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="no domain came"):
        save_reliability({}, tmp_path / "reliability.png")


def test_number_of_images_is_no_curve(tmp_path: Path) -> None:
    text = "epoch,val/a/accuracy,val/a/n\n0,0.5,20\n1,0.6,20\n"
    (tmp_path / "metrics.csv").write_text(text)
    assert list(_read_panels(tmp_path / "metrics.csv")) == ["accuracy"]
