from __future__ import annotations

from dataclasses import replace

import pytest

from domainnorm.data.datasets import ChestXray
from domainnorm.data.splits import check_records
from domainnorm.errors import DataError
from tests.data.datasets.drawn import read, where, write

CHEXPERT = (
    "Path,Sex,Age,Frontal/Lateral,AP/PA,Atelectasis,Cardiomegaly,Consolidation,Edema,"
    "Pleural Effusion,Pneumonia,Pneumothorax"
)


@pytest.fixture
def rewritten(tmp_path):
    """The labels of the first image of a site after its table is replaced by one row."""
    write("chest_xray", tmp_path)

    def rewrite(site, table, text, **keys):
        (tmp_path / site / table).write_text(text)
        dataset = ChestXray(root=str(tmp_path), domains=[site], **keys)
        return dataset.records[0].labels

    return rewrite


def test_each_site_is_a_domain_with_the_common_findings(tmp_path):
    dataset = read("chest_xray", tmp_path)
    assert dataset.domain_names == ["chexpert", "nih", "padchest"]
    assert {len(record.labels) for record in dataset.records} == {len(dataset.class_names)}


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("uncertain", "unknown", (1, 0, -1, 0, 0, 0, 1)),
        ("uncertain", "positive", (1, 0, 1, 0, 0, 0, 1)),
        ("uncertain", "negative", (1, 0, 0, 0, 0, 0, 1)),
        ("unmentioned", "unknown", (1, 0, -1, -1, 0, 0, 1)),
    ],
)
def test_policies_of_uncertain_and_unmentioned_findings(rewritten, key, value, expected):
    path = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
    row = f"{path},Male,60,Frontal,AP,1.0,0.0,-1.0,,0.0,0.0,1.0"
    table = "CheXpert-v1.0-small/train.csv"
    assert rewritten("chexpert", table, f"{CHEXPERT}\n{row}\n", **{key: value}) == expected


@pytest.mark.parametrize(
    ("view", "cells", "said"),
    [
        ("Front", ",,,,,,,,", "line 2: 'Front'"),
        ("Frontal", ",,", "line 2: too few cells"),
        ("Frontal", ",,,,,,,,,more", "line 2: too many cells"),
    ],
)
def test_lines_of_other_cells_are_refused(rewritten, view, cells, said):
    path = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
    text = f"{CHEXPERT}\n{path},Male,60,{view}{cells}\n"
    with pytest.raises(DataError, match=rf"train\.csv, {said}"):
        rewritten("chexpert", "CheXpert-v1.0-small/train.csv", text)


def test_suffix_of_a_table_may_be_in_upper_case(tmp_path):
    before = len(read("chest_xray", tmp_path).records)
    table = tmp_path / "chexpert/CheXpert-v1.0-small/train.csv"
    table.rename(table.with_name("train.CSV"))
    assert len(ChestXray(root=str(tmp_path)).records) == before


def test_table_in_other_columns_is_told(tmp_path):
    write("chest_xray", tmp_path)
    (tmp_path / "nih/BBox_List_2017.csv").write_text("Image Index,Bbox [x\n")
    told = "left out: 1 file (table in other columns), such as nih/BBox_List_2017.csv"
    assert told in ChestXray(root=str(tmp_path)).left_out


def test_nih_findings_are_present_or_absent(rewritten):
    text = "Image Index,Finding Labels,Patient ID\n00000001_000.png,Effusion|Edema|Hernia,1\n"
    assert rewritten("nih", "Data_Entry_2017.csv", text) == (0, 0, 0, 1, 1, 0, 0)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ("['pleural effusion', 'laminar atelectasis']", (1, 0, 0, 0, 1, 0, 0)),
        ("['normal']", (0,) * 7),
        ("['unchanged', 'cardiomegaly']", (-1, 1, -1, -1, -1, -1, -1)),
        ("", (-1,) * 7),
    ],
)
def test_padchest_labels_name_findings(rewritten, labels, expected):
    name = f"{1:039d}_00-000-001.png"
    text = f'ImageID,ImageDir,PatientID,Projection,Labels\n{name},0,p1,PA,"{labels}"\n'
    table = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    assert rewritten("padchest", table, text) == expected


def test_lateral_views_are_left_out(tmp_path):
    write("chest_xray", tmp_path)
    table = tmp_path / "chexpert/CheXpert-v1.0-small/train.csv"
    table.write_text(table.read_text().replace("Frontal,AP", "Lateral,", 5))
    assert len(ChestXray(root=str(tmp_path), domains=["chexpert"]).records) == 19


def test_official_test_lists_count(tmp_path):
    dataset = read("chest_xray", tmp_path)
    nih = {dataset.records[i].group for i in where(dataset, domain="nih", split="test")}
    chexpert = {dataset.records[i].file for i in where(dataset, domain="chexpert", split="test")}
    assert nih == {f"nih/{number}" for number in range(19, 25)}
    assert all("/valid/" in file for file in chexpert)


def test_patients_of_two_sites_are_different_groups(tmp_path):
    dataset = read("chest_xray", tmp_path)
    assert len({record.group for record in dataset.records}) == 72


@pytest.mark.parametrize(
    ("table", "copy", "old", "new"),
    [
        ("nih/Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv", "Edema", "Hernia"),
        ("nih/Data_Entry_2017.csv", "Data_Entry_2017_v2020.csv", ",24,", ",23,"),
        ("chexpert/CheXpert-v1.0-small/train.csv", "train_visualCheXbert.csv", ",1.0", ",0.0"),
        ("chexpert/CheXpert-v1.0-small/train.csv", "valid.csv", "", ""),
    ],
)
def test_image_that_two_tables_list_differently_is_refused(tmp_path, table, copy, old, new):
    write("chest_xray", tmp_path)
    first = tmp_path / table
    second = first.with_name(copy)
    second.write_text(first.read_text().replace(old, new))
    with pytest.raises(DataError, match=r"listed again .* in .*\.csv and .*\.csv; keep") as error:
        ChestXray(root=str(tmp_path))
    assert f"{first} and {second}" in str(error.value)


def test_image_that_two_tables_list_alike_is_read_once(tmp_path):
    write("chest_xray", tmp_path)
    table = tmp_path / "nih/Data_Entry_2017.csv"
    (tmp_path / "nih/Data_Entry_copy.csv").write_text(table.read_text().replace("050", "051"))
    assert len(ChestXray(root=str(tmp_path), domains=["nih"]).records) == 24


def test_absent_images_are_refused(tmp_path):
    write("chest_xray", tmp_path)
    (tmp_path / "nih/images_001/images/00000003_000.png").unlink()
    with pytest.raises(DataError, match=r"nih: 1 images are listed but absent.*00000003_000\.png"):
        ChestXray(root=str(tmp_path))


def test_absent_images_can_be_skipped(tmp_path):
    write("chest_xray", tmp_path)
    (tmp_path / "nih/images_001/images/00000003_000.png").unlink()
    assert len(ChestXray(root=str(tmp_path), domains=["nih"], missing="skip").records) == 23


def test_value_that_the_columns_do_not_allow_names_the_line(tmp_path):
    write("chest_xray", tmp_path)
    table = tmp_path / "chexpert/CheXpert-v1.0-small/train.csv"
    table.write_text(table.read_text().replace("-1.0", "maybe", 1))
    with pytest.raises(DataError, match=r"train\.csv, line \d+: 'maybe'"):
        ChestXray(root=str(tmp_path))


def test_root_without_tables_gives_the_layout(tmp_path):
    (tmp_path / "site").mkdir()
    with pytest.raises(DataError, match=r"no folder has a table in known columns.*<site>"):
        ChestXray(root=str(tmp_path))


@pytest.mark.parametrize("folder", ["", "images_001/images/"])
def test_names_of_a_test_list_may_have_folders(tmp_path, folder):
    before = read("chest_xray", tmp_path, domains=["nih"])
    file = tmp_path / "nih" / "test_list.txt"
    file.write_text("".join(f"{folder}{name}\n" for name in file.read_text().split()))
    after = ChestXray(root=str(tmp_path), domains=["nih"])
    assert [one.split for one in after.records] == [one.split for one in before.records]


def test_a_test_list_of_other_images_is_refused(tmp_path):
    write("chest_xray", tmp_path)
    (tmp_path / "nih" / "test_list.txt").write_text("elsewhere_1.png\nelsewhere_2.png\n")
    with pytest.raises(DataError, match=r"test_list\.txt: 2 of its 2 names are no image here"):
        ChestXray(root=str(tmp_path), domains=["nih"])


def test_chexpert_may_lie_in_folders_of_its_archives(tmp_path):
    before = read("chest_xray", tmp_path, domains=["chexpert"])
    site = tmp_path / "chexpert"
    small = site / "CheXpert-v1.0-small"
    names = ("1 (validate & csv)", "2 (train 1)")
    first, second = (site / f"CheXpert-v1.0 batch {name}" for name in names)
    for folder in (first, second):
        folder.mkdir()
    for table in small.glob("*.csv"):
        table.rename(first / table.name)
    (small / "valid").rename(first / "valid")
    for patient in (small / "train").iterdir():
        patient.rename(second / patient.name)
    after = ChestXray(root=str(tmp_path), domains=["chexpert"])
    assert len(after.records) == len(before.records)
    assert {one.labels for one in after.records} == {one.labels for one in before.records}


def test_a_patient_in_two_splits_stops_a_run(tmp_path):
    dataset = read("chest_xray", tmp_path, domains=["nih"])
    check_records(dataset)
    first, second = (where(dataset, split=split)[0] for split in ("train", "test"))
    group = dataset.records[first].group
    dataset.records[second] = replace(dataset.records[second], group=group)
    with pytest.raises(DataError, match=r"is in split .* a group belongs to one split"):
        check_records(dataset)


@pytest.mark.parametrize("name", ["/etc/a.png", "../a.png", "nih/../../a.png"])
def test_files_outside_of_the_folder_stop_a_run(tmp_path, name):
    dataset = read("chest_xray", tmp_path, domains=["nih"])
    dataset.records[0] = replace(dataset.records[0], file=name)
    with pytest.raises(DataError, match="is not below the folder of the data"):
        check_records(dataset)
