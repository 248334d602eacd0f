from pathlib import Path

import pytest

from domainnorm.data.datasets import ACDC
from domainnorm.errors import DataError


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("acdc")
    ACDC.write_sample(root)
    return root


def test_a_domain_is_a_condition(root):
    dataset = ACDC(root=str(root))
    assert dataset.domain_names == ["fog", "night", "rain", "snow"]
    assert {(r.domain, r.file.split("/")[1]) for r in dataset.records} == {
        (name, name) for name in dataset.domain_names
    }


def test_official_val_is_the_test_split(root):
    tested = {r.file.split("/")[2] for r in ACDC(root=str(root)).records if r.split == "test"}
    assert tested == {"val"}


def test_equal_recordings_of_two_conditions_are_two_groups(root):
    groups = {r.group for r in ACDC(root=str(root)).records if r.group.endswith("GOPR0400")}
    assert groups == {f"{name}/GOPR0400" for name in ("fog", "night", "rain", "snow")}


def test_splits_do_not_depend_on_the_chosen_domains(root):
    chosen = {r.file: r.split for r in ACDC(root=str(root), domains=["snow"]).records}
    every = {r.file: r.split for r in ACDC(root=str(root)).records if r.domain == "snow"}
    assert chosen == every


def test_a_condition_that_was_not_unpacked_is_named(root, tmp_path):
    (tmp_path / "rgb_anon").mkdir()
    (tmp_path / "rgb_anon/fog").symlink_to(root / "rgb_anon/fog", target_is_directory=True)
    with pytest.raises(DataError, match=r"no file rgb_anon/night/train/"):
        ACDC(root=str(tmp_path))
