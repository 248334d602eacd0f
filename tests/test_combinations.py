from itertools import combinations, product

import pytest

from tests.combinations import covering, covering_set

SIZES = [(5, 3), (3, 5, 2), (7, 3, 2, 2), (2, 2, 2, 2, 2), (6, 1, 4)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("strength", [1, 2])
def test_every_combination_of_so_many_axes_is_in_the_set(sizes, strength):
    rows = covering_set(sizes, strength)
    assert len(rows) == len(set(rows))
    for places in combinations(range(len(sizes)), strength):
        found = {tuple(row[place] for place in places) for row in rows}
        assert found == set(product(*(range(sizes[place]) for place in places)))


@pytest.mark.parametrize(
    ("strength", "sizes", "number"), [(1, (40, 3, 2), 40), (2, (40, 3, 2), 120), (2, (9, 3, 2), 27)]
)
def test_set_is_as_small_as_its_longest_axes_allow(strength, sizes, number):
    assert len(covering_set(sizes, strength)) == number


def test_rest_of_the_product_is_slow():
    mark = covering(1, name=["a", "b", "c"], training=[True, False])
    names, params = mark.mark.args
    assert names == ["name", "training"]
    assert [param.id for param in params] == [
        f"{name}-{training}" for name in "abc" for training in (True, False)
    ]
    assert [param.id for param in params if not param.marks] == ["a-True", "b-False", "c-True"]
