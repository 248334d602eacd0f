from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from domainnorm.data import survey_dataset
from domainnorm.data.datasets import Folder, FolderMasks, ManifestFindings
from domainnorm.data.inspection.survey import Problem
from domainnorm.data.refusals import collecting, refuse
from domainnorm.errors import DataError
from tests.data.datasets.drawn import write


@pytest.fixture
def films(tmp_path: Path) -> Path:
    FolderMasks.write_sample(tmp_path)
    return tmp_path


@pytest.fixture
def read(films: Path) -> Callable[[], FolderMasks]:
    return lambda: FolderMasks(root=str(films))


def test_numbers_are_those_of_the_records(read):
    survey = survey_dataset(read)
    assert survey.images["day", "train"] == 12
    assert survey.groups["day", "train"] == 3
    assert survey.sizes["dusk"] == {(96, 128): 28}
    assert not survey.problems
    assert not survey.notes


def test_pixels_are_those_of_the_masks(read):
    dataset = read()
    masks = [dataset.mask(i) for i, r in enumerate(dataset.records) if r.domain == "day"]
    survey = survey_dataset(read)
    for value in range(11):
        assert survey.pixels["day", value] == sum((mask == value).sum() for mask in masks) > 0


def test_every_damaged_file_is_a_problem(read, films):
    for number in (0, 1, 2):
        (films / "day/images" / f"{number:03d}.png").write_bytes(b"")
    (films / "dusk/masks/003.png").write_bytes(b"")
    files = {problem.file for problem in survey_dataset(read).problems}
    assert files == {f"day/images/{number:03d}.png" for number in (0, 1, 2)} | {
        "dusk/masks/003.png"
    }


LAYOUTS = {
    "cityscapes": (
        "gtFine/train/aachen/aachen_000001_000019_gtFine_labelIds.png",
        "leftImg8bit/train/aachen/aachen_000002_000019_leftImg8bit.png",
    ),
    "gta5": ("labels/00101.png", "images/00201.png"),
    "drive": ("training/1st_manual/22_manual1.gif", "training/images/23_training.tif"),
    "rim_one": (
        "RIM-ONE_DL_reference_segmentations/glaucoma/r2_Im001-1-Cup-T.png",
        "RIM-ONE_DL_images/partitioned_by_hospital/training_set/normal/r2_Im002.png",
    ),
    "nifti": ("BIDMC/Case03_segmentation.nii.gz", "HK/Case01.nii.gz"),
    "dicom": ("", "patient_01/series_1/3.dcm", "patient_02/series_1/4.dcm"),
}


@pytest.mark.parametrize(("name", "files"), LAYOUTS.items())
def test_all_problems_of_an_official_layout_are_found(tmp_path, name, files):
    kind, (missing, *damaged) = write(name, tmp_path), files
    if missing:
        (tmp_path / missing).unlink()
    for file in damaged:
        (tmp_path / file).write_bytes((tmp_path / file).read_bytes()[:100])
    problems = survey_dataset(lambda: kind(root=str(tmp_path))).problems
    found = {problem.file.removeprefix(f"{tmp_path}/") for problem in problems}
    # Of a volume without a segmentation it is the volume that is named.
    expected = {missing.replace("_segmentation.nii", ".nii"), *damaged} - {""}
    assert (found, len(problems)) == (expected, len(expected))


def test_damaged_volume_is_one_problem(tmp_path):
    kind, file = write("nifti", tmp_path), tmp_path / "HK/Case00.nii.gz"
    file.write_bytes(file.read_bytes()[:4000])
    (problem,) = survey_dataset(lambda: kind(root=str(tmp_path))).problems
    assert problem.file == "HK/Case00.nii.gz"


def test_value_that_is_no_class_is_a_problem(read, films):
    cv2.imwrite(str(films / "day/masks/000.png"), np.full((96, 128), 11, np.uint8))
    (problem,) = survey_dataset(read).problems
    assert problem.file == "day/masks/000.png"
    assert problem.text.startswith("values 11, expected classes 0 to 10")


@pytest.mark.parametrize("domain", ["day", "dusk"])
def test_masks_in_black_and_white_are_a_problem_of_their_domain(read, films, domain):
    for file in films.glob(f"{domain}/masks/*.png"):
        mask = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        cv2.imwrite(str(file), np.where(mask == 1, 255, 0).astype(np.uint8))
    (problem,) = survey_dataset(read).problems
    assert problem.file == f"masks of domain '{domain}'"
    assert problem.text.startswith("hold only 0 and 255, but 255 is for pixels without a class")


def test_domain_whose_masks_hold_no_class_is_a_problem(tmp_path):
    kind = write("bdd100k", tmp_path)
    dataset = kind(root=str(tmp_path))
    for record in dataset.records:
        if record.domain == "night":
            mask = tmp_path / record.mask
            # A number that BDD100K does not know.
            cv2.imwrite(str(mask), np.full_like(cv2.imread(str(mask), 0), 40))
    (problem,) = survey_dataset(lambda: kind(root=str(tmp_path))).problems
    assert problem.file == "masks of domain 'night'"
    assert problem.text.startswith("have no pixel with a class")


def test_twelve_bits_in_files_of_sixteen_are_noted(read, films):
    assert not any("nearly black" in note for note in survey_dataset(read).notes)
    for file in films.rglob("images/*"):
        image = cv2.imread(str(file)).astype(np.uint16) * 16  # 0 to 4080
        cv2.imwrite(str(file.with_suffix(".png")), image)
        if file.suffix != ".png":
            file.unlink()
    notes = [note for note in survey_dataset(read).notes if "nearly black" in note]
    assert notes
    assert "no value above 1" in notes[0]
    survey = survey_dataset(lambda: FolderMasks(root=str(films), white=4080))
    assert not any("nearly black" in note for note in survey.notes)


def test_images_without_a_label_beside_others_with_one_are_named(read, films):
    assert not any("without a label" in note for note in survey_dataset(read).notes)
    (films / "day/masks/003.png").unlink()
    notes = [note for note in survey_dataset(read).notes if "without a label" in note]
    (note,) = notes
    assert note.startswith("1 image of domain 'day' without a label, such as day/images/003.png;")


def test_dataset_that_cannot_be_made_is_a_problem(tmp_path):
    survey = survey_dataset(lambda: FolderMasks(root=str(tmp_path)))
    assert survey.dataset is None
    assert [problem.file for problem in survey.problems] == [str(tmp_path / "classes.txt")]


def test_group_in_two_splits_is_a_problem(read):
    def torn() -> FolderMasks:
        dataset = read()
        first = dataset.records[0]
        dataset.records[0] = replace(first, split="test" if first.split == "train" else "train")
        return dataset

    group = read().records[0].group
    assert survey_dataset(torn).problems == [
        Problem(f"group '{group}'", "is in the splits test, train")
    ]


def test_same_pixels_in_two_splits_are_noted(read, films):
    copy = (films / "day/images/000.png").read_bytes()
    (films / "day/images/027.png").write_bytes(copy)
    (note,) = survey_dataset(read).notes
    assert note.startswith("1 image with the same pixels as one in another split")
    assert "day/images/000.png (train) and day/images/027.png (test)" in note


def test_findings_are_counted_present_and_absent(tmp_path):
    ManifestFindings.write_sample(tmp_path)
    survey = survey_dataset(lambda: ManifestFindings(root=str(tmp_path)))
    assert (survey.labels["site_a", 0], survey.absent["site_a", 0]) == (15, 5)
    # One of five training images of each kind has a gap there.
    assert (survey.labels["site_a", 1], survey.absent["site_a", 1]) == (4, 12)


def test_progress_sees_every_image(tmp_path):
    Folder.write_sample(tmp_path)
    seen = []

    def progress(readings, count):
        for reading in readings:
            seen.append(reading.record.file)
            yield reading
        assert count == len(seen)

    survey_dataset(lambda: Folder(root=str(tmp_path)), progress=progress)
    assert len(set(seen)) == 72


def test_refusing_raises_where_nobody_collects():
    with pytest.raises(DataError, match="x: wrong"):
        refuse("x: wrong")


def test_refusing_collects_each_message_once():
    with collecting() as problems:
        for message in ("a", "b", "a"):
            refuse(message)
    assert problems == ["a", "b"]
