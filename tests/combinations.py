"""Combinations of parameters: by default a set that covers their product, the rest when slow."""

from collections import Counter
from itertools import combinations, product

import pytest


def covering(_strength=2, /, *, _slow=(), **axes):
    """Parametrize a test over the product of `axes`; all but a covering set is marked slow.

    The set holds each combination of the values of any `_strength` axes at least once: each value
    with 1, each pair of values with 2. It is the same each time. Of this set, too, what has one of
    the values `_slow` is marked so.
    """
    values = [list(axis) for axis in axes.values()]
    chosen = set(covering_set([len(axis) for axis in values], _strength))
    params = []
    for places in product(*(range(len(axis)) for axis in values)):
        row = [axis[place] for axis, place in zip(values, places, strict=True)]
        is_slow = places not in chosen or any(value in _slow for value in row)
        marks = [pytest.mark.slow] if is_slow else []
        params.append(pytest.param(*row, id="-".join(map(_spelled, row)), marks=marks))
    return pytest.mark.parametrize(list(axes), params)


def few(count, values):
    """Values for `pytest.mark.parametrize`, all but the first `count` marked slow."""
    slow = pytest.mark.slow
    return [
        pytest.param(value, id=_spelled(value), marks=[] if place < count else [slow])
        for place, value in enumerate(values)
    ]


def covering_set(sizes, strength):
    """Rows of the product of `range(size)` that hold all combinations of `strength` of them.

    Each combination of the longest axes is completed by what is new, or else rarest, so far.
    """
    axes = range(len(sizes))
    order = sorted(axes, key=lambda axis: -sizes[axis])
    seen, rows = Counter(), []

    def parts(row, size):
        return [(places, *(row[p] for p in places)) for places in combinations(axes, size)]

    def gain(row):
        pairs = sum(seen[part] for part in parts(row, min(2, len(sizes))))
        return sum(not seen[part] for part in parts(row, strength)), -pairs

    def take(row):
        rows.append(row)
        seen.update({*parts(row, strength), *parts(row, min(2, len(sizes)))})

    head, rest = order[:strength], order[strength:]
    back = [order.index(axis) for axis in axes]
    for start in product(*(range(sizes[axis]) for axis in head)):
        ends = product(*(range(sizes[axis]) for axis in rest))
        candidates = ([*start, *end] for end in ends)
        take(max((tuple(row[b] for b in back) for row in candidates), key=gain))
    for row in product(*map(range, sizes)):
        if gain(row)[0]:
            take(row)
    return rows


def _spelled(value):
    return getattr(value, "__name__", None) or str(value).removeprefix("torch.")
