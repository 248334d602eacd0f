from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from domainnorm.data.datasets import Camelyon17, WhiteBloodCells
from domainnorm.errors import DataError
from tests.data.datasets.drawn import read, where, write


def test_black_grey_and_white_are_background_cytoplasm_and_nucleus(tmp_path):
    write("wbc", tmp_path)
    greys = np.array([[0, 1, 128, 127, 254, 255]], np.uint8)
    Image.fromarray(greys).save(tmp_path / "Dataset 1/001.png")
    dataset = WhiteBloodCells(root=str(tmp_path))
    index = where(dataset, file="Dataset 1/001.bmp")[0]
    assert dataset.mask(index).tolist() == [[0, 0, 1, 1, 2, 2]]


def test_mask_and_image_show_the_same_places(tmp_path):
    dataset = read("wbc", tmp_path)
    for domain in dataset.domain_names:
        index = where(dataset, domain=domain)[0]
        image, classes = dataset.image(index).astype(float), dataset.mask(index)
        assert np.abs(image[classes == 2].mean(0) - image[classes == 1].mean(0)).max() > 20


def test_kind_of_cell_is_metadata(tmp_path):
    dataset = read("wbc", tmp_path)
    kinds = {record.file: record.metadata["cell"] for record in dataset.records}
    assert (kinds["Dataset 1/002.bmp"], kinds["Dataset 2/001.bmp"]) == ("neutrophil", "lymphocyte")


def test_image_without_a_row_is_refused(tmp_path):
    write("wbc", tmp_path)
    table = tmp_path / "Class Labels of Dataset 2.csv"
    table.write_text("\n".join(table.read_text().splitlines()[:-1]))
    with pytest.raises(DataError, match=r"Dataset 2\.csv: no row for image 020"):
        WhiteBloodCells(root=str(tmp_path))


def test_unknown_label_is_refused(tmp_path):
    write("wbc", tmp_path)
    (tmp_path / "Class Labels of Dataset 1.csv").write_text("image ID,class label\n1,9\n")
    with pytest.raises(DataError, match=r"Dataset 1\.csv: expected rows such as '1,2'"):
        WhiteBloodCells(root=str(tmp_path))


def test_no_patient_is_in_two_splits(tmp_path):
    dataset = read("camelyon17", tmp_path)
    pairs = {(record.group, record.split) for record in dataset.records}
    assert len(pairs) == len({record.group for record in dataset.records})


def test_official_split_trains_on_hospitals_0_3_and_4(tmp_path):
    dataset = read("camelyon17", tmp_path, split="wilds")
    trained = {dataset.records[i].domain for i in where(dataset, split="train")}
    assert trained == {"hospital_0", "hospital_3", "hospital_4"}


@pytest.mark.parametrize("domain", ["hospital_1", "hospital_2"])
def test_official_split_only_tests_on_the_others(domain, tmp_path):
    dataset = read("camelyon17", tmp_path, split="wilds")
    splits = Counter(dataset.records[i].split for i in where(dataset, domain=domain))
    assert splits == {"test": 32}


def test_in_distribution_patches_validate_and_test(tmp_path):
    dataset = read("camelyon17", tmp_path, split="wilds")
    splits = Counter(dataset.records[i].split for i in where(dataset, domain="hospital_0"))
    assert splits == {"train": 24, "val": 4, "test": 4}


def test_splits_do_not_depend_on_the_chosen_hospitals(tmp_path):
    dataset = read("camelyon17", tmp_path)
    alone = Camelyon17(root=str(tmp_path), domains=["hospital_3"])
    together = [dataset.records[i] for i in where(dataset, domain="hospital_3")]
    assert alone.records == together


def test_missing_column_is_named(tmp_path):
    write("camelyon17", tmp_path)
    table = tmp_path / "metadata.csv"
    table.write_text(table.read_text().replace("center", "hospital", 1))
    with pytest.raises(DataError, match=r"metadata\.csv: column center missing"):
        Camelyon17(root=str(tmp_path))


def test_archive_without_patches_is_refused(tmp_path):
    write("camelyon17", tmp_path)
    (tmp_path / "patches").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"listed in metadata\.csv but missing; unpack the"):
        Camelyon17(root=str(tmp_path))


@pytest.mark.parametrize(
    ("line", "said"),
    [("0,001,0,0,0,2,0,0,0", "line 2: tumor '2', expected 0, 1"), ("0,001,0", "line 2: 3 cells")],
)
def test_table_of_other_values_is_refused(tmp_path, line, said):
    write("camelyon17", tmp_path)
    head = (tmp_path / "metadata.csv").read_text().splitlines()[0]
    (tmp_path / "metadata.csv").write_text(f"{head}\n{line}\n")
    with pytest.raises(DataError, match=rf"metadata\.csv, {said}"):
        Camelyon17(root=str(tmp_path))
