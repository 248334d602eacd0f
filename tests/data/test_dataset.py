from __future__ import annotations

import pytest

from domainnorm.data.dataset import select_domains
from domainnorm.errors import DataError


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
