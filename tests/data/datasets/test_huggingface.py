from __future__ import annotations

import datasets
import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from domainnorm.data.datasets import HuggingFace
from domainnorm.errors import DataError


def picture(value: int) -> Image.Image:
    return Image.fromarray(np.full((6, 7, 3), value, np.uint8))


@pytest.fixture
def part():
    """Ten pictures of each of two sites, in one split, with names of classes as text."""
    return datasets.Dataset.from_list(
        [
            {"image": picture(number), "label": "ab"[number % 2], "domain": site}
            for site in ("x", "y")
            for number in range(10)
        ],
        features=datasets.Features(
            image=datasets.Image(), label=datasets.Value("string"), domain=datasets.Value("string")
        ),
    )


@pytest.fixture
def saved(tmp_path):
    def save(dataset) -> str:
        dataset.save_to_disk(tmp_path / "set")
        return str(tmp_path / "set")

    return save


def test_image_belongs_to_its_record(saved, part):
    dataset = HuggingFace(root=saved(part))
    for index, record in enumerate(dataset.records):
        number = int(record.file.split("/")[1]) % 10
        assert dataset.class_names[record.target] == "ab"[number % 2]
        assert_array_equal(dataset.image(index), np.full((6, 7, 3), number))


def test_label_that_is_no_number_is_missing(saved, part):
    labels = [float("nan"), *(float(number % 2) for number in range(1, 20))]
    dataset = HuggingFace(root=saved(part.remove_columns("label").add_column("label", labels)))
    assert dataset.class_names == ["0.0", "1.0"]
    assert [r.file for r in dataset.records if not r.is_labelled] == ["train/000000"]


def test_one_split_is_cut_into_three(saved, part):
    records = HuggingFace(root=saved(part)).records
    assert {(r.domain, r.split) for r in records} == {
        (site, split) for site in "xy" for split in ("train", "val", "test")
    }


def test_splits_of_the_dataset_are_used(saved, part):
    parts = {"train": part.select(range(12)), "validation": part.select(range(12, 16))}
    root = saved(datasets.DatasetDict({**parts, "test": part.select(range(16, 20))}))
    counts = [record.split for record in HuggingFace(root=root).records]
    assert [counts.count(split) for split in ("train", "val", "test")] == [12, 4, 4]


def test_classes_keep_the_order_of_their_feature(saved, part):
    root = saved(part.cast_column("label", datasets.ClassLabel(names=["b", "a", "c"])))
    assert HuggingFace(root=root).class_names == ["b", "a", "c"]


def test_missing_label_is_no_label(saved, part):
    lines = part.to_list()
    lines[3]["label"] = None
    root = saved(datasets.Dataset.from_list(lines, features=part.features))
    assert sum(not record.is_labelled for record in HuggingFace(root=root).records) == 1


def test_group_is_kept_whole(saved, part):
    groups = [f"g{number // 2}" for number in range(20)]
    records = HuggingFace(root=saved(part.add_column("group", groups))).records
    assert len({(r.group, r.split) for r in records}) == 10


def test_columns_may_have_other_names(saved, part):
    root = saved(part.rename_columns({"image": "scan", "domain": "hospital"}))
    dataset = HuggingFace(root=root, columns={"image": "scan", "domain": "hospital"})
    assert dataset.domain_names == ["x", "y"]
    assert dataset.image(0).shape == (6, 7, 3)


def test_root_is_below_the_environment_variable(saved, part, monkeypatch, tmp_path):
    saved(part)
    monkeypatch.setenv("DOMAINNORM_DATA", str(tmp_path))
    assert len(HuggingFace(root="set").records) == 20


def test_missing_column_is_named(saved, part):
    root = saved(part.rename_column("domain", "site"))
    with pytest.raises(DataError, match=r"train: unknown column 'domain'.*name it with data\.col"):
        HuggingFace(root=root)


def test_unknown_column_key_is_named(saved, part):
    with pytest.raises(DataError, match=r"data\.columns: unknown column 'lable': did you mean"):
        HuggingFace(root=saved(part), columns={"lable": "x"})


def test_unknown_split_is_named(saved, part):
    with pytest.raises(DataError, match="unknown split 'extra'"):
        HuggingFace(root=saved(datasets.DatasetDict(extra=part)))


def test_what_is_no_dataset_is_named(tmp_path):
    with pytest.raises(DataError, match=r"data\.root: '.*' is neither a folder that save_to_disk"):
        HuggingFace(root=str(tmp_path))
