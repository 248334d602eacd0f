from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from domainnorm.evaluation import EvaluationError
from domainnorm.report import Overlay, save_contact_sheet, save_overlays
from domainnorm.report.image_sheets import _caption, _outline, _paint
from tests.report.conftest import is_png

NAMES = ["background", "cell", "nucleus"]
COLOURS = [(0, 0, 0), (200, 0, 0), (0, 0, 200)]
TRUTH = np.array([[0, 0, 1, 1], [0, 255, 1, 1], [2, 2, 1, 1]])


def row(truth: np.ndarray = TRUTH, **masks: np.ndarray) -> Overlay:
    image = np.full((3, 4, 3), 100, dtype=np.uint8)
    return Overlay(image, truth, masks, "site $a")


def test_overlays_of_several_sizes_and_models_are_drawn(tmp_path: Path) -> None:
    rows = [row(source_only=np.zeros((3, 4), np.uint8), tent=np.ones((3, 4), int)), row()]
    rows.append(Overlay(np.zeros((9, 5, 3), np.uint8), np.zeros((9, 5), np.uint8)))
    save_overlays(rows, tmp_path / "overlays.png", NAMES, COLOURS, "wbc_seg")
    assert is_png(tmp_path / "overlays.png")


def test_column_of_truth_is_left_out_where_nobody_knows_it(tmp_path: Path) -> None:
    known, mask = row(prediction=TRUTH.clip(0, 2)), TRUTH.clip(0, 2)
    unknown = Overlay(known.image, None, {"prediction": mask}, "site $a")
    for name, rows in (("with", [known, unknown]), ("without", [unknown, unknown])):
        save_overlays(rows, tmp_path / f"{name}.png", NAMES, COLOURS)
    widths = [cv2.imread(str(tmp_path / f"{name}.png")).shape[1] for name in ("with", "without")]
    assert widths[0] > widths[1]


def test_inside_of_a_class_is_mixed_with_its_colour() -> None:
    image = np.full((5, 5, 3), 100, dtype=np.uint8)
    painted = _paint(image, np.ones((5, 5), int), np.array(COLOURS, float), [1, 2])
    assert np.unique(painted.reshape(-1, 3), axis=0).tolist() == [[145, 55, 55]]


def test_borders_have_the_colour_of_their_class() -> None:
    painted = _paint(row().image, TRUTH, np.array(COLOURS, float), [1, 2])
    assert painted[0, 2].tolist() == [200, 0, 0]
    assert painted[2, 1].tolist() == [0, 0, 200]


def test_void_and_background_show_the_image() -> None:
    painted = _paint(row().image, TRUTH, np.array(COLOURS, float), [1, 2])
    assert (painted[(TRUTH == 0) | (TRUTH == 255)] == 100).all()


def test_outline_is_on_both_sides_of_a_border() -> None:
    mask = np.array([[0, 0, 1, 1, 1]])
    assert _outline(mask).tolist() == [[False, True, True, False, False]]


def test_caption_is_the_mean_iou_of_the_image_without_void() -> None:
    guess = np.where(TRUTH == 2, 1, TRUTH)
    guess[TRUTH == 255] = 2
    # background 1, cell 6/8, nucleus 0
    assert _caption(TRUTH, guess, 3) == f"mIoU {(1 + 6 / 8 + 0) / 3:.2f}"


def test_caption_says_when_there_is_no_truth() -> None:
    assert _caption(np.full((3, 4), -1), np.zeros((3, 4), int), 3) == "no truth"


@pytest.mark.parametrize(
    ("rows", "colours", "message"),
    [
        ([], COLOURS, "no image came"),
        ([row()], COLOURS[:2], "2 colours for 3 classes"),
        (
            [row(tent=np.zeros((4, 3), int))],
            COLOURS,
            r"mask 'tent' of 'site \$a' has shape \(4, 3\)",
        ),
        ([row(tent=np.full((3, 4), 3))], COLOURS, "mask 'tent' of 'site .a' has class 3"),
        ([row(tent=np.full((3, 4), 255))], COLOURS, "has class 255, expected 0 to 2"),
        ([row(np.full((3, 4), 7))], COLOURS, "mask 'truth' of 'site .a' has class 7"),
        ([Overlay(np.zeros((3, 4)), TRUTH)], COLOURS, r"is float64 \(3, 4\); expected uint8"),
    ],
)
def test_what_cannot_be_drawn_is_named(
    tmp_path: Path, rows: list[Overlay], colours: list[tuple[int, int, int]], message: str
) -> None:
    with pytest.raises(EvaluationError, match=message):
        save_overlays(rows, tmp_path / "overlays.png", NAMES, colours)


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
