from __future__ import annotations

import pytest

from domainnorm.data.datasets import PACS, DomainNet, OfficeHome, VisDA
from domainnorm.errors import DataError
from tests.data.datasets.drawn import write


@pytest.fixture
def office(tmp_path):
    write("office_home", tmp_path)
    return tmp_path


@pytest.fixture
def domainnet(tmp_path):
    write("domainnet", tmp_path)
    return tmp_path


@pytest.fixture
def pacs(tmp_path):
    write("pacs", tmp_path)
    return tmp_path


@pytest.fixture
def visda(tmp_path):
    write("visda", tmp_path)
    return tmp_path


def test_folders_name_domains_and_classes(office):
    dataset = OfficeHome(root=str(office))
    assert dataset.domain_names == ["Art", "Clipart", "Product", "Real World"]
    assert all(dataset.class_names[r.target] == r.file.split("/")[1] for r in dataset.records)


def test_other_files_of_the_archive_are_no_domains(office):
    (office / "ImageInfo.csv").write_text("x")
    (office / "Extra").mkdir()
    assert len(OfficeHome(root=str(office)).domain_names) == 4


def test_missing_domain_is_named(office):
    (office / "Real World").rename(office / "RealWorld")
    with pytest.raises(DataError, match="Real World: no images; expected <domain>/<class>/<image>"):
        OfficeHome(root=str(office))


def test_missing_class_of_a_domain_is_named(office):
    for file in (office / "Art/Bed").iterdir():
        file.unlink()
    with pytest.raises(DataError, match="domain 'Art' has no training image of class 'Bed'"):
        OfficeHome(root=str(office))


def test_link_to_a_file_that_is_missing_is_named(office):
    (office / "Art/Bed/99.jpg").symlink_to(office / "gone.jpg")
    with pytest.raises(DataError, match=r"Art/Bed/99\.jpg: a link to a file that does not exist"):
        OfficeHome(root=str(office))


def test_image_beside_the_folders_of_classes_is_told(office):
    (office / "Art/Bed/00004.jpg").rename(office / "Art/00004.jpg")
    told = list(OfficeHome(root=str(office)).left_out)
    assert told == [
        "left out: 1 file (image outside of a folder of a class), such as Art/00004.jpg"
    ]


@pytest.mark.parametrize(
    ("line", "said"),
    [("00001.jpg 0", "'00001.jpg', expected <domain>/<class>"), ("a/b/\0.jpg 0", "line 1: a name")],
)
def test_lists_of_paths_that_are_none_are_refused(domainnet, line, said):
    (domainnet / "sketch_test.txt").write_text(f"{line}\n")
    with pytest.raises(DataError, match=rf"sketch_test\.txt.*{said}"):
        DomainNet(root=str(domainnet))


def test_test_images_are_the_official_list(domainnet):
    records = DomainNet(root=str(domainnet)).records
    for domain in ("clipart", "quickdraw"):
        lines = (domainnet / f"{domain}_test.txt").read_text().splitlines()
        assert {line.split()[0] for line in lines} == {
            r.file for r in records if (r.domain, r.split) == (domain, "test")
        }


def test_numbers_of_classes_are_those_of_the_lists(domainnet):
    dataset = DomainNet(root=str(domainnet))
    targets = {record.file: record.target for record in dataset.records}
    for file in domainnet.glob("*.txt"):
        for line in file.read_text().splitlines():
            path, target = line.split()
            assert targets[path] == int(target)


def test_chosen_classes_are_numbered_in_their_order(domainnet):
    dataset = DomainNet(root=str(domainnet), classes=["dog", "bus"])
    assert dataset.class_names == ["dog", "bus"]
    assert {(r.file.split("/")[1], r.target) for r in dataset.records} == {("dog", 0), ("bus", 1)}


def test_unknown_class_gives_the_nearest(domainnet):
    with pytest.raises(DataError, match=r"data\.classes: unknown class 'dgo': did you mean 'dog'"):
        DomainNet(root=str(domainnet), classes=["dgo"])


def test_domain_without_lists_is_not_there(domainnet):
    (domainnet / "real_train.txt").unlink()
    assert "real" not in DomainNet(root=str(domainnet)).domain_names


def test_missing_image_of_domainnet_is_named(domainnet):
    (domainnet / "sketch/dog/00000.jpg").unlink()
    with pytest.raises(DataError, match=r"sketch/dog/00000\.jpg: does not exist"):
        DomainNet(root=str(domainnet))


def splits(dataset):
    return {record.file.removeprefix("kfold/"): record.split for record in dataset.records}


def listed(pacs, name):
    lines = (pacs / "pacs_label" / name).read_text().splitlines()
    return {line.split()[0] for line in lines}


def test_validation_is_the_official_list(pacs):
    found = splits(PACS(root=str(pacs), domains=["sketch"]))
    validation = {file for file, split in found.items() if split == "val"}
    assert validation == listed(pacs, "sketch_crossval_kfold.txt")


def test_test_images_are_a_part_of_the_training_list(pacs):
    found = splits(PACS(root=str(pacs), domains=["sketch"], test_fraction=0.3))
    tested = {file for file, split in found.items() if split == "test"}
    training = listed(pacs, "sketch_train_kfold.txt")
    assert tested < training
    assert len(tested) / len(training) == pytest.approx(0.3, abs=0.02)


def test_target_is_the_class_of_the_folder(pacs):
    dataset = PACS(root=str(pacs))
    assert all(f"/{dataset.class_names[r.target]}/" in r.file for r in dataset.records)


@pytest.mark.parametrize(
    ("images", "lists"),
    [
        ("pacs_data", "pacs_label"),
        ("Raw images/kfold", "Train val splits and h5py files pre-read"),
        ("kfold", "splits"),
    ],
)
def test_folders_have_the_names_of_any_official_archive(pacs, images, lists):
    (pacs / images).parent.mkdir(exist_ok=True)
    (pacs / "kfold").rename(pacs / images)
    (pacs / "pacs_label").rename(pacs / lists)
    dataset = PACS(root=str(pacs))
    assert dataset.records[0].file.startswith(f"{images}/photo/")
    assert dataset.image(0).shape == (64, 64, 3)


def test_images_and_lists_may_lie_in_the_root(pacs):
    for folder in ("kfold", "pacs_label"):
        for entry in (pacs / folder).iterdir():
            entry.rename(pacs / entry.name)
    assert PACS(root=str(pacs)).records[0].file.startswith("photo/")


def test_spoilt_image_is_left_out(pacs):
    spoilt = "sketch/dog/n02103406_4068-1.png"
    with (pacs / "pacs_label/sketch_train_kfold.txt").open("a") as stream:
        stream.write(f"{spoilt} 1\n")
    assert spoilt not in splits(PACS(root=str(pacs)))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("pacs_label/photo_train_kfold.txt", "photo_train_kfold.txt: the official list does not"),
        ("pacs_label/sketch_crossval_kfold.txt", "sketch_crossval_kfold.txt: not a readable list"),
        ("kfold/cartoon/dog/00001.jpg", r"1\.jpg: does not exist, but pacs_label lists it \(1 of"),
    ],
)
def test_missing_file_is_named(pacs, file, message):
    (pacs / file).unlink()
    with pytest.raises(DataError, match=message):
        PACS(root=str(pacs))


def test_label_that_is_no_number_is_named(pacs):
    (pacs / "pacs_label/photo_train_kfold.txt").write_text("photo/dog/1.jpg dog\n")
    with pytest.raises(DataError, match=r"line 1: 'photo/dog/1.jpg dog', expected '<path> <num"):
        PACS(root=str(pacs))


def test_targets_are_those_of_the_lists(visda):
    dataset = VisDA(root=str(visda))
    targets = {record.file: record.target for record in dataset.records}
    for domain in dataset.domain_names:
        for line in (visda / domain / "image_list.txt").read_text().splitlines():
            file, target = line.split()
            assert targets[f"{domain}/{file}"] == int(target)


def test_views_of_one_model_are_a_group(visda):
    records = [record for record in VisDA(root=str(visda)).records if record.domain == "train"]
    assert len(records) == 2 * len({record.group for record in records})


def test_photographs_are_groups_of_their_own(visda):
    records = VisDA(root=str(visda), domains=["validation", "test"]).records
    assert len(records) == len({record.group for record in records})


def test_list_without_labels_gives_unlabelled_images(visda):
    file = visda / "test/image_list.txt"
    file.write_text("".join(f"{line.split()[0]}\n" for line in file.read_text().splitlines()))
    records = VisDA(root=str(visda)).records
    assert {record.domain for record in records if not record.is_labelled} == {"test"}


def test_test_folder_may_be_absent(visda):
    (visda / "test").rename(visda / "later")
    assert VisDA(root=str(visda)).domain_names == ["train", "validation"]


def test_label_out_of_range_names_the_list(visda):
    file = visda / "train/image_list.txt"
    file.write_text(file.read_text() + "car/x.png 12\n")
    with pytest.raises(DataError, match=r"train/image_list\.txt: label 12, expected 0 to 11"):
        VisDA(root=str(visda))


def test_missing_image_of_visda_is_named(visda):
    (visda / "validation/car/car_0.jpg").unlink()
    with pytest.raises(DataError, match=r"validation/car/car_0\.jpg: does not exist, but image_l"):
        VisDA(root=str(visda))


def test_missing_list_is_named(visda):
    (visda / "train/image_list.txt").unlink()
    with pytest.raises(
        DataError, match=r"train/image_list\.txt: not a readable list of images \(No such file"
    ):
        VisDA(root=str(visda))
