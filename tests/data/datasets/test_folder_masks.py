from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.testing import assert_array_equal

from domainnorm.data import survey_dataset
from domainnorm.data.datasets import FolderMasks
from domainnorm.errors import DataError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two domains of six images of 8 × 10 pixels; image n has class n % 2 in its upper half."""
    for domain in ("day", "dusk"):
        for folder in ("images", "masks"):
            (tmp_path / domain / folder).mkdir(parents=True)
        for number in range(6):
            write(tmp_path / domain / "images" / f"{number}.jpg", np.full((8, 10, 3), 9))
            mask = np.zeros((8, 10))
            mask[:4] = number % 2
            write(tmp_path / domain / "masks" / f"{number}.png", mask)
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    return tmp_path


def write(file: Path, pixels: np.ndarray) -> None:
    file.parent.mkdir(exist_ok=True)
    cv2.imwrite(str(file), pixels.astype(np.uint8))


def sequences(split_of: str) -> list[tuple[str, str, str, str, str]]:
    """Frames of one film per domain; ``split_of`` has a letter for each frame."""
    names = {"t": "train", "v": "val", "e": "test"}
    return [
        (f"{domain}/images/{number}.jpg", domain, "", f"film_{domain}", names[letter])
        for domain in ("day", "dusk")
        for number, letter in enumerate(split_of)
    ]


def masks_of(dataset: FolderMasks) -> dict[str, np.ndarray]:
    return {record.file: dataset.mask(i) for i, record in enumerate(dataset.records)}


def splits(dataset: FolderMasks, domain: str = "day") -> str:
    own = [record for record in dataset.records if record.domain == domain]
    return " ".join(record.split for record in sorted(own, key=lambda record: record.file))


def test_folders_name_domains_and_the_list_names_classes(root):
    dataset = FolderMasks(root=str(root))
    assert (dataset.domain_names, dataset.class_names) == (["day", "dusk"], ["road", "car"])


@pytest.mark.parametrize("file", ["images/0.jpg", "masks/0.png"])
def test_link_to_a_file_that_is_missing_is_named(root, file):
    (root / "day" / file).unlink()
    (root / "day" / file).symlink_to(root / "gone")
    with pytest.raises(DataError, match=rf"day/{file}: a link to a file that does not exist"):
        FolderMasks(root=str(root))
    (problem,) = survey_dataset(lambda: FolderMasks(root=str(root))).problems
    assert problem.file == f"day/{file}"


def test_mask_belongs_to_its_image(root):
    masks = masks_of(FolderMasks(root=str(root)))
    assert_array_equal(masks["dusk/images/3.jpg"][:4], 1)
    assert_array_equal(masks["dusk/images/4.jpg"], 0)


@pytest.mark.parametrize("name", ["3.PNG", "3.tif", "3.TIFF", "3.bmp"])
def test_mask_may_be_in_another_case_or_format(root, name):
    mask = root / "dusk/masks/3.png"
    pixels = cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)
    mask.unlink()
    write(root / "dusk/masks" / name, pixels)
    assert_array_equal(masks_of(FolderMasks(root=str(root)))["dusk/images/3.jpg"], pixels)


def test_name_of_a_mask_may_be_in_another_case(root):
    (root / "day/images/3.jpg").rename(root / "day/images/Frame.jpg")
    (root / "day/masks/3.png").rename(root / "day/masks/frame.png")
    assert_array_equal(masks_of(FolderMasks(root=str(root)))["day/images/Frame.jpg"][:4], 1)


def test_mask_of_the_same_name_comes_before_others(root):
    for name in ("3.bmp", "3.PNG", "3.tif"):
        write(root / "day/masks" / name, np.zeros((8, 10)))
    assert_array_equal(masks_of(FolderMasks(root=str(root)))["day/images/3.jpg"][:4], 1)


def test_names_that_differ_in_case_alone_keep_their_masks(root):
    for name in ("a", "A"):
        write(root / f"day/images/{name}.jpg", np.full((8, 10, 3), 9))
        write(root / f"day/masks/{name}.png", np.full((8, 10), name == "A"))
    masks = masks_of(FolderMasks(root=str(root)))
    assert (masks["day/images/a.jpg"].max(), masks["day/images/A.jpg"].min()) == (0, 1)


def test_field_of_view_may_be_in_another_case(root):
    for domain in ("day", "dusk"):
        for number in range(6):
            write(root / domain / "fov" / f"{number}.png", np.zeros((8, 10)))
            (root / domain / f"fov/{number}.png").rename(root / domain / f"fov/{number}.PNG")
    masks = masks_of(FolderMasks(root=str(root), void_outside="fov"))
    assert_array_equal(masks["day/images/3.jpg"], 255)


@pytest.mark.parametrize("name", ["{}_mask.png", "{}.jpg", "{}.npy"])
def test_files_of_no_image_are_noted_where_a_domain_has_no_mask_at_all(root, name):
    for file in (root / "day/masks").iterdir():
        file.rename(file.with_name(name.format(file.stem)))
    survey = survey_dataset(lambda: FolderMasks(root=str(root)))
    first = name.format(0)
    assert len([note for note in survey.notes if "6 files" in note and first in note]) == 1


def test_every_split_of_every_domain_is_drawn(root):
    records = FolderMasks(root=str(root)).records
    assert {(r.domain, r.split) for r in records} == {
        (domain, split) for domain in ("day", "dusk") for split in ("train", "val", "test")
    }


def test_splits_of_a_table_stay(root, write_table):
    rows = [(f, d, "", "", split) for f, d, _, _, split in sequences("ttvvee")]
    assert splits(FolderMasks(root=str(write_table(root, rows)))) == "train train val val test test"


def test_group_of_a_table_never_straddles_drawn_validation(root, write_table):
    rows = [(f, d, "", f"{d}{int(f[-5]) // 2}", "train") for f, d, *_ in sequences("tttttt")]
    records = FolderMasks(root=str(write_table(root, rows))).records
    assert len({(r.group, r.split) for r in records}) == len({r.group for r in records}) == 6


def test_sequence_validates_on_the_end_of_its_training_part(root, write_table):
    write_table(root, sequences("tttee"))
    dataset = FolderMasks(root=str(root), groups="sequences", val_fraction=0.3)
    assert splits(dataset) == "train train val test test"


def test_stretches_of_a_sequence_are_groups(root, write_table):
    write_table(root, sequences("tttee"))
    records = FolderMasks(root=str(root), groups="sequences").records
    assert {r.group for r in records if r.domain == "day"} == {
        "film_day/train",
        "film_day/val",
        "film_day/test",
    }


def test_validation_stretch_of_a_table_is_used_as_it_is(root, write_table):
    write_table(root, sequences("tvve"))
    assert splits(FolderMasks(root=str(root), groups="sequences")) == "train val val test"


def test_sequence_that_returns_to_a_split_is_named(root, write_table):
    write_table(root, sequences("ttet"))
    message = r"splits\.csv: sequence 'film_day' goes back to split train at day/images/3\.jpg"
    with pytest.raises(DataError, match=message):
        FolderMasks(root=str(root), groups="sequences")


def test_torn_group_names_the_key_for_films(root, write_table):
    write_table(root, sequences("ttee"))
    with pytest.raises(DataError, match=r"group 'film_day' .*data\.groups: sequences"):
        FolderMasks(root=str(root))


def test_sequences_need_a_table(root):
    with pytest.raises(DataError, match=r"data\.groups: 'sequences' needs a table"):
        FolderMasks(root=str(root), groups="sequences")


def test_image_without_mask_is_unlabelled(root):
    (root / "dusk" / "masks" / "2.png").unlink()
    records = FolderMasks(root=str(root)).records
    assert [r.file for r in records if not r.is_labelled] == ["dusk/images/2.jpg"]


def test_domain_without_masks_is_unlabelled(root):
    for file in (root / "dusk" / "masks").iterdir():
        file.unlink()
    records = FolderMasks(root=str(root)).records
    assert {r.domain: r.is_labelled for r in records} == {"day": True, "dusk": False}


def test_pixels_outside_the_field_of_view_are_void(root):
    view = np.full((8, 10), 255)
    view[:, :3] = 0
    for domain in ("day", "dusk"):
        for number in range(6):
            write(root / domain / "fov" / f"{number}.png", view)
    mask = masks_of(FolderMasks(root=str(root), void_outside="fov"))["day/images/1.jpg"]
    assert Counter(mask.ravel().tolist()) == {255: 24, 1: 28, 0: 28}


def test_missing_field_of_view_is_named(root):
    dataset = FolderMasks(root=str(root), void_outside="fov")
    with pytest.raises(DataError, match=r"day/fov/.\.png: not a readable mask \(No such file"):
        dataset.mask(0)


@pytest.mark.parametrize("folder", ["masks", "fov"])
def test_mask_of_another_size_names_both_files(root, folder):
    for number in range(6):
        write(root / "day" / "fov" / f"{number}.png", np.full((8, 10), 255))
    write(root / "day" / folder / "0.png", np.zeros((8, 9)))
    dataset = FolderMasks(root=str(root), domains=["day"], void_outside="fov")
    index = next(i for i, r in enumerate(dataset.records) if r.file == "day/images/0.jpg")
    message = rf"day/{folder}/0\.png: 9 × 8 pixels, .*day/images/0\.jpg has 10 × 8"
    with pytest.raises(DataError, match=message):
        dataset.mask(index)


def test_number_that_is_no_class_names_the_file(root):
    write(root / "day" / "masks" / "0.png", np.full((8, 10), 7))
    dataset = FolderMasks(root=str(root), domains=["day"])
    index = next(i for i, r in enumerate(dataset.records) if r.file == "day/images/0.jpg")
    with pytest.raises(DataError, match=r"day/masks/0\.png: values 7, expected classes 0 to 1"):
        dataset.mask(index)


def test_two_images_of_one_mask_are_named(root):
    write(root / "day" / "images" / "0.png", np.zeros((8, 10, 3)))
    with pytest.raises(DataError, match=r"masks/0\.png: the mask of day/images/0\.jpg and of"):
        FolderMasks(root=str(root))


def test_root_without_any_mask_says_what_is_expected(root):
    for domain in ("day", "dusk"):
        (root / domain / "masks").rename(root / domain / "labels")
    message = r"day/masks: no image has a mask; expected day/masks/0\.png for day/images/0\.jpg"
    with pytest.raises(DataError, match=message):
        FolderMasks(root=str(root))


def test_root_without_images_says_what_is_expected(tmp_path):
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    with pytest.raises(DataError, match=rf"no images below {tmp_path}; expected <domain>/images"):
        FolderMasks(root=str(tmp_path))


def test_missing_list_of_classes_says_what_to_write(root):
    (root / "classes.txt").unlink()
    with pytest.raises(DataError, match=r"classes\.txt: not a readable .* one class per line"):
        FolderMasks(root=str(root))


def test_listed_file_that_is_missing_is_named(root, write_table):
    write_table(root, [*sequences("ttee"), ("day/images/x.jpg", "day", "", "x", "train")])
    with pytest.raises(DataError, match=r"splits\.csv: 'day/images/x\.jpg' is listed but"):
        FolderMasks(root=str(root), groups="sequences")


def test_domain_without_images_is_named(root):
    (root / "night").mkdir()
    with pytest.raises(DataError, match="night/images: no images"):
        FolderMasks(root=str(root))


def test_masks_of_images_in_folders_lie_in_folders_of_the_same_name(root):
    before = FolderMasks(root=str(root))
    domain = before.domain_names[0]
    for folder in ("images", "masks"):
        inner = root / domain / folder / "drive_1"
        inner.mkdir()
        for file in [*(root / domain / folder).iterdir()]:
            if file.is_file():
                file.rename(inner / file.name)
    (root / domain / "loose.png").touch()
    after = FolderMasks(root=str(root))
    assert len(after.records) == len(before.records)
    own = [record for record in after.records if record.domain == domain]
    assert all(record.mask.startswith(f"{domain}/masks/drive_1/") for record in own)
    assert list(after.left_out) == [
        f"left out: 1 file (image outside of images), such as {domain}/loose.png"
    ]


def test_mask_without_an_image_is_told(root):
    (root / "day/images/3.jpg").unlink()
    told = "left out: 1 file (mask without an image), such as day/masks/3.png"
    assert list(FolderMasks(root=str(root)).left_out) == [told]


def test_masks_of_images_in_folders_may_lie_flat(root):
    before = FolderMasks(root=str(root))
    domain = before.domain_names[0]
    inner = root / domain / "images" / "drive_1"
    inner.mkdir()
    for file in list((root / domain / "images").iterdir()):
        if file.is_file():
            file.rename(inner / file.name)
    after = FolderMasks(root=str(root))
    masks = [{one.mask for one in data.records if one.domain == domain} for data in (before, after)]
    assert masks[0] == masks[1]


def test_images_right_in_the_folder_of_a_domain_have_no_mask(root):
    (root / "site_b").mkdir()
    shutil.copy(next((root / "day/images").iterdir()), root / "site_b/1.png")
    dataset = FolderMasks(root=str(root))
    own = [record for record in dataset.records if record.domain == "site_b"]
    assert [(record.file, record.mask) for record in own] == [("site_b/1.png", None)]
    assert list(dataset.left_out) == []
