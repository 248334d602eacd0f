from pathlib import Path

import cv2
import numpy as np
import pytest

from domainnorm.data.datasets import GTA5


@pytest.fixture
def root(tmp_path) -> Path:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
    for number in range(1, 1200, 30):
        name = f"{number:05d}.png"
        cv2.imwrite(str(tmp_path / "images" / name), np.zeros((4, 6, 3), np.uint8))
        cv2.imwrite(str(tmp_path / "labels" / name), np.full((4, 6), 7, np.uint8))
    return tmp_path


def test_neighbouring_frames_are_in_one_split(root):
    splits: dict[str, set[str]] = {}
    for record in GTA5(root=str(root), test_fraction=0.3, val_fraction=0.3).records:
        splits.setdefault(Path(record.file).stem[:3], set()).add(record.split)
    assert all(len(of_run) == 1 for of_run in splits.values())
    assert set().union(*splits.values()) == {"train", "val", "test"}


def test_ids_are_those_of_cityscapes(root):
    dataset = GTA5(root=str(root))
    assert (dataset.mask(0) == dataset.class_names.index("road")).all()


def test_label_of_another_size_is_void_in_the_size_of_its_image(root):
    dataset = GTA5(root=str(root))
    cv2.imwrite(str(root / str(dataset.records[0].mask)), np.full((5, 6), 7, np.uint8))
    assert (dataset.mask(0) == np.full((4, 6), 255)).all()
