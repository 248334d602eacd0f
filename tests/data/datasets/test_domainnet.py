from __future__ import annotations

import pytest

from domainnorm.data.datasets import DomainNet
from domainnorm.errors import DataError


@pytest.fixture
def root(tmp_path):
    DomainNet.write_sample(tmp_path)
    return tmp_path


def test_test_images_are_the_official_list(root):
    records = DomainNet(root=str(root)).records
    for domain in ("clipart", "quickdraw"):
        lines = (root / f"{domain}_test.txt").read_text().splitlines()
        assert {line.split()[0] for line in lines} == {
            r.file for r in records if (r.domain, r.split) == (domain, "test")
        }


def test_numbers_of_classes_are_those_of_the_lists(root):
    dataset = DomainNet(root=str(root))
    targets = {record.file: record.target for record in dataset.records}
    for file in root.glob("*.txt"):
        for line in file.read_text().splitlines():
            path, target = line.split()
            assert targets[path] == int(target)


def test_chosen_classes_are_numbered_in_their_order(root):
    dataset = DomainNet(root=str(root), classes=["dog", "bus"])
    assert dataset.class_names == ["dog", "bus"]
    assert {(r.file.split("/")[1], r.target) for r in dataset.records} == {("dog", 0), ("bus", 1)}


def test_unknown_class_gives_the_nearest(root):
    with pytest.raises(DataError, match=r"data\.classes: unknown class 'dgo': did you mean 'dog'"):
        DomainNet(root=str(root), classes=["dgo"])


def test_domain_without_lists_is_not_there(root):
    (root / "real_train.txt").unlink()
    assert "real" not in DomainNet(root=str(root)).domain_names


def test_missing_image_is_named(root):
    (root / "sketch/dog/00000.jpg").unlink()
    with pytest.raises(DataError, match=r"sketch/dog/00000\.jpg: does not exist"):
        DomainNet(root=str(root))
