from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from domainnorm.data.datasets import DrishtiGs, Refuge, RimOne
from domainnorm.errors import DataError
from tests.data.datasets.drawn import read, where, write

NAMES = ["refuge", "drishti_gs", "rim_one"]


@pytest.mark.parametrize("name", NAMES)
def test_cup_lies_in_the_disc(name, tmp_path):
    dataset = read(name, tmp_path)
    classes = dataset.mask(0)
    rows, columns = np.nonzero(classes > 0)
    inner_rows, inner_columns = np.nonzero(classes == 2)
    assert rows.min() <= inner_rows.min() <= inner_rows.max() <= rows.max()
    assert columns.min() <= inner_columns.min() <= inner_columns.max() <= columns.max()
    assert dataset.class_names == ["background", "disc", "cup"]


def test_cameras_of_refuge_are_domains(tmp_path):
    dataset = read("refuge", tmp_path)
    folders = {(record.domain, record.file.split("/")[0]) for record in dataset.records}
    assert folders == {
        ("refuge_zeiss", "Training400"),
        ("refuge_canon", "REFUGE-Validation400"),
        ("refuge_canon", "Test400"),
    }


def test_both_diagnoses_are_in_every_split_of_the_zeiss_camera(tmp_path):
    dataset = read("refuge", tmp_path)
    pairs = {
        (dataset.records[i].split, dataset.records[i].metadata["diagnosis"])
        for i in where(dataset, domain="refuge_zeiss")
    }
    assert len(pairs) == 6


def test_archives_may_be_unpacked_into_folders_of_their_names(tmp_path):
    write("refuge", tmp_path)
    (tmp_path / "REFUGE-Training400").mkdir()
    (tmp_path / "Training400").rename(tmp_path / "REFUGE-Training400/Training400")
    dataset = Refuge(root=str(tmp_path), domains=["refuge_zeiss"])
    assert dataset.image(0).shape == (96, 100, 3)


@pytest.mark.parametrize("name", ["refuge", "drishti_gs"])
def test_region_is_a_square_with_the_disc_in_its_middle(name, tmp_path):
    dataset = read(name, tmp_path, region="disc")
    image, classes = dataset.image(0), dataset.mask(0)
    assert image.shape == (*classes.shape, 3)
    assert classes.shape[0] == classes.shape[1]
    rows, columns = np.nonzero((classes == 1) | (classes == 2))
    middle = classes.shape[0] / 2
    for places in (rows, columns):
        assert (places.min() + places.max() + 1) / 2 == pytest.approx(middle, abs=1)


def test_region_beyond_the_edge_has_no_class(tmp_path):
    write("drishti_gs", tmp_path)
    folder = tmp_path / "Drishti-GS1_files/Training/GT/drishtiGS_001/SoftMap"
    disc = np.zeros((96, 112), np.uint8)
    disc[:20, :20] = 255
    Image.fromarray(disc).save(folder / "drishtiGS_001_ODsegSoftmap.png")
    Image.fromarray(np.zeros_like(disc)).save(folder / "drishtiGS_001_cupsegSoftmap.png")
    dataset = DrishtiGs(root=str(tmp_path), region="disc")
    index = where(dataset, file="Drishti-GS1_files/Training/Images/drishtiGS_001.png")[0]
    classes = dataset.mask(index)
    assert classes.shape == (50, 50)
    assert (classes[:15] == 255).all()
    assert (classes[15:35, 15:35] > 0).all()
    assert not dataset.image(index)[:15].any()


def test_region_is_the_same_where_labels_are_hidden(tmp_path):
    dataset = read("refuge", tmp_path, region="disc")
    index = where(dataset, domain="refuge_canon")[0]
    hidden = dataset.without_labels(["refuge_canon"])
    np.testing.assert_array_equal(hidden.image(index), dataset.image(index))


def test_three_of_four_experts_are_a_majority_and_two_are_not(tmp_path):
    write("drishti_gs", tmp_path)
    folder = tmp_path / "Drishti-GS1_files/Training/GT/drishtiGS_001/SoftMap"
    votes = np.repeat(np.array([[0, 64, 127, 191, 255]], np.uint8), 96, axis=0)
    Image.fromarray(votes).save(folder / "drishtiGS_001_ODsegSoftmap.png")
    Image.fromarray(np.zeros_like(votes)).save(folder / "drishtiGS_001_cupsegSoftmap.png")
    dataset = DrishtiGs(root=str(tmp_path))
    index = where(dataset, file="Drishti-GS1_files/Training/Images/drishtiGS_001.png")[0]
    assert dataset.mask(index)[0].tolist() == [0, 0, 0, 1, 1]


def test_drishti_tests_on_its_official_half(tmp_path):
    dataset = read("drishti_gs", tmp_path)
    tested = {dataset.records[i].file.split("/")[1] for i in where(dataset, split="test")}
    assert tested == {"Test"}


def test_rim_one_tests_on_other_hospitals(tmp_path):
    dataset = read("rim_one", tmp_path)
    tested = {dataset.records[i].metadata["release"] for i in where(dataset, split="test")}
    trained = {dataset.records[i].metadata["release"] for i in where(dataset, split="train")}
    assert not tested & trained


def test_partition_of_rim_one_that_is_absent_names_its_folder(tmp_path):
    write("rim_one", tmp_path)
    with pytest.raises(DataError, match=r"partitioned_randomly/training_set/glaucoma: no such"):
        RimOne(root=str(tmp_path), partition="random")


def test_photograph_without_soft_map_is_refused(tmp_path):
    write("drishti_gs", tmp_path)
    truth = tmp_path / "Drishti-GS1_files/Test/Test_GT/drishtiGS_012/SoftMap"
    (truth / "drishtiGS_012_cupsegSoftmap.png").unlink()
    with pytest.raises(DataError, match=r"drishtiGS_012_cupsegSoftmap\.png: missing"):
        DrishtiGs(root=str(tmp_path))
