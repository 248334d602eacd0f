from __future__ import annotations

import pytest

from domainnorm.data.datasets import PACS
from domainnorm.errors import DataError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("pacs")
    PACS.write_sample(root)
    return root


@pytest.fixture
def root(tmp_path):
    PACS.write_sample(tmp_path)
    return tmp_path


def splits(dataset):
    return {record.file.removeprefix("kfold/"): record.split for record in dataset.records}


def listed(root, name):
    lines = (root / "pacs_label" / name).read_text().splitlines()
    return {line.split()[0] for line in lines}


def test_validation_is_the_official_list(written):
    found = splits(PACS(root=str(written), domains=["sketch"]))
    validation = {file for file, split in found.items() if split == "val"}
    assert validation == listed(written, "sketch_crossval_kfold.txt")


def test_test_images_are_a_part_of_the_training_list(written):
    found = splits(PACS(root=str(written), domains=["sketch"], test_fraction=0.3))
    tested = {file for file, split in found.items() if split == "test"}
    training = listed(written, "sketch_train_kfold.txt")
    assert tested < training
    assert len(tested) / len(training) == pytest.approx(0.3, abs=0.02)


def test_target_is_the_class_of_the_folder(written):
    dataset = PACS(root=str(written))
    assert all(f"/{dataset.class_names[r.target]}/" in r.file for r in dataset.records)


@pytest.mark.parametrize(
    ("images", "lists"),
    [
        ("pacs_data", "pacs_label"),
        ("Raw images/kfold", "Train val splits and h5py files pre-read"),
        ("kfold", "splits"),
    ],
)
def test_folders_have_the_names_of_any_official_archive(root, images, lists):
    (root / images).parent.mkdir(exist_ok=True)
    (root / "kfold").rename(root / images)
    (root / "pacs_label").rename(root / lists)
    dataset = PACS(root=str(root))
    assert dataset.records[0].file.startswith(f"{images}/photo/")
    assert dataset.image(0).shape == (64, 64, 3)


def test_images_and_lists_may_lie_in_the_root(root):
    for folder in ("kfold", "pacs_label"):
        for entry in (root / folder).iterdir():
            entry.rename(root / entry.name)
    assert PACS(root=str(root)).records[0].file.startswith("photo/")


def test_spoilt_image_is_left_out(root):
    spoilt = "sketch/dog/n02103406_4068-1.png"
    with (root / "pacs_label/sketch_train_kfold.txt").open("a") as stream:
        stream.write(f"{spoilt} 1\n")
    assert spoilt not in splits(PACS(root=str(root)))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("pacs_label/photo_train_kfold.txt", "photo_train_kfold.txt: the official list does not"),
        ("pacs_label/sketch_crossval_kfold.txt", "sketch_crossval_kfold.txt: cannot be read"),
        ("kfold/cartoon/dog/00001.jpg", r"1\.jpg: does not exist, but pacs_label lists it \(1 of"),
    ],
)
def test_missing_file_is_named(root, file, message):
    (root / file).unlink()
    with pytest.raises(DataError, match=message):
        PACS(root=str(root))


def test_label_that_is_no_number_is_named(root):
    (root / "pacs_label/photo_train_kfold.txt").write_text("photo/dog/1.jpg dog\n")
    with pytest.raises(DataError, match=r"line 1: 'photo/dog/1.jpg dog', expected '<path> <num"):
        PACS(root=str(root))
