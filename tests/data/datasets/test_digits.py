from __future__ import annotations

import bz2
import gzip

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from scipy.io import loadmat
from sklearn.datasets import load_svmlight_file
from torchvision.datasets.mnist import read_image_file, read_label_file

from domainnorm.data.datasets import Digits
from domainnorm.errors import DataError


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    root = tmp_path_factory.mktemp("digits")
    Digits.write_sample(root)
    return root


@pytest.fixture
def root(tmp_path):
    Digits.write_sample(tmp_path)
    return tmp_path


def held(dataset, domain, split):
    """Grey or RGB pixels, and targets, of one part in the order of its file."""
    chosen = [i for i, r in enumerate(dataset.records) if (r.domain, r.split) == (domain, split)]
    images = np.stack([dataset.image(i) for i in chosen])
    return images, np.array([dataset.records[i].target for i in chosen])


def test_mnist_is_what_torchvision_reads(written, tmp_path):
    for kind in ("images-idx3", "labels-idx1"):
        packed = written / f"mnist/t10k-{kind}-ubyte.gz"
        (tmp_path / kind).write_bytes(gzip.decompress(packed.read_bytes()))
    images, targets = held(Digits(root=str(written)), "mnist", "test")
    assert_array_equal(images[..., 0], read_image_file(str(tmp_path / "images-idx3")).numpy())
    assert_array_equal(targets, read_label_file(str(tmp_path / "labels-idx1")).numpy())


def test_unpacked_files_are_read_as_well(root):
    before = held(Digits(root=str(root)), "mnist", "test")
    for packed in (root / "mnist").glob("*.gz"):
        packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
        packed.unlink()
    for one, other in zip(before, held(Digits(root=str(root)), "mnist", "test"), strict=True):
        assert_array_equal(one, other)


def test_usps_is_what_scikit_learn_reads(written):
    values, labels = load_svmlight_file(str(written / "usps/usps.t.bz2"))
    images, targets = held(Digits(root=str(written)), "usps", "test")
    expected = (values.toarray().reshape(-1, 16, 16) + 1) / 2 * 255
    assert np.abs(images[..., 0] - expected).max() <= 0.6
    assert_array_equal(targets, labels - 1)


def test_svhn_stores_the_digit_0_as_10(written):
    content = loadmat(written / "svhn/test_32x32.mat")
    images, targets = held(Digits(root=str(written)), "svhn", "test")
    assert_array_equal(images, content["X"].transpose(3, 0, 1, 2))
    assert set(content["y"].ravel()) == set(range(1, 11))
    assert_array_equal(targets, content["y"].ravel() % 10)


def test_mnist_m_is_read_from_its_lists(written):
    dataset = Digits(root=str(written), domains=["mnist_m"])
    lines = (written / "mnist_m/mnist_m_test_labels.txt").read_text().splitlines()
    assert {(r.file.split("/")[-1], r.target) for r in dataset.records if r.split == "test"} == {
        (line.split()[0], int(line.split()[1])) for line in lines
    }


def test_validation_is_drawn_from_training_images(written):
    dataset = Digits(root=str(written), val_fraction=0.25)
    validation = [record for record in dataset.records if record.split == "val"]
    assert all("train" in record.file for record in validation)
    assert len(validation) == 5 * 20


def test_absent_folders_are_no_domains(root):
    for name in ("svhn", "synth", "mnist_m"):
        (root / name).rename(root / f"{name}_later")
    assert Digits(root=str(root)).domain_names == ["mnist", "usps"]


def test_reader_cannot_change_the_dataset(written):
    dataset = Digits(root=str(written), domains=["svhn"])
    dataset.image(0)[:] = 0
    assert dataset.image(0).any()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (
            "mnist/t10k-labels-idx1-ubyte.gz",
            b"x",
            r"idx1-ubyte\.gz: not a readable file",
        ),
        ("mnist/t10k-labels-idx1-ubyte.gz", None, "t10k-labels-idx1-ubyte: No such file or dir"),
        ("usps/usps.bz2", b"x", r"usps\.bz2: not a readable file"),
        (
            "usps/usps.bz2",
            bz2.compress(b"1 1:0.5 2:x"),
            r"usps\.bz2: not a readable file",
        ),
        ("usps/usps.bz2", None, r"usps\.bz2: No such file"),
        (
            "svhn/train_32x32.mat",
            b"x" * 300,
            r"train_32x32\.mat: not a readable file",
        ),
        (
            "svhn/train_32x32.mat",
            b"",
            r"train_32x32\.mat: not a readable file",
        ),
        ("synth/synth_test_32x32.mat", None, r"synth_test_32x32\.mat: No such file"),
        ("mnist_m/mnist_m_train_labels.txt", None, r"_labels\.txt: not a readable list"),
    ],
)
def test_missing_or_damaged_file_is_named(root, file, content, message):
    (root / file).unlink()
    if content is not None:
        (root / file).write_bytes(content)
    with pytest.raises(DataError, match=message):
        Digits(root=str(root))


def test_images_and_labels_of_different_number_are_refused(root):
    labels = gzip.compress(bytes([0, 0, 8, 1, 0, 0, 0, 1, 7]))
    (root / "mnist/t10k-labels-idx1-ubyte.gz").write_bytes(labels)
    with pytest.raises(DataError, match=r"40 images and 1 labels; get both again"):
        Digits(root=str(root))


@pytest.mark.parametrize(("label", "said"), [("10", "label 10, expected 0 to 9"), ("", "no label")])
def test_lists_of_other_labels_are_refused(root, label, said):
    listed = root / "mnist_m/mnist_m_test_labels.txt"
    listed.write_text(f"00000000.png {label}\n")
    with pytest.raises(DataError, match=rf"mnist_m_test_labels\.txt: .*{said}"):
        Digits(root=str(root))
