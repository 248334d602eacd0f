from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from domainnorm.data.datasets import GTA5, Synthia
from domainnorm.errors import DataError


@pytest.fixture
def game(tmp_path) -> Path:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(1, 1200, 30):
        name = f"{number:05d}.png"
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((4, 6, 3), np.uint8))
        cv2.imwrite(str(tmp_path / "labels" / name), np.full((4, 6), 7, np.uint8))
    return tmp_path


def test_neighbouring_frames_are_in_one_split(game):
    splits: dict[str, set[str]] = {}
    for record in GTA5(root=str(game), test_fraction=0.3, val_fraction=0.3).records:
        splits.setdefault(Path(record.file).stem[:3], set()).add(record.split)
    assert all(len(of_run) == 1 for of_run in splits.values())
    assert set().union(*splits.values()) == {"train", "val", "test"}


def test_ids_are_those_of_cityscapes(game):
    dataset = GTA5(root=str(game))
    assert (dataset.mask(0) == dataset.class_names.index("road")).all()


def test_label_of_another_size_is_void_in_the_size_of_its_image(game):
    dataset = GTA5(root=str(game))
    cv2.imwrite(str(game / str(dataset.records[0].mask)), np.full((5, 6), 7, np.uint8))
    assert (dataset.mask(0) == np.full((4, 6), 255)).all()


@pytest.fixture
def rendered(tmp_path) -> Path:
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


def test_one_flipped_bit_of_a_label_file_is_refused(rendered):
    dataset = Synthia(root=str(rendered))
    file = rendered / str(dataset.records[0].mask)
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    with pytest.raises(DataError, match=r"LABELS/\d+\.png: not a readable mask"):
        dataset.mask(0)


def test_the_first_channel_is_the_class(rendered):
    dataset = Synthia(root=str(rendered))
    names = [[*dataset.class_names, "void"][min(value, 19)] for value in dataset.mask(0).flat]
    assert names == ["road", "sky", "void", "wall", "rider", "void"]


def test_thirteen_classes_lack_walls(rendered):
    assert Synthia(root=str(rendered), classes="cityscapes13").mask(0)[1, 0] == 255


def test_coloured_label_is_refused(rendered):
    dataset = Synthia(root=str(rendered))
    cv2.imwrite(str(rendered / str(dataset.records[0].mask)), np.zeros((2, 3), np.uint8))
    with pytest.raises(DataError, match=r"0000000\.png: not a label file of SYNTHIA.*GT/COLOR"):
        dataset.mask(0)


def test_transparent_image_becomes_three_channels(rendered):
    assert Synthia(root=str(rendered)).image(0).shape == (2, 3, 3)


def test_sample_holds_what_was_drawn(tmp_path):
    Synthia.write_sample(tmp_path)
    dataset = Synthia(root=str(tmp_path))
    # The class under the middle of the lower edge of every drawn street.
    bottom = [dataset.mask(index)[-1, 96] for index in range(len(dataset.records))]
    assert_array_equal(bottom, dataset.class_names.index("road"))
