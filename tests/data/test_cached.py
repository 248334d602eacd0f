import os

import cv2
import numpy as np
import pytest
import torch

from domainnorm.data import CachedDataset, DomainDataset, Preprocessing, Record, build_pipeline
from domainnorm.data.dataset import FileDataset
from domainnorm.data.datasets import FolderMasks, Join
from domainnorm.data.images import read_all
from domainnorm.errors import DataError

PRE = Preprocessing(12, 16, (0.5,) * 3, (0.25,) * 3)


class Pair(FileDataset):
    task = "segmentation"

    def __init__(self, root):
        self.root, self.domain_names, self.class_names = root, ["day"], ["a", "b"]
        self.records = [Record("one.png", "day", -1, "one", "train", mask="one_mask.png")]


@pytest.fixture
def files(tmp_path):
    generator = np.random.default_rng(0)
    cv2.imwrite(str(tmp_path / "one.png"), generator.integers(0, 256, (30, 50, 3), np.uint8))
    cv2.imwrite(str(tmp_path / "one_mask.png"), generator.integers(0, 2, (30, 50), np.uint8))
    return Pair(tmp_path)


@pytest.fixture
def cached(files, tmp_path):
    return CachedDataset(files, tmp_path / "cache", PRE)


def pair(dataset: DomainDataset):
    return PRE.pair(dataset.image(0), dataset.mask(0))


def test_batches_are_those_of_the_dataset_at_both_readings(files, cached):
    expected = pair(files)
    for _ in range(2):
        image, mask = pair(cached)
        assert (image == expected[0]).all()
        assert (mask == expected[1]).all()


def test_augmented_batches_are_those_of_the_dataset(files, cached):
    steps = ["HorizontalFlip", {"name": "GaussianBlur", "sigma_limit": [2, 2], "p": 1.0}]
    pipeline = build_pipeline({"weak": steps, "strong": ["ColorJitter"]}, PRE)
    for seed in range(3):
        expected = pipeline.views(files.image(0), files.mask(0), seed)[:3]
        found = pipeline.views(cached.image(0), cached.mask(0), seed)[:3]
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


def test_second_reading_decodes_nothing(files, cached, tmp_path):
    first = cached.image(0)
    kept = sorted((tmp_path / "cache").iterdir())
    stamp = kept[0].stat().st_mtime_ns
    assert (cached.image(0) == first).all()
    assert len(kept) == 1
    assert kept[0].stat().st_mtime_ns == stamp


def test_changed_file_is_decoded_anew(cached, files):
    before = cached.image(0)
    path = files.root / "one.png"
    cv2.imwrite(str(path), np.zeros((30, 50, 3), np.uint8))
    os.utime(path, ns=(1, 1))
    assert before.any()
    assert not cached.image(0).any()


def test_file_that_was_cut_off_is_written_anew(cached, tmp_path):
    expected = cached.image(0)
    (kept,) = (tmp_path / "cache").iterdir()
    kept.write_bytes(kept.read_bytes()[:40])
    assert (cached.image(0) == expected).all()


def test_hidden_masks_stay_hidden(cached):
    cached.mask(0)
    hidden = cached.without_labels(["day"])
    assert not hidden.records[0].is_labelled
    with pytest.raises(DataError, match="no mask is known for this image"):
        hidden.mask(0)


def test_folder_that_cannot_be_written_is_named(files, tmp_path):
    (tmp_path / "file").write_text("")
    cached = CachedDataset(files, tmp_path / "file", PRE)
    with pytest.raises(DataError, match=r"data.cache: .*file/.*\.npy cannot be written"):
        cached.image(0)


def test_masks_at_their_own_size_come_from_the_files(files, cached):
    assert cached.mask(0).shape == (12, 20)  # covers the input
    assert np.array_equal(cached.original_mask(0), files.mask(0))


def test_options_of_pixels_keep_copies_apart_and_those_of_lists_do_not(files, tmp_path):
    def kept(**options):
        CachedDataset(files, tmp_path / "cache", PRE, options).image(0)
        return len(list((tmp_path / "cache").iterdir()))

    assert kept(white=65535, domains=["day"]) == 1
    assert kept(white=65535, domains=["day", "dusk"], val_fraction=0.3) == 1
    assert kept(white=4095, domains=["day"]) == 2
    assert kept(parts=[{"name": "folder", "white": 4095}]) == 3
    assert kept(parts=[{"name": "folder", "white": 4095, "domains": ["day"]}]) == 3
    assert kept(parts=[{"name": "folder", "white": 1023}]) == 4


def test_masks_are_read_anew_when_their_list_of_classes_changes(tmp_path):
    FolderMasks.write_sample(tmp_path / "data")
    classes = tmp_path / "data/classes.txt"

    def mask():
        data = FolderMasks(root=str(tmp_path / "data"), void_outside="fov")
        return CachedDataset(data, tmp_path / "cache", PRE).mask(0)

    mask()
    assert len(list((tmp_path / "cache").iterdir())) == 1
    classes.write_text(classes.read_text().replace("pavement", "sidewalk"))
    os.utime(classes, ns=(1, 1))
    mask()
    assert len(list((tmp_path / "cache").iterdir())) == 2
    for view in (tmp_path / "data").glob("*/fov/*.png"):
        cv2.imwrite(str(view), np.zeros_like(cv2.imread(str(view), cv2.IMREAD_UNCHANGED)))
        os.utime(view, ns=(1, 1))
    assert (mask() == 255).all()


def test_changed_file_of_a_part_is_decoded_anew(tmp_path):
    FolderMasks.write_sample(tmp_path / "data", domains=["day"])
    parts = [{"name": "folder_masks", "root": str(tmp_path / "data")}]
    cached = CachedDataset(Join(parts=parts), tmp_path / "cache", PRE)
    assert cached.image(0).any()
    for file in (tmp_path / "data/day/images").iterdir():
        cv2.imwrite(str(file), np.zeros((96, 96, 3), np.uint8))
        os.utime(file, ns=(1, 1))
    assert not cached.image(0).any()


def test_threads_may_write_the_same_copy_at_once(files, tmp_path):
    for attempt in range(10):
        cached = CachedDataset(files, tmp_path / f"cache{attempt}", PRE)
        found = list(read_all(lambda _, cached=cached: cached.mask(0), range(8)))
        assert all((mask == found[0]).all() for mask in found)
        assert len(list((tmp_path / f"cache{attempt}").iterdir())) == 1
