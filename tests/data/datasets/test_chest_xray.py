from __future__ import annotations

import pytest

from domainnorm.data.datasets import ChestXray
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
