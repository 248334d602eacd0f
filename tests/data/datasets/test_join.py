from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_array_equal

from domainnorm.data.dataset import white_of
from domainnorm.data.datasets import ACDC, Cityscapes, Join, NighttimeDriving
from domainnorm.data.refusals import collecting
from domainnorm.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("data")
    for name, dataset in {
        "cityscapes": Cityscapes,
        "acdc": ACDC,
        "nighttime_driving": NighttimeDriving,
    }.items():
        dataset.write_sample(root / name)
    return root


@pytest.fixture(autouse=True)
def _data(root, monkeypatch):
    monkeypatch.setenv("DOMAINNORM_DATA", str(root))


def part(name: str, **keys: Any) -> dict[str, Any]:
    return {"name": name, "root": name, **keys}


def test_domains_of_all_parts_are_joined():
    joined = Join(parts=[part("cityscapes"), part("acdc")])
    assert joined.domain_names == ["cityscapes", "fog", "night", "rain", "snow"]


def test_images_and_masks_are_those_of_the_part():
    joined, own = Join(parts=[part("cityscapes"), part("acdc")]), ACDC(root="acdc")
    offset = len(joined.records) - len(own.records)
    assert_array_equal(joined.image(offset + 3), own.image(3))
    assert_array_equal(joined.mask(offset + 3), own.mask(3))


def test_splits_and_metadata_are_those_of_the_part():
    joined, own = Join(parts=[part("acdc")]), ACDC(root="acdc")
    assert [(r.split, r.metadata) for r in joined.records] == [
        (r.split, r.metadata) for r in own.records
    ]


def test_names_of_files_are_unique_even_for_one_dataset_twice():
    twice = Join(parts=[part("acdc"), part("acdc", prefix="again_")])
    assert len({record.file for record in twice.records}) == len(twice.records)


def test_chosen_domains_leave_out_the_records_of_others():
    joined = Join(parts=[part("cityscapes"), part("acdc")], domains=["snow", "cityscapes"])
    assert joined.domain_names == ["snow", "cityscapes"]
    assert {record.domain for record in joined.records} == {"snow", "cityscapes"}


def test_index_points_to_the_image_when_domains_are_left_out():
    joined = Join(parts=[part("acdc"), part("cityscapes")], domains=["cityscapes"])
    assert_array_equal(joined.image(0), Cityscapes(root="cityscapes").image(0))


def test_domains_of_one_name_are_one_domain():
    joined = Join(parts=[part("acdc", domains=["night"]), part("nighttime_driving")])
    assert joined.domain_names == ["night"]
    assert {r.file.split("/")[0] for r in joined.records} == {"acdc.0", "nighttime_driving.1"}


def test_prefix_keeps_domains_of_one_name_apart():
    parts = [part("acdc", domains=["night"]), part("nighttime_driving", prefix="old_")]
    assert Join(parts=parts).domain_names == ["night", "old_night"]


def test_hidden_masks_stay_hidden_though_the_part_knows_them():
    hidden = Join(parts=[part("cityscapes")]).without_labels(["cityscapes"])
    with pytest.raises(DataError, match="no mask is known"):
        hidden.mask(0)


def test_colours_are_those_of_the_label_set():
    joined = Join(parts=[part("cityscapes", classes="camvid11")])
    assert joined.class_colours == Cityscapes(root="cityscapes", classes="camvid11").class_colours


def test_unequal_classes_say_which_differ_and_name_the_key():
    parts = [part("cityscapes"), part("acdc", classes="cityscapes16")]
    message = (
        r"^data\.parts\[1\] \(acdc\): its 16 classes differ from the 19 of data\.parts\[0\] "
        r"\(cityscapes\), only here none, only there terrain, truck, train; .*'classes'"
    )
    with pytest.raises(DataError, match=message):
        Join(parts=parts)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"name": "citiscapes"}, r"^data\.parts\[0\]\.name: unknown dataset 'citiscapes'"),
        ({}, r"^data\.parts\[0\]\.name: unknown dataset 'None'"),
        ({"name": "cityscapes"}, r"^data\.parts\[0\]\.root: missing"),
        (part("cityscapes", clases="x"), r"^data\.parts\[0\]\.clases: .*did you mean 'classes'"),
        (part("cityscapes", root="away"), r"^data\.parts\[0\]\.root: 'away' resolves to"),
        (part("cityscapes", val_fraction=2), r"^data\.parts\[0\]\.val_fraction: 2, expected"),
        (part("cityscapes", classes="x"), r"^data\.parts\[0\]\.classes: unknown label set 'x'"),
        (part("acdc", domains=["hail"]), r"^data\.parts\[0\]\.domains: unknown domain 'hail'"),
        (part("acdc", root="cityscapes"), r"^data\.parts\[0\]: .*no file rgb_anon/fog"),
    ],
)
def test_mistakes_of_a_part_are_named_by_their_place(wrong, message):
    with pytest.raises(DataError, match=message):
        Join(parts=[wrong])


def test_no_parts_are_refused():
    with pytest.raises(DataError, match=r"^data\.parts: an empty list"):
        Join(parts=[])


def test_datasets_of_two_tasks_are_refused():
    with pytest.raises(DataError, match=r"\(scans\): a dataset for classification.*segmentation"):
        Join(parts=[part("cityscapes"), {"name": "scans"}])


def test_white_is_that_of_all_parts_or_of_none():
    dark, light = {"name": "folder", "white": 4095}, {"name": "folder"}
    assert white_of({"root": "somewhere"}) == white_of({"parts": [light, light]}) == 65535
    assert white_of({"white": 1023}) == 1023
    assert white_of({"parts": [dark, dark]}) == 4095
    assert white_of({"parts": [dark, light]}) is None


def test_who_collects_problems_gets_those_of_every_part(tmp_path):
    parts = [{"name": "folder", "root": str(tmp_path / place)} for place in ("a", "b")]
    with collecting() as refused, pytest.raises(DataError, match=r"data\.parts\[1\].*/b"):
        Join(parts=parts)
    assert len(refused) == 1
    assert refused[0].startswith("data.parts[0]")
