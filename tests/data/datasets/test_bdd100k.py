import json
import shutil
from pathlib import Path

import pytest

from domainnorm.data.datasets import BDD100K
from domainnorm.errors import DataError


@pytest.fixture(scope="module")
def sample(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("bdd100k")
    BDD100K.write_sample(root)
    return root


@pytest.fixture
def root(sample, tmp_path) -> Path:
    return Path(shutil.copytree(sample, tmp_path / "bdd100k"))


def test_a_domain_is_a_time_of_day(sample):
    dataset = BDD100K(root=str(sample))
    assert dataset.domain_names == ["daytime", "dawn_dusk", "night", "undefined"]


def test_a_domain_is_the_weather(sample):
    dataset = BDD100K(root=str(sample), by="weather")
    assert {r.metadata["weather"].replace(" ", "_") for r in dataset.records} == set(
        dataset.domain_names
    )


def test_images_without_attributes_are_undefined(root):
    for split in ("train", "val"):
        file = root / f"labels/det_20/det_{split}.json"
        frames = [frame for frame in json.loads(file.read_text()) if frame["name"][7] != "0"]
        file.write_text(json.dumps(frames))
    dataset = BDD100K(root=str(root))
    domains = {r.domain for r in dataset.records if Path(r.file).name[7] == "0"}
    assert domains == {"undefined"}


def test_attributes_of_an_image_may_be_in_another_split_of_the_detection_labels(root):
    folder = root / "labels/det_20"
    frames = [frame for file in sorted(folder.iterdir()) for frame in json.loads(file.read_text())]
    expected = {r.file: r.domain for r in BDD100K(root=str(root)).records}
    (folder / "det_val.json").unlink()
    (folder / "det_train.json").write_text(json.dumps(frames))
    assert {r.file: r.domain for r in BDD100K(root=str(root)).records} == expected


def test_boxes_do_not_disturb_attributes(root):
    file = root / "labels/det_20/det_train.json"
    frames = json.loads(file.read_text())
    for frame in frames:
        box = {"x1": 1, "y1": 2, "x2": 3, "y2": 4}
        attributes = {"occluded": False, "truncated": False, "trafficLightColor": "NA"}
        frame["labels"] = [{"id": "0", "attributes": attributes, "category": "car", "box2d": box}]
    expected = [r.metadata for r in BDD100K(root=str(root)).records]
    file.write_text(json.dumps(frames))
    assert [r.metadata for r in BDD100K(root=str(root)).records] == expected


def test_missing_attributes_say_where_they_are(root):
    shutil.rmtree(root / "labels/det_20")
    with pytest.raises(DataError, match=r"no attributes of frames in labels/det_20/det_\*\.json"):
        BDD100K(root=str(root))


def test_damaged_attributes_are_named(root):
    (root / "labels/det_20/det_val.json").write_text("[{")
    with pytest.raises(DataError, match=r"det_val\.json: not a readable list of frames of BDD100K"):
        BDD100K(root=str(root))


def test_domain_without_images_is_refused(root):
    for name in ("train", "val"):
        file = root / f"labels/det_20/det_{name}.json"
        file.write_text(file.read_text().replace('"night"', '"daytime"'))
    with pytest.raises(DataError, match="no images of domain 'night'"):
        BDD100K(root=str(root), domains=["night"])
