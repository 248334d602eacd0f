from pathlib import Path

import pytest
from numpy.testing import assert_array_equal

from domainnorm.data.datasets import Cityscapes, FoggyCityscapes


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("foggy")
    Cityscapes.write_sample(root)
    FoggyCityscapes.write_sample(root)
    return root


def test_a_domain_is_a_density(root):
    dataset = FoggyCityscapes(root=str(root))
    assert {(record.domain, record.metadata["beta"]) for record in dataset.records} == {
        ("beta_0.005", "0.005"),
        ("beta_0.01", "0.01"),
        ("beta_0.02", "0.02"),
    }


@pytest.mark.parametrize("seed", range(3))
def test_a_scene_is_in_the_same_split_with_and_without_fog(root, seed):
    options = {"root": str(root), "val_fraction": 0.4, "split_seed": seed}
    clear = {record.group: record.split for record in Cityscapes(**options).records}
    foggy = FoggyCityscapes(**options, domains=["beta_0.02", "beta_0.005"]).records
    assert {record.group: record.split for record in foggy} == clear


def test_masks_are_those_of_cityscapes(root):
    clear, foggy = Cityscapes(root=str(root)), FoggyCityscapes(root=str(root))
    assert_array_equal(foggy.mask(0), clear.mask(0))


def test_domains_keep_the_order_in_which_they_were_asked_for(root):
    dataset = FoggyCityscapes(root=str(root), domains=["beta_0.02", "beta_0.01"])
    assert dataset.domain_names == ["beta_0.02", "beta_0.01"]
