from __future__ import annotations

import shutil

import cv2
import numpy as np
import pytest
from PIL import Image

from domainnorm.data.datasets import ChaseDb1, Drive, Hrf, Stare
from domainnorm.errors import DataError
from tests.data.datasets.drawn import read, where, write

NAMES = ["chase_db1", "drive", "hrf", "stare"]


@pytest.mark.parametrize("name", NAMES)
def test_all_share_domains_of_their_own_name_and_the_same_classes(name, tmp_path):
    dataset = read(name, tmp_path)
    assert (dataset.domain_names, dataset.class_names) == ([name], ["background", "vessel"])


@pytest.mark.parametrize("name", NAMES)
def test_mask_has_the_size_of_its_image(name, tmp_path):
    dataset = read(name, tmp_path)
    assert dataset.mask(0).shape == dataset.image(0).shape[:2]


@pytest.mark.parametrize("name", NAMES)
def test_mask_and_image_show_the_same_places(name, tmp_path):
    dataset = read(name, tmp_path)
    image, classes = dataset.image(0).astype(float), dataset.mask(0)
    assert np.abs(image[classes == 1].mean(0) - image[classes == 0].mean(0)).max() > 10


@pytest.mark.parametrize("name", ["drive", "hrf"])
def test_outside_of_the_field_of_view_has_no_class(name, tmp_path):
    assert read(name, tmp_path).mask(0)[0, 0] == 255


@pytest.mark.parametrize("name", ["drive", "hrf"])
def test_outside_of_the_field_of_view_can_be_background(name, tmp_path):
    dataset = read(name, tmp_path, fov="keep")
    assert set(np.unique(dataset.mask(0))) == {0, 1}


def test_drive_tests_on_its_official_half(tmp_path):
    dataset = read("drive", tmp_path)
    files = {dataset.records[i].file.split("/")[0] for i in where(dataset, split="test")}
    assert files == {"test"}


def test_drive_without_test_labels_says_what_to_do(tmp_path):
    write("drive", tmp_path)
    shutil.rmtree(tmp_path / "test/1st_manual")
    with pytest.raises(DataError, match=r"test/1st_manual: no such folder.*data\.split to 'train"):
        Drive(root=str(tmp_path))


def test_drive_can_be_split_without_test_labels(tmp_path):
    write("drive", tmp_path)
    shutil.rmtree(tmp_path / "test")
    dataset = Drive(root=str(tmp_path), split="training")
    assert len(where(dataset, split="test")) == 3


def test_drive_split_of_the_training_half_depends_on_the_seed(tmp_path):
    write("drive", tmp_path)
    tests = set()
    for seed in range(5):
        dataset = Drive(root=str(tmp_path), split="training", split_seed=seed)
        tests.add(tuple(dataset.records[i].file for i in where(dataset, split="test")))
    assert len(tests) > 1


def test_eyes_of_a_child_are_in_one_split(tmp_path):
    dataset = read("chase_db1", tmp_path)
    pairs = {(record.group, record.split) for record in dataset.records}
    assert len(pairs) == len(dataset.records) / 2


def test_chase_tests_on_children_from_eleven(tmp_path):
    dataset = read("chase_db1", tmp_path)
    names = {dataset.records[i].file[:8] for i in where(dataset, split="test")}
    assert names == {"Image_11", "Image_12"}


def test_stare_trains_on_the_first_ten(tmp_path):
    dataset = read("stare", tmp_path)
    tested = [dataset.records[i].file for i in where(dataset, split="test")]
    assert tested == [f"stare-images/im00{number}.ppm" for number in (11, 12, 13)]


def test_hrf_tells_the_diagnosis(tmp_path):
    dataset = read("hrf", tmp_path)
    found = {record.file: record.metadata["diagnosis"] for record in dataset.records}
    assert found["images/01_dr.JPG"] == "diabetic_retinopathy"
    assert found["images/01_h.jpg"] == "healthy"


def test_one_bit_labels_are_read(tmp_path):
    write("chase_db1", tmp_path)
    file = tmp_path / "Image_01L_1stHO.png"
    before = ChaseDb1(root=str(tmp_path)).mask(0)
    Image.open(file).convert("1").save(file)
    np.testing.assert_array_equal(ChaseDb1(root=str(tmp_path)).mask(0), before)


def test_missing_labels_name_the_file(tmp_path):
    write("stare", tmp_path)
    (tmp_path / "labels-ah/im0003.ah.ppm").unlink()
    with pytest.raises(DataError, match=r"im0003\.ah\.ppm: missing, but .*im0003\.ppm is there"):
        Stare(root=str(tmp_path))


def test_missing_folder_gives_the_layout(tmp_path):
    with pytest.raises(DataError, match=r"images: no such folder; .*manual1/01_h\.tif"):
        Hrf(root=str(tmp_path))


def test_other_names_are_refused(tmp_path):
    write("hrf", tmp_path)
    cv2.imwrite(str(tmp_path / "images/overview.jpg"), np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(DataError, match=r"overview\.jpg: expected names such as 01_h\.jpg"):
        Hrf(root=str(tmp_path))


def test_field_of_view_of_another_size_is_refused(tmp_path):
    write("drive", tmp_path)
    Image.new("L", (10, 10)).save(tmp_path / "training/mask/21_training_mask.gif")
    dataset = Drive(root=str(tmp_path))
    index = where(dataset, file="training/images/21_training.tif")[0]
    with pytest.raises(DataError, match=r"21_training_mask\.gif: 10 × 10 pixels"):
        dataset.mask(index)


def test_unknown_domain_is_refused(tmp_path):
    write("drive", tmp_path)
    with pytest.raises(DataError, match=r"unknown domain 'stare'.*known: drive"):
        Drive(root=str(tmp_path), domains=["stare"])
