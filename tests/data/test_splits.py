from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter

import pytest

from domainnorm.data.splits import check_fraction, check_groups, cut
from domainnorm.data.table import Row
from domainnorm.errors import DataError


def rows(groups: int = 30, members: int = 3) -> list[Row]:
    return [
        Row(f"{domain}/{label}/{group}_{member}", domain, label, f"{label}{group}", "train")
        for domain in ("a", "b")
        for label in ("x", "y")
        for group in range(groups)
        for member in range(members)
    ]


def test_group_of_several_domains_never_straddles_splits():
    done = cut(cut(rows(), "test", 0.3, 0), "val", 0.2, 0)
    check_groups(done, "cut")
    assert {row.split for row in done} == {"train", "val", "test"}


@pytest.mark.parametrize("label", ["x", "y"])
@pytest.mark.parametrize("domain", ["a", "b"])
def test_fraction_holds_in_every_domain_and_class(domain, label):
    done = cut(rows(), "test", 0.3, 0)
    counts = Counter(row.split for row in done if (row.domain, row.label) == (domain, label))
    assert counts == {"train": 63, "test": 27}


def test_cut_does_not_depend_on_order():
    shuffled = rows()
    random.Random(0).shuffle(shuffled)
    assert set(cut(shuffled, "val", 0.2, 0)) == set(cut(rows(), "val", 0.2, 0))


def test_cut_keeps_the_order_of_rows():
    assert [row.file for row in cut(rows(), "val", 0.2, 0)] == [row.file for row in rows()]


def test_other_seed_draws_other_groups():
    assert cut(rows(), "val", 0.2, 0) != cut(rows(), "val", 0.2, 1)


def test_cut_does_not_depend_on_the_hash_seed_of_the_process():
    code = (
        "from domainnorm.data.splits import cut; from domainnorm.data.table import Row;"
        "rows = [Row(str(n), 'a', 'x', f'g{n}', 'train') for n in range(20)];"
        "print([row.split for row in cut(rows, 'val', 0.3, 0)])"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", code],
            env=dict(os.environ, PYTHONHASHSEED=seed),
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(printed) == 1


@pytest.mark.parametrize(("groups", "moved"), [(1, 0), (2, 0), (3, 1), (4, 1)])
def test_small_class_keeps_training_images(groups, moved):
    done = cut(rows(groups=groups, members=1), "val", 0.2, 0)
    x = [row.split for row in done if row.domain == "a" and row.label == "x"]
    assert x.count("val") == moved


def test_rows_outside_training_stay():
    first = cut(rows(), "test", 0.3, 0)
    second = cut(first, "val", 0.2, 0)
    kept = [row.file for row in first if row.split == "test"]
    assert [row.file for row in second if row.split == "test"] == kept


def test_straddling_group_is_named():
    torn = [Row("1", "a", "x", "p7", "train"), Row("2", "b", "x", "p7", "test")]
    with pytest.raises(DataError, match=r"group 'p7' is in split train \(1\) and in split test"):
        check_groups(torn, "splits.csv")


@pytest.mark.parametrize("value", [0.0, 1.0, -0.1])
def test_fraction_outside_its_range_names_the_key(value):
    with pytest.raises(DataError, match=r"data\.val_fraction: .* between 0 and 1"):
        check_fraction("data.val_fraction", value)
