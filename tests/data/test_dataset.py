from __future__ import annotations

import pytest

from domainnorm.data import CachedDataset, DomainDataModule, Loading
from domainnorm.data.dataset import attributes_of, check_attributes, select_domains
from domainnorm.data.datasets import Manifest
from domainnorm.errors import DataError
from tests.data.datasets.drawn import read


def test_no_choice_means_every_domain():
    assert select_domains("key", None, ["a", "b"]) == ["a", "b"]


@pytest.mark.parametrize(
    ("chosen", "message"),
    [
        (["night", "dya"], "key: unknown domain 'dya': did you mean 'day'"),
        (["day", "day"], "key: domain 'day' is given twice; name it once"),
        ([], "key: an empty list; name at least one of day, night"),
    ],
)
def test_wrong_choice_names_the_key(chosen, message):
    with pytest.raises(DataError, match=message):
        select_domains("key", chosen, ["day", "night"])


def test_without_labels_masks_the_named_domains_only(scans):
    masked = scans.without_labels(["textured"])
    assert {r.domain for r in masked.records if r.target == -1} == {"textured"}
    assert {r.domain for r in masked.records if r.target != -1} == {"clean", "colour_cast"}


SHOPS = ["shop_a", "shop_b"]


@pytest.fixture
def shops(tmp_path) -> Manifest:
    return read("manifest", tmp_path)


def make(dataset, preprocessing, workers=0) -> DomainDataModule:
    return DomainDataModule(
        dataset,
        domain_names=SHOPS,
        labelled=SHOPS[:1],
        unlabelled=SHOPS[1:],
        preprocessing=preprocessing,
        loading=Loading(num_workers=workers),
        attributes=["hour"],
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_batches_hold_the_text_of_every_image(shops, preprocessing, workers):
    data = make(shops, preprocessing, workers)
    for loader in (data.train_dataloader(), data.test_dataloader()[1]):
        batch = next(iter(loader))
        wanted = [shops.records[index].metadata["hour"] for index in batch["index"]]
        assert batch["attributes"] == {"hour": wanted}


def test_batches_hold_none_where_none_are_named(shops, preprocessing):
    data = DomainDataModule(
        shops, domain_names=SHOPS, labelled=SHOPS, unlabelled=[], preprocessing=preprocessing
    )
    assert set(next(iter(data.train_dataloader()))) == {
        "image",
        "target",
        "domain",
        "index",
        "labelled",
    }


def test_attributes_of_a_split_are_those_of_its_batches(shops, preprocessing):
    data = make(shops, preprocessing)
    [(attributes, domain)] = data.domain_attributes("train")
    batches = list(data.domain_dataloader("train"))
    indices = [index for batch in batches for index in batch["index"].tolist()]
    assert attributes == {"hour": [shops.records[index].metadata["hour"] for index in indices]}
    assert domain.tolist() == [label for batch in batches for label in batch["domain"].tolist()]


def test_cached_images_keep_their_attributes(shops, preprocessing, tmp_path):
    data = make(CachedDataset(shops, tmp_path / "cache", preprocessing), preprocessing)
    assert next(iter(data.test_dataloader()[0]))["attributes"]["hour"]


def test_what_a_record_lacks_is_an_empty_text(shops):
    assert attributes_of(shops.records[:2], ["weight"]) == {"weight": ["", ""]}


@pytest.mark.parametrize("name", ["manifest_masks", "manifest_findings", "manifest"])
def test_unknown_attribute_is_answered_with_the_table(name, tmp_path):
    with pytest.raises(DataError, match=r"data.attributes: \S+/manifest.csv: unknown attribute 'x"):
        check_attributes(["x-ray"], read(name, tmp_path))


def test_dataset_without_a_table_names_what_is_known(scans):
    with pytest.raises(DataError) as raised:
        check_attributes(["hour"], scans)
    wanted = "data.attributes: this dataset: unknown attribute 'hour': known: none"
    assert str(raised.value) == wanted


def test_attribute_that_is_given_twice_is_refused(shops):
    with pytest.raises(DataError, match=r"data.attributes: 'hour' is given twice; name it once"):
        check_attributes(["hour", "hour"], shops)


def test_weather_and_time_of_day_of_drives_are_attributes(tmp_path):
    drives = read("bdd100k", tmp_path)
    check_attributes(["weather", "timeofday"], drives)
    found = attributes_of(drives.records, ["timeofday"])["timeofday"]
    assert {"daytime", "night"} <= set(found)
