from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.datasets import load_digits

from domainnorm.data.datasets import Scans
from domainnorm.errors import DataError


@pytest.fixture(scope="module")
def full() -> Scans:
    return Scans()


def test_every_digit_is_in_every_domain(full):
    assert Counter(record.domain for record in full.records) == {
        "clean": 1797,
        "colour_cast": 1797,
        "textured": 1797,
    }


def test_images_are_32_pixels_of_8_bit_rgb(full):
    assert (full.image(0).shape, full.image(0).dtype) == ((32, 32, 3), np.uint8)


def test_targets_are_those_of_scikit_learn(full):
    clean = [record.target for record in full.records if record.domain == "clean"]
    assert_array_equal(clean, load_digits().target)


def test_digit_has_one_split_in_all_domains(full):
    pairs = {(record.group, record.split) for record in full.records}
    assert len(pairs) == 1797


@pytest.mark.parametrize(("split", "share"), [("train", 0.6), ("val", 0.1), ("test", 0.3)])
def test_splits_have_their_shares(full, split, share):
    counts = Counter(record.split for record in full.records)
    assert counts[split] / len(full.records) == pytest.approx(share, abs=0.01)


def test_every_class_is_in_every_split(full):
    assert len({(record.target, record.split) for record in full.records}) == 30


def test_clean_scan_is_the_digit_enlarged(full):
    small = load_digits().images[:50].reshape(50, -1)
    grey = np.stack([full.image(i)[..., 0] for i in range(50)]).astype(float)
    means = grey.reshape(50, 8, 4, 8, 4).mean((2, 4)).reshape(50, -1)
    assert min(np.corrcoef(a, b)[0, 1] for a, b in zip(small, means, strict=True)) > 0.97


def test_ink_is_light_on_a_cast_and_dark_on_paper(full):
    ink = np.stack([full.image(i)[..., 0] for i in range(200)]) > 128
    cast = np.stack([full.image(1797 + i) for i in range(200)]).mean(-1)
    paper = np.stack([full.image(2 * 1797 + i) for i in range(200)]).mean(-1)
    assert cast[ink].mean() > cast[~ink].mean() + 30
    assert paper[ink].mean() < paper[~ink].mean() - 50


def test_cast_differs_from_image_to_image(full):
    corners = np.stack([full.image(1797 + i)[0, 0] for i in range(20)])
    assert len(np.unique(corners, axis=0)) > 15


def test_two_instances_hold_the_same_pixels(full):
    assert_array_equal(Scans().pixels, full.pixels)


def test_image_does_not_depend_on_how_many_are_used(full, scans):
    names = [record.file for record in full.records]
    index = next(i for i, record in enumerate(scans.records) if record.domain == "textured")
    twin = names.index(scans.records[index].file)
    assert_array_equal(scans.image(index), full.image(twin))


def test_reader_cannot_change_the_dataset(full):
    full.image(3)[:] = 0
    assert full.image(3).any()


def test_smaller_number_keeps_classes_balanced(scans):
    counts = Counter((record.domain, record.target) for record in scans.records)
    assert set(counts.values()) == {6}


def test_smallest_number_fills_every_split_with_every_class():
    records = Scans(per_domain=40, domains=["clean"]).records
    assert len({(record.target, record.split) for record in records}) == 30


def test_domains_can_be_chosen():
    chosen = Scans(domains=["textured", "clean"], per_domain=40)
    assert chosen.domain_names == ["textured", "clean"]
    assert chosen.records[0].domain == "textured"


@pytest.mark.parametrize("per_domain", [0, 39, 1798])
def test_number_out_of_range_names_the_key(per_domain):
    with pytest.raises(DataError, match=rf"data\.per_domain: {per_domain}, expected 40 to 1797"):
        Scans(per_domain=per_domain)


def test_unknown_domain_gives_the_nearest():
    with pytest.raises(DataError, match=r"data\.source.* did you mean 'colour_cast'"):
        Scans(domains=["color_cast"])
