from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from domainnorm.data.datasets import Cityscapes
from domainnorm.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("cityscapes")
    Cityscapes.write_sample(root)
    return root


def test_official_val_is_the_test_split(root):
    dataset = Cityscapes(root=str(root))
    tested = {r.file.split("/")[1] for r in dataset.records if r.split == "test"}
    assert tested == {"val"}


def test_validation_is_cut_from_train(root):
    dataset = Cityscapes(root=str(root), val_fraction=0.5)
    trained = [record for record in dataset.records if "/train/" in record.file]
    assert Counter(record.split for record in trained) == {"train": 4, "val": 4}


def test_city_and_sequence_make_the_group(root):
    record = Cityscapes(root=str(root)).records[0]
    assert (record.group, record.metadata) == (
        "aachen_000000",
        {"city": "aachen", "sequence": "000000"},
    )


def test_ids_become_classes(root):
    dataset = Cityscapes(root=str(root))
    mask = dataset.mask(0)
    assert np.isin(dataset.class_names.index("road"), mask)
    assert mask.max() < 19


def test_classes_without_counterpart_are_void(root):
    small = Cityscapes(root=str(root), classes="cityscapes13")
    wide = Cityscapes(root=str(root))
    gone = np.isin(wide.mask(0), [wide.class_names.index(name) for name in ("pole", "terrain")])
    assert gone.any()
    assert (small.mask(0)[gone] == 255).all()


def test_colours_are_those_of_the_label_set(root):
    assert Cityscapes(root=str(root)).class_colours[0] == (128, 64, 128)


def test_missing_masks_are_refused(root, tmp_path):
    (tmp_path / "leftImg8bit").symlink_to(root / "leftImg8bit", target_is_directory=True)
    with pytest.raises(DataError, match=r"no file gtFine/.*docs/data_driving\.md"):
        Cityscapes(root=str(tmp_path))


def test_unknown_label_set_is_refused(root):
    with pytest.raises(DataError, match=r"data\.classes: unknown label set 'cityscapes20'"):
        Cityscapes(root=str(root), classes="cityscapes20")


def test_unknown_domain_is_refused(root):
    with pytest.raises(DataError, match=r"unknown domain 'city'.*did you mean 'cityscapes'"):
        Cityscapes(root=str(root), domains=["city"])
