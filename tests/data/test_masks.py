from __future__ import annotations

import pytest

from domainnorm.data.masks import read_classes
from domainnorm.errors import DataError


@pytest.fixture
def classes(tmp_path):
    def write(text: str):
        file = tmp_path / "classes.txt"
        file.write_text(text, encoding="utf-8")
        return read_classes(file)

    return write


def test_lines_are_names_in_order(classes):
    assert classes("road\nsky\ncar\n")[0] == ["road", "sky", "car"]


def test_colours_follow_their_names(classes):
    assert classes("road,128,64,128\nsky, 70, 130, 180")[1] == [(128, 64, 128), (70, 130, 180)]


def test_classes_without_colours_get_different_ones(classes):
    colours = classes("road\nsky\ncar,1,2,3")[1]
    assert colours[2] == (1, 2, 3)
    assert len(set(colours)) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("road\n\ncar\n", r"line 2: no name; lines are counted"),
        ("road\ncar,1,2\n", r"line 2: 'car,1,2', expected 'name' or 'name,R,G,B'"),
        ("road\ncar,1,2,256\n", r"line 2: 'car,1,2,256'"),
        ("road\ncar\nroad\n", r"line 3: class 'road' is there twice"),
        ("road\n", r"1 classes, expected 2 to 255"),
    ],
)
def test_wrong_line_is_named(classes, text, message):
    with pytest.raises(DataError, match=rf"classes\.txt.*{message}"):
        classes(text)
