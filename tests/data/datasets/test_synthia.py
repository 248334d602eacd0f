from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from domainnorm.data.datasets import Synthia
from domainnorm.errors import DataError


@pytest.fixture
def root(tmp_path) -> Path:
    """Labels as they are published: 16 bits, the class in the first channel."""
    (tmp_path / "RGB").mkdir()
    (tmp_path / "GT/LABELS").mkdir(parents=True)
    for number in range(20):
        name = f"{number:07d}.png"
        cv2.imwrite(str(tmp_path / "RGB" / name), np.zeros((2, 3, 4), np.uint8))
        red = np.array([[3, 1, 22], [21, 17, 0]], np.uint16)
        blue_green_red = np.stack([np.zeros_like(red), 700 + red, red], axis=-1)
        cv2.imwrite(str(tmp_path / "GT/LABELS" / name), blue_green_red)
    return tmp_path


def test_the_first_channel_is_the_class(root):
    dataset = Synthia(root=str(root))
    names = [[*dataset.class_names, "void"][min(value, 19)] for value in dataset.mask(0).flat]
    assert names == ["road", "sky", "void", "wall", "rider", "void"]


def test_thirteen_classes_lack_walls(root):
    assert Synthia(root=str(root), classes="cityscapes13").mask(0)[1, 0] == 255


def test_coloured_label_is_refused(root):
    dataset = Synthia(root=str(root))
    cv2.imwrite(str(root / str(dataset.records[0].mask)), np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match=r"0000000\.png: not a label file of SYNTHIA.*GT/COLOR"):
        dataset.mask(0)


def test_transparent_image_becomes_three_channels(root):
    assert Synthia(root=str(root)).image(0).shape == (2, 3, 3)


def test_sample_holds_what_was_drawn(tmp_path):
    Synthia.write_sample(tmp_path)
    dataset = Synthia(root=str(tmp_path))
    # The class under the middle of the lower edge of every drawn street.
    bottom = [dataset.mask(index)[-1, 96] for index in range(len(dataset.records))]
    assert_array_equal(bottom, dataset.class_names.index("road"))
