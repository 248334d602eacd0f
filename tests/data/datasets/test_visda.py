from __future__ import annotations

import pytest

from domainnorm.data.datasets import VisDA
from domainnorm.errors import DataError


@pytest.fixture
def root(tmp_path):
    VisDA.write_sample(tmp_path)
    return tmp_path


def test_targets_are_those_of_the_lists(root):
    dataset = VisDA(root=str(root))
    targets = {record.file: record.target for record in dataset.records}
    for domain in dataset.domain_names:
        for line in (root / domain / "image_list.txt").read_text().splitlines():
            file, target = line.split()
            assert targets[f"{domain}/{file}"] == int(target)


def test_views_of_one_model_are_a_group(root):
    records = [record for record in VisDA(root=str(root)).records if record.domain == "train"]
    assert len(records) == 2 * len({record.group for record in records})


def test_photographs_are_groups_of_their_own(root):
    records = VisDA(root=str(root), domains=["validation", "test"]).records
    assert len(records) == len({record.group for record in records})


def test_list_without_labels_gives_unlabelled_images(root):
    file = root / "test/image_list.txt"
    file.write_text("".join(f"{line.split()[0]}\n" for line in file.read_text().splitlines()))
    records = VisDA(root=str(root)).records
    assert {record.domain for record in records if not record.is_labelled} == {"test"}


def test_test_folder_may_be_absent(root):
    (root / "test").rename(root / "later")
    assert VisDA(root=str(root)).domain_names == ["train", "validation"]


def test_label_out_of_range_names_the_list(root):
    file = root / "train/image_list.txt"
    file.write_text(file.read_text() + "car/x.png 12\n")
    with pytest.raises(DataError, match=r"train/image_list\.txt: label 12, expected 0 to 11"):
        VisDA(root=str(root))


def test_missing_image_is_named(root):
    (root / "validation/car/car_0.jpg").unlink()
    with pytest.raises(DataError, match=r"validation/car/car_0\.jpg: does not exist, but image_l"):
        VisDA(root=str(root))


def test_missing_list_is_named(root):
    (root / "train/image_list.txt").unlink()
    with pytest.raises(DataError, match=r"train/image_list\.txt: cannot be read \(No such file"):
        VisDA(root=str(root))
