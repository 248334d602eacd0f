from __future__ import annotations

import numpy as np
import pytest

from domainnorm.data.datasets import MedMnist
from domainnorm.errors import DataError
from tests.data.datasets.drawn import read, where, write


def test_directions_are_domains_with_eleven_organs(tmp_path):
    dataset = read("medmnist", tmp_path)
    assert dataset.domain_names == ["axial", "coronal", "sagittal"]
    assert (len(dataset.class_names), dataset.class_names[6]) == (11, "liver")


@pytest.mark.parametrize(
    ("domain", "name"), [("axial", "organamnist"), ("sagittal", "organsmnist")]
)
def test_images_and_targets_are_those_of_the_file(domain, name, tmp_path):
    dataset = read("medmnist", tmp_path)
    stored = np.load(tmp_path / f"{name}.npz")
    positions = where(dataset, domain=domain, split="test")
    targets = [dataset.records[i].target for i in positions]
    assert targets == stored["test_labels"].ravel().tolist()
    np.testing.assert_array_equal(dataset.image(positions[5])[..., 2], stored["test_images"][5])


def test_missing_file_says_how_to_get_it(tmp_path):
    write("medmnist", tmp_path)
    (tmp_path / "organcmnist.npz").unlink()
    with pytest.raises(DataError, match=r"organcmnist\.npz: missing; get it with python -m"):
        MedMnist(root=str(tmp_path))


def test_size_chooses_the_file(tmp_path):
    write("medmnist", tmp_path)
    with pytest.raises(DataError, match=r"organamnist_64\.npz: missing"):
        MedMnist(root=str(tmp_path), size=64)


def test_damaged_file_is_named(tmp_path):
    write("medmnist", tmp_path)
    (tmp_path / "organamnist.npz").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match=r"organamnist\.npz: not a readable file of MedMNIST"):
        MedMnist(root=str(tmp_path))
