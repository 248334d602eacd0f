from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from domainnorm.data.datasets import WhiteBloodCells
from domainnorm.errors import DataError
from tests.data.datasets.drawn import read, where, write


def test_black_grey_and_white_are_background_cytoplasm_and_nucleus(tmp_path):
    write("wbc", tmp_path)
    greys = np.array([[0, 1, 128, 127, 254, 255]], np.uint8)
    Image.fromarray(greys).save(tmp_path / "Dataset 1/001.png")
    dataset = WhiteBloodCells(root=str(tmp_path))
    index = where(dataset, file="Dataset 1/001.bmp")[0]
    assert dataset.mask(index).tolist() == [[0, 0, 1, 1, 2, 2]]


def test_nucleus_is_darker_than_cytoplasm(tmp_path):
    dataset = read("wbc", tmp_path)
    for domain in dataset.domain_names:
        index = where(dataset, domain=domain)[0]
        image, classes = dataset.image(index).astype(float), dataset.mask(index)
        assert image[classes == 2].mean() < image[classes == 1].mean() - 20


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
