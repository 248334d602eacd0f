"""What every dataset that can write a sample promises, tried on that sample."""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from domainnorm.data.dataset import UNLABELLED, DomainDataset
from domainnorm.data.masks import VOID
from domainnorm.errors import DataError
from domainnorm.registry import DATASETS
from tests.data.datasets import records
from tests.data.datasets.records import digest

# Domains of which the publishers give no more than this.
PARTIAL = {
    ("dark_zurich", "day"): {"train", "val"},
    ("dark_zurich", "twilight"): {"train", "val"},
    ("nighttime_driving", "night"): {"test"},
}
LIMIT = 3_000_000


def names(*tasks: str) -> list[str]:
    """Datasets of a task, all when none is given, but those that have nothing on disk."""
    entries = [DATASETS.entry(name) for name in DATASETS.names()]
    return [
        entry.name
        for entry in entries
        if "root" in entry.parameters and (not tasks or entry.constants["task"] in tasks)
    ]


def write(name: str, folder: Path, seed: int = 0) -> DomainDataset:
    kind = DATASETS.load(name)
    kind.write_sample(folder, seed=seed)
    return kind(root=str(folder))


def pixels(dataset: DomainDataset) -> dict[str, np.ndarray]:
    return {record.file: dataset.image(i) for i, record in enumerate(dataset.records)}


def masks(dataset: DomainDataset) -> dict[str, np.ndarray]:
    files = {i: record.file for i, record in enumerate(dataset.records) if record.mask is not None}
    return {file: dataset.mask(index) for index, file in files.items()}


@pytest.fixture(scope="module")
def folder(request, tmp_path_factory) -> Path:
    """Where the sample of a dataset is written; the last part is the dataset's name."""
    return tmp_path_factory.mktemp("sample") / request.param


@pytest.fixture(scope="module")
def sample(folder) -> DomainDataset:
    return write(folder.name, folder)


every = pytest.mark.parametrize("folder", names(), indirect=True)
classes = pytest.mark.parametrize("folder", names("classification"), indirect=True)
segments = pytest.mark.parametrize("folder", names("segmentation"), indirect=True)
findings = pytest.mark.parametrize("folder", names("multilabel"), indirect=True)


@every
def test_every_domain_has_the_splits_that_are_published(sample, folder):
    found = {domain: set() for domain in sample.domain_names}
    for record in sample.records:
        found[record.domain].add(record.split)
    assert found == {
        domain: PARTIAL.get((folder.name, domain), {"train", "val", "test"}) for domain in found
    }


@every
def test_records_are_those_of_before(sample, folder):
    assert digest(sample) == json.loads(records.FILE.read_text())[folder.name]


@every
def test_two_groups_or_more_train_a_domain(sample):
    groups = defaultdict(set)
    for record in sample.records:
        if record.split == "train":
            groups[record.domain].add(record.group)
    assert all(len(names) >= 2 for names in groups.values()), groups


@every
def test_group_is_in_one_split(sample):
    pairs = {(record.group, record.split) for record in sample.records}
    assert len(pairs) == len({group for group, _ in pairs})


@every
def test_names_of_images_are_unique(sample):
    assert len({record.file for record in sample.records}) == len(sample.records)


@every
def test_images_are_rgb_of_8_bits_and_show_something(sample):
    for file, image in pixels(sample).items():
        assert (image.ndim, image.shape[-1], image.dtype) == (3, 3, np.uint8), file
        assert image.std() > 1, file


@every
def test_domains_look_different(sample):
    colours = defaultdict(list)
    for index, record in enumerate(sample.records):
        colours[record.domain].append(sample.image(index).mean((0, 1)))
    means = {tuple(np.mean(values, axis=0).round(3)) for values in colours.values()}
    assert len(means) == len(sample.domain_names)


@every
def test_sample_is_small(sample, folder):
    files = [file for file in folder.rglob("*") if file.is_file()]
    assert 0 < sum(file.stat().st_size for file in files) < LIMIT


@every
def test_labels_are_of_the_task_alone(sample):
    found = {
        "classification": any(record.target != UNLABELLED for record in sample.records),
        "segmentation": any(record.mask is not None for record in sample.records),
        "multilabel": any(record.labels is not None for record in sample.records),
        "restoration": any(record.clean is not None for record in sample.records),
    }
    assert [task for task, is_there in found.items() if is_there] == [sample.task]


@every
def test_classes_have_names_and_colours(sample):
    assert len(set(sample.class_names)) == len(sample.class_names) == len(sample.class_colours)


@every
def test_domains_can_be_chosen_and_keep_their_images(sample, folder):
    chosen = list(reversed(sample.domain_names))[:1]
    one = type(sample)(root=str(folder), domains=chosen)
    assert one.domain_names == chosen
    assert sorted((r.file, r.split) for r in one.records) == sorted(
        (r.file, r.split) for r in sample.records if r.domain == chosen[0]
    )


@every
def test_dataset_can_be_sent_to_another_process(sample):
    copy = pickle.loads(pickle.dumps(sample))
    assert copy.records == sample.records
    assert_array_equal(copy.image(0), sample.image(0))


@every
def test_unknown_domain_is_answered(sample, folder):
    with pytest.raises(DataError, match="unknown domain 'nowhere'"):
        type(sample)(root=str(folder), domains=["nowhere"])


@pytest.mark.parametrize("name", names())
def test_empty_root_is_answered(name, tmp_path):
    with pytest.raises(DataError, match=str(tmp_path)):
        DATASETS.load(name)(root=str(tmp_path))


@every
def test_sample_depends_on_its_seed_alone(sample, folder, tmp_path):
    again = write(folder.name, tmp_path / "again")
    assert again.records == sample.records
    for (file, image), other in zip(pixels(sample).items(), pixels(again).values(), strict=True):
        assert_array_equal(image, other, err_msg=file)
    for (file, mask), other in zip(masks(sample).items(), masks(again).values(), strict=True):
        assert_array_equal(mask, other, err_msg=file)


@every
def test_other_seed_draws_other_images(sample, folder, tmp_path):
    assert not np.array_equal(write(folder.name, tmp_path, seed=1).image(0), sample.image(0))


@pytest.mark.parametrize("name", names())
def test_dataset_says_what_it_expects_below_its_root(name):
    constants = DATASETS.entry(name).constants
    assert 10 < len(constants["layout"]) <= 100
    assert bool(constants["homepage"]) == bool(constants["licence"])


@classes
def test_every_class_is_trained_in_every_labelled_domain(sample):
    trained = defaultdict(set)
    for record in sample.records:
        if record.split == "train":
            trained[record.domain].add(record.target)
    for domain, targets in trained.items():
        wanted = {UNLABELLED} if targets == {UNLABELLED} else set(range(len(sample.class_names)))
        assert targets == wanted, domain


@segments
def test_masks_hold_classes_and_fit_their_images(sample):
    images = pixels(sample)
    allowed = {*range(len(sample.class_names)), VOID}
    for file, mask in masks(sample).items():
        assert (mask.dtype, mask.shape) == (np.uint8, images[file].shape[:2]), file
        assert set(np.unique(mask).tolist()) <= allowed, file


@segments
def test_two_classes_or_more_are_seen_in_every_labelled_domain(sample):
    seen = defaultdict(set)
    for index, record in enumerate(sample.records):
        if record.mask is not None:
            seen[record.domain] |= set(np.unique(sample.mask(index)).tolist()) - {VOID}
    assert min(map(len, seen.values())) >= 2, seen


@findings
def test_findings_are_present_absent_or_unknown(sample):
    values = [record.labels for record in sample.records if record.labels is not None]
    assert {len(labels) for labels in values} == {len(sample.class_names)}
    assert {value for labels in values for value in labels} <= {0, 1, -1}


@findings
def test_every_finding_is_present_and_absent_in_training(sample):
    labels = np.array([r.labels for r in sample.records if r.split == "train" and r.labels])
    assert (labels == 1).any(0).all()
    assert (labels == 0).any(0).all()


WITH_WHITE = [name for name in names() if "white" in DATASETS.entry(name).parameters]


@pytest.mark.parametrize("folder", WITH_WHITE, indirect=True)
def test_white_scales_files_of_sixteen_bits(folder, sample, tmp_path):
    record = sample.records[0]
    file = folder / record.file
    dark = (sample.image(0).astype(np.uint16) * 16)[..., ::-1]
    kept = file.read_bytes()
    cv2.imwrite(str(tmp_path / "dark.png"), dark)
    file.write_bytes((tmp_path / "dark.png").read_bytes())
    try:
        bright = DATASETS.load(folder.name)(root=str(folder), white=4080).image(0)
        assert_array_equal(bright[..., ::-1], dark // 16)
    finally:
        file.write_bytes(kept)


@pytest.mark.parametrize("folder", WITH_WHITE, indirect=True)
@pytest.mark.parametrize("white", [255, 65536])
def test_white_that_is_no_value_of_sixteen_bits_is_refused(folder, sample, white):
    with pytest.raises(DataError, match=f"data.white: {white}, expected 256 to 65535"):
        DATASETS.load(folder.name)(root=str(folder), white=white)
