from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from domainnorm.data.dataset import Record
from domainnorm.data.datasets import ACDC, Cityscapes, FoggyCityscapes, NighttimeDriving
from domainnorm.data.datasets.driving import draw_scenes
from domainnorm.errors import DataError
from tests.data.datasets.drawn import read, write


def records(domain: str) -> list[Record]:
    return [
        Record(f"{domain}/{scene}/{frame}.png", domain, -1, f"scene_{scene}", "train")
        for scene in range(10)
        for frame in range(3)
    ]


def folders(dataset, depth: int, split: str) -> set[str]:
    """Names of the folders at some depth that hold the images of a split."""
    return {r.file.split("/")[depth] for r in dataset.records if r.split == split}


def test_fraction_of_the_scenes_is_moved():
    counts = Counter(record.split for record in draw_scenes(records("day"), 0.3, 0))
    assert counts == {"train": 21, "val": 9}


def test_scenes_move_together_in_all_domains_and_datasets():
    clear = draw_scenes(records("clear"), 0.3, 5)
    both = draw_scenes([*records("fog"), *records("haze")], 0.3, 5)
    moved = {record.group for record in clear if record.split == "val"}
    assert {record.group for record in both if record.split == "val"} == moved


def test_fraction_out_of_range_names_its_key():
    with pytest.raises(DataError, match=r"^data\.val_fraction: 1, expected"):
        draw_scenes(records("day"), 1, 0)


@pytest.mark.parametrize(("name", "depth"), [("cityscapes", 1), ("acdc", 2)])
def test_official_val_is_the_test_split(name, depth, tmp_path):
    assert folders(read(name, tmp_path), depth, "test") == {"val"}


def test_validation_is_cut_from_train(tmp_path):
    dataset = read("cityscapes", tmp_path, val_fraction=0.5)
    trained = [record for record in dataset.records if "/train/" in record.file]
    assert Counter(record.split for record in trained) == {"train": 4, "val": 4}


def test_city_and_sequence_make_the_group(tmp_path):
    record = read("cityscapes", tmp_path).records[0]
    assert (record.group, record.metadata) == (
        "aachen_000000",
        {"city": "aachen", "sequence": "000000"},
    )


def test_ids_become_classes(tmp_path):
    dataset = read("cityscapes", tmp_path)
    mask = dataset.mask(0)
    assert np.isin(dataset.class_names.index("road"), mask)
    assert mask.max() < 19


def test_classes_without_counterpart_are_void(tmp_path):
    wide = read("cityscapes", tmp_path)
    small = Cityscapes(root=str(tmp_path), classes="cityscapes13")
    unknown = [wide.class_names.index(name) for name in ("pole", "terrain")]
    masks = [(wide.mask(index), small.mask(index)) for index in range(len(wide.records))]
    gone = [np.isin(mask, unknown) for mask, _ in masks]
    assert np.any(gone)
    assert all((mask[at] == 255).all() for at, (_, mask) in zip(gone, masks, strict=True))


def test_colours_are_those_of_the_label_set(tmp_path):
    assert read("cityscapes", tmp_path).class_colours[0] == (128, 64, 128)


def test_missing_masks_are_refused(tmp_path):
    write("cityscapes", tmp_path)
    (tmp_path / "gtFine").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match=r"no file gtFine/.*docs/data_driving\.md"):
        Cityscapes(root=str(tmp_path))


def test_unknown_label_set_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"data\.classes: unknown label set 'cityscapes20'"):
        read("cityscapes", tmp_path, classes="cityscapes20")


def test_unknown_domain_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"unknown domain 'city'.*did you mean 'cityscapes'"):
        read("cityscapes", tmp_path, domains=["city"])


def test_a_domain_is_a_density(tmp_path):
    dataset = read("foggy_cityscapes", tmp_path)
    assert {(record.domain, record.metadata["beta"]) for record in dataset.records} == {
        ("beta_0.005", "0.005"),
        ("beta_0.01", "0.01"),
        ("beta_0.02", "0.02"),
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_scene_is_in_the_same_split_with_and_without_fog(seed, tmp_path):
    options = {"root": str(tmp_path), "val_fraction": 0.4, "split_seed": seed}
    write("foggy_cityscapes", tmp_path)
    write("cityscapes", tmp_path)
    clear = {record.group: record.split for record in Cityscapes(**options).records}
    foggy = FoggyCityscapes(**options, domains=["beta_0.02", "beta_0.005"]).records
    assert {record.group: record.split for record in foggy} == clear


def test_masks_in_fog_are_those_of_cityscapes(tmp_path):
    foggy = read("foggy_cityscapes", tmp_path / "foggy")
    clear = read("cityscapes", tmp_path / "clear")
    assert_array_equal(foggy.mask(0), clear.mask(0))


def test_domains_keep_the_order_in_which_they_were_asked_for(tmp_path):
    dataset = read("foggy_cityscapes", tmp_path, domains=["beta_0.02", "beta_0.01"])
    assert dataset.domain_names == ["beta_0.02", "beta_0.01"]


def test_a_domain_is_a_condition(tmp_path):
    dataset = read("acdc", tmp_path)
    assert dataset.domain_names == ["fog", "night", "rain", "snow"]
    assert {(r.domain, r.file.split("/")[1]) for r in dataset.records} == {
        (name, name) for name in dataset.domain_names
    }


def test_equal_recordings_of_two_conditions_are_two_groups(tmp_path):
    records = read("acdc", tmp_path).records
    groups = {r.group for r in records if r.group.endswith("GOPR0400")}
    assert groups == {f"{name}/GOPR0400" for name in ("fog", "night", "rain", "snow")}


def test_splits_do_not_depend_on_the_chosen_domains(tmp_path):
    every = {r.file: r.split for r in read("acdc", tmp_path).records if r.domain == "snow"}
    chosen = {r.file: r.split for r in ACDC(root=str(tmp_path), domains=["snow"]).records}
    assert chosen == every


def test_a_condition_that_was_not_unpacked_is_named(tmp_path):
    write("acdc", tmp_path)
    (tmp_path / "rgb_anon/night").rename(tmp_path / "later")
    with pytest.raises(DataError, match=r"no file rgb_anon/night/train/"):
        ACDC(root=str(tmp_path))


def test_only_test_images_of_dark_zurich_have_masks(tmp_path):
    records = read("dark_zurich", tmp_path).records
    assert {(r.split == "test", r.is_labelled) for r in records} == {(True, True), (False, False)}


def test_only_the_night_of_dark_zurich_is_tested(tmp_path):
    records = read("dark_zurich", tmp_path).records
    assert {r.domain for r in records if r.split == "test"} == {"night"}


def test_mask_of_an_unlabelled_image_is_refused(tmp_path):
    dataset = read("dark_zurich", tmp_path)
    with pytest.raises(DataError, match=r"_rgb_anon\.png: no mask is known for this image"):
        dataset.mask(0)


def test_hour_is_known(tmp_path):
    records = read("dark_zurich", tmp_path).records
    assert all(record.metadata["time_of_day"] == record.domain for record in records)


def test_all_images_of_nighttime_driving_are_for_testing(tmp_path):
    dataset = read("nighttime_driving", tmp_path)
    assert {(record.domain, record.split) for record in dataset.records} == {("night", "test")}


def test_masks_hold_numbers_of_the_classes(tmp_path):
    dataset = read("nighttime_driving", tmp_path)
    assert dataset.mask(0)[-1, 96] == dataset.class_names.index("road")


def test_the_folder_above_is_refused(tmp_path):
    write("nighttime_driving", tmp_path / "inside")
    with pytest.raises(DataError, match=r"no file leftImg8bit/test/night/"):
        NighttimeDriving(root=str(tmp_path))
