from pathlib import Path

import pytest

from domainnorm.data.datasets import DarkZurich
from domainnorm.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("dark_zurich")
    DarkZurich.write_sample(root)
    return root


def test_only_test_images_have_masks(root):
    records = DarkZurich(root=str(root)).records
    assert {(r.split == "test", r.is_labelled) for r in records} == {(True, True), (False, False)}


def test_only_the_night_is_tested(root):
    records = DarkZurich(root=str(root)).records
    assert {r.domain for r in records if r.split == "test"} == {"night"}


def test_mask_of_an_unlabelled_image_is_refused(root):
    dataset = DarkZurich(root=str(root))
    with pytest.raises(DataError, match=r"_rgb_anon\.png: no mask is known for this image"):
        dataset.mask(0)


def test_hour_is_known(root):
    records = DarkZurich(root=str(root)).records
    assert all(record.metadata["time_of_day"] == record.domain for record in records)
