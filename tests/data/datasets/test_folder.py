from __future__ import annotations

import os
import shutil
from collections import Counter
from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from domainnorm.data import survey_dataset
from domainnorm.data.datasets import Folder
from domainnorm.data.splits import check_records
from domainnorm.errors import DataError


def splits(folder: Folder) -> dict[str, str]:
    return {record.file: record.split for record in folder.records}


def row(file: str, split: str, group: str = "") -> tuple[str, str, str, str, str]:
    domain, label, _ = file.split("/")
    return file, domain, label, group, split


def tabled(count: int = 6, test: int = 2) -> list[tuple[str, str, str, str, str]]:
    return [
        row(f"{domain}/{label}/{number:02d}.png", "test" if number < test else "train")
        for domain in ("day", "night")
        for label in ("cat", "dog")
        for number in range(count)
    ]


def test_folders_name_domains_and_classes(make_folder):
    folder = Folder(root=str(make_folder()))
    assert (folder.domain_names, folder.class_names) == (["day", "night"], ["cat", "dog"])


def test_image_belongs_to_its_record(make_folder):
    folder = Folder(root=str(make_folder()))
    index = next(i for i, record in enumerate(folder.records) if record.file.endswith("05.png"))
    assert_array_equal(folder.image(index)[0, 0], [5, 5, 5])


def test_relative_root_is_below_the_environment_variable(make_folder, monkeypatch):
    root = make_folder()
    monkeypatch.setenv("DOMAINNORM_DATA", str(root.parent))
    assert Folder(root=root.name).root == root


def test_relative_root_is_below_data_without_the_variable(make_folder, monkeypatch, tmp_path):
    monkeypatch.delenv("DOMAINNORM_DATA", raising=False)
    (tmp_path / "away" / "data").mkdir(parents=True)
    (tmp_path / "away" / "data" / "pets").symlink_to(make_folder(), target_is_directory=True)
    monkeypatch.chdir(tmp_path / "away")
    assert Folder(root="pets", domains=["day"]).root == tmp_path / "away" / "data" / "pets"


def test_drawn_splits_have_their_fractions(make_folder):
    folder = Folder(root=str(make_folder(20)), test_fraction=0.3, val_fraction=0.5)
    assert Counter(splits(folder).values()) == {"train": 28, "val": 28, "test": 24}


def test_splits_do_not_depend_on_the_order_of_the_file_system(make_folder, monkeypatch):
    root = make_folder()
    forward = splits(Folder(root=str(root)))
    listed = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: sorted(listed(self), reverse=True))
    assert splits(Folder(root=str(root))) == forward


def test_splits_do_not_depend_on_the_chosen_domains(make_folder):
    root = str(make_folder())
    everything, alone = splits(Folder(root=root)), splits(Folder(root=root, domains=["night"]))
    assert alone == {file: split for file, split in everything.items() if file in alone}


def test_domains_keep_the_order_they_are_asked_for(make_folder):
    folder = Folder(root=str(make_folder()), domains=["night", "day"])
    assert folder.domain_names == ["night", "day"]


def test_validation_is_cut_out_of_the_training_rows_of_a_table(make_folder, write_table):
    root = write_table(make_folder(), tabled())
    counts = Counter(splits(Folder(root=str(root), val_fraction=0.25)).values())
    assert counts == {"train": 12, "val": 4, "test": 8}


def test_test_rows_of_a_table_stay(make_folder, write_table):
    rows = tabled()
    found = splits(Folder(root=str(write_table(make_folder(), rows))))
    assert {file for file, split in found.items() if split == "test"} == {
        file for file, *_, split in rows if split == "test"
    }


def test_validation_rows_of_a_table_are_used_as_they_are(make_folder, write_table):
    rows = [row(file, "val" if "02" in file else split) for file, *_, split in tabled()]
    assert splits(Folder(root=str(write_table(make_folder(), rows)))) == {
        file: split for file, *_, split in rows
    }


def test_group_of_a_table_never_straddles_splits(make_folder, write_table):
    rows = [row(file, split, f"{file[:5]}{int(file[-6:-4]) // 2}") for file, *_, split in tabled()]
    folder = Folder(root=str(write_table(make_folder(), rows)))
    pairs = {(record.group, record.split) for record in folder.records}
    assert len(pairs) == len({group for group, _ in pairs})


def test_row_without_class_is_unlabelled(make_folder, write_table):
    rows = tabled()
    rows[0] = (*rows[0][:2], "", *rows[0][3:])
    folder = Folder(root=str(write_table(make_folder(), rows)))
    assert [record.file for record in folder.records if record.target == -1] == [rows[0][0]]


def test_empty_table_name_ignores_the_table(make_folder, write_table):
    root = write_table(make_folder(), tabled(test=5))
    assert Counter(splits(Folder(root=str(root), splits="")).values())["test"] == 8


def test_hidden_and_other_files_are_ignored(make_folder):
    root = make_folder()
    (root / ".git" / "x").mkdir(parents=True)
    (root / "day" / "cat" / "notes.txt").write_text("no image")
    (root / "day" / "cat" / "._00.png").write_text("no image")
    assert len(Folder(root=str(root)).records) == 24


def test_suffix_may_be_upper_case(make_folder):
    root = make_folder()
    file = root / "day" / "cat" / "00.png"
    file.rename(file.with_suffix(".PNG"))
    assert "day/cat/00.PNG" in splits(Folder(root=str(root)))


def test_missing_root_names_key_folder_variable_and_page(monkeypatch, tmp_path):
    monkeypatch.setenv("DOMAINNORM_DATA", str(tmp_path))
    message = rf"data\.root: 'pets' resolves to {tmp_path}/pets.*DOMAINNORM_DATA.*docs/data\.md"
    with pytest.raises(DataError, match=message):
        Folder(root="pets")


def test_unknown_domain_gives_the_nearest(make_folder):
    with pytest.raises(DataError, match=r"data\.source.*'nigth': did you mean 'night'"):
        Folder(root=str(make_folder()), domains=["day", "nigth"])


def test_empty_domain_folder_is_named(make_folder):
    root = make_folder()
    (root / "dusk" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match=f"{root / 'dusk'}: no images"):
        Folder(root=str(root))


def test_empty_domain_that_is_not_used_is_no_error(make_folder):
    root = make_folder()
    (root / "dusk").mkdir()
    assert Folder(root=str(root), domains=["day"]).domain_names == ["day"]


def test_root_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match=f"data.root: no images below {tmp_path}"):
        Folder(root=str(tmp_path))


def test_missing_class_names_domain_and_class(make_folder):
    root = make_folder()
    for file in (root / "night" / "dog").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="domain 'night' has no training image of class 'dog'"):
        Folder(root=str(root))


def test_missing_class_is_allowed_when_asked_for_while_another_domain_has_it(make_folder):
    root = make_folder()
    for file in (root / "night" / "dog").iterdir():
        file.unlink()
    dataset = Folder(root=str(root), allow_missing_classes=True)
    assert dataset.class_names == ["cat", "dog"]
    assert {record.target for record in dataset.records if record.domain == "night"} == {0}


def test_class_that_no_domain_trains_on_is_refused_even_then(make_folder, write_table):
    rows = [(*line[:4], "test" if line[2] == "dog" else line[4]) for line in tabled()]
    root = str(write_table(make_folder(), rows))
    message = r"no domain has a training image of class 'dog' \(\d+ in other splits\); add some"
    with pytest.raises(DataError, match=message):
        Folder(root=root, allow_missing_classes=True)


def test_missing_class_of_a_domain_that_is_not_used_is_no_error(make_folder):
    root = make_folder()
    for file in (root / "night" / "dog").iterdir():
        file.unlink()
    assert Folder(root=str(root), domains=["day"]).class_names == ["cat", "dog"]


def test_listed_file_that_is_missing_is_named(make_folder, write_table):
    rows = [*tabled(), row("day/cat/99.png", "train")]
    with pytest.raises(DataError, match=r"splits\.csv: 'day/cat/99\.png' is listed but"):
        Folder(root=str(write_table(make_folder(), rows)))


def test_link_to_a_file_that_is_missing_is_named(make_folder):
    root = make_folder()
    (root / "day" / "cat" / "99.png").symlink_to(root / "gone.png")
    with pytest.raises(DataError, match=r"day/cat/99\.png: a link to a file that does not exist"):
        Folder(root=str(root))
    (problem,) = survey_dataset(lambda: Folder(root=str(root))).problems
    assert problem.file == "day/cat/99.png"


def test_link_to_a_file_that_is_missing_in_an_unused_domain_is_no_error(make_folder):
    root = make_folder()
    (root / "day" / "cat" / "99.png").symlink_to(root / "gone.png")
    assert Folder(root=str(root), domains=["night"]).domain_names == ["night"]


def test_listed_link_to_a_file_that_is_missing_is_named(make_folder, write_table):
    root = make_folder()
    (root / "day" / "cat" / "99.png").symlink_to(root / "gone.png")
    rows = [*tabled(), row("day/cat/99.png", "train")]
    with pytest.raises(DataError, match=r"splits\.csv: 'day/cat/99\.png' is listed but"):
        Folder(root=str(write_table(root, rows)))


def test_link_to_a_file_elsewhere_is_an_image(make_folder, tmp_path_factory):
    root, away = make_folder(), tmp_path_factory.mktemp("away") / "1.png"
    (root / "day" / "cat" / "00.png").rename(away)
    (root / "day" / "cat" / "00.png").symlink_to(away)
    assert len(Folder(root=str(root)).records) == 24


def test_torn_group_of_a_table_is_named(make_folder, write_table):
    rows = [row(file, split, "one" if "cat" in file else "") for file, *_, split in tabled()]
    with pytest.raises(DataError, match=r"splits\.csv: group 'one' is in split"):
        Folder(root=str(write_table(make_folder(), rows)))


def test_table_asked_for_by_name_must_exist(make_folder):
    with pytest.raises(DataError, match=r"data\.splits: .*folds\.csv does not exist"):
        Folder(root=str(make_folder()), splits="folds.csv")


def test_table_without_classes_is_refused(make_folder, write_table):
    rows = [(file, domain, "", group, split) for file, domain, _, group, split in tabled()]
    with pytest.raises(DataError, match=r"splits\.csv: no image of day, night has a class"):
        Folder(root=str(write_table(make_folder(), rows)))


def test_no_class_at_all_is_accepted_where_classes_may_be_missing(make_folder, write_table):
    rows = [(file, domain, "", group, split) for file, domain, _, group, split in tabled()]
    root = str(write_table(make_folder(), rows))
    dataset = Folder(root=root, allow_missing_classes=True)
    assert dataset.class_names == []
    assert not any(record.is_labelled for record in dataset.records)


def test_damaged_image_is_named(make_folder):
    root = make_folder()
    (root / "day" / "cat" / "00.png").write_bytes(os.urandom(64))
    folder = Folder(root=str(root))
    index = next(i for i, record in enumerate(folder.records) if record.file == "day/cat/00.png")
    with pytest.raises(DataError, match=r"day/cat/00\.png: not a readable image"):
        folder.image(index)


def test_images_in_folders_of_a_class_belong_to_it(make_folder):
    root = make_folder()
    before = len(Folder(root=str(root)).records)
    inner = root / "day" / "cat" / "camera_1" / "june"
    inner.mkdir(parents=True)
    (root / "day" / "cat" / "00.png").rename(inner / "00.png")
    folder = Folder(root=str(root))
    (record,) = [one for one in folder.records if one.file == "day/cat/camera_1/june/00.png"]
    assert folder.class_names[record.target] == "cat"
    assert len(folder.records) == before


def test_what_is_left_out_is_counted_and_named(make_folder):
    root = make_folder()
    for name in ("loose.png", "day/cat/notes.txt", "day/cat/scan.dcm", "day/dog/more.txt"):
        (root / name).write_bytes((root / "day" / "cat" / "01.png").read_bytes())
    (root / "day" / "cat" / ".hidden.txt").touch()
    wanted = [
        "left out: 2 files (no image by its suffix, .txt), such as day/cat/notes.txt",
        "left out: 1 file (no image by its suffix, .dcm), such as day/cat/scan.dcm",
        "left out: 1 file (image outside of a folder of a domain), such as loose.png",
    ]
    assert list(Folder(root=str(root)).left_out) == wanted
    assert set(wanted) <= set(survey_dataset(lambda: Folder(root=str(root))).notes)


@pytest.mark.parametrize(
    ("name", "said"),
    [("caf\udce9.png", r"caf\\xe9\.png: the name is not UTF-8"), ("a\rb.png", "return")],
)
def test_names_that_cannot_be_written_are_refused_or_told(make_folder, name, said):
    root = make_folder()
    (root / "day/cat/01.png").rename(root / "day/cat" / name)
    with pytest.raises(DataError, match=said):
        check_records(Folder(root=str(root)))
    (root / "day/cat" / name).rename(root / "day" / name)
    "".join(Folder(root=str(root)).left_out).encode()


@pytest.mark.parametrize("between", ["train", "cameras"])
def test_a_tree_of_something_else_is_refused(make_folder, between):
    root = make_folder()
    for domain in ("day", "night"):
        (root / domain).rename(root / f"{domain}_")
        (root / domain / between).mkdir(parents=True)
        for folder in list((root / f"{domain}_").iterdir()):
            folder.rename(root / domain / between / folder.name)
        (root / f"{domain}_").rmdir()
    with pytest.raises(DataError, match=r"lie deeper than <domain>/<class>/<image>.*: in day/"):
        Folder(root=str(root))


def test_links_to_folders_above_a_class_are_not_followed(make_folder):
    root = make_folder()
    before = len(Folder(root=str(root)).records)
    (root / "day" / "cat" / "up").symlink_to(root / "day", target_is_directory=True)
    assert len(Folder(root=str(root)).records) == before


@pytest.mark.parametrize("place", ["", "unlabelled", "Unlabeled"])
def test_images_right_in_the_folder_of_a_domain_have_no_label(make_folder, place):
    root = make_folder()
    (root / "site_b" / place).mkdir(parents=True)
    for name in ("1.png", "2.png"):
        shutil.copy(root / "day/cat/01.png", root / "site_b" / place / name)
        shutil.copy(root / "day/cat/01.png", root / "day" / name)
    dataset = Folder(root=str(root))
    labels = [r.is_labelled for r in dataset.records if r.domain == "site_b"]
    assert (labels, list(dataset.left_out)) == ([False, False], [])
    loose = [r.is_labelled for r in dataset.records if r.file in ("day/1.png", "day/2.png")]
    assert loose == [False, False]
    assert dataset.class_names == ["cat", "dog"]


def test_one_folder_of_a_domain_that_is_no_class_is_told_as_one_problem(make_folder):
    root = make_folder()
    (root / "site_b/pictures").mkdir(parents=True)
    shutil.copy(root / "day/cat/01.png", root / "site_b/pictures/1.png")
    (problem,) = survey_dataset(lambda: Folder(root=str(root))).problems
    assert "all labels are 'pictures'" in problem.text
    assert "move them directly into site_b/" in problem.text


def test_folders_of_images_alone_are_no_source(tmp_path, make_folder):
    root = make_folder() / "day"
    with pytest.raises(DataError, match="no image of cat, dog has a class; expected <domain>"):
        Folder(root=str(root))


def test_images_that_the_table_does_not_list_are_told(make_folder):
    root = make_folder()
    files = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.png"))
    rows = [f"{file},{file.split('/')[0]},{file.split('/')[1]}" for file in files[1:]]
    (root / "splits.csv").write_text("\n".join(["file,domain,class", *rows]))
    (line,) = Folder(root=str(root)).left_out
    assert line == f"left out: 1 file (image that splits.csv does not list), such as {files[0]}"
