from pathlib import Path

import pytest

from domainnorm.data.datasets import NighttimeDriving
from domainnorm.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("nighttime")
    NighttimeDriving.write_sample(root)
    return root


def test_all_images_are_for_testing(root):
    dataset = NighttimeDriving(root=str(root))
    assert {(record.domain, record.split) for record in dataset.records} == {("night", "test")}


def test_masks_hold_numbers_of_the_classes(root):
    dataset = NighttimeDriving(root=str(root))
    assert dataset.mask(0)[-1, 96] == dataset.class_names.index("road")


def test_the_folder_above_is_refused(root):
    with pytest.raises(DataError, match=r"no file leftImg8bit/test/night/"):
        NighttimeDriving(root=str(root.parent))
