"""Images divided by style, and the parts divided again, as long as that is stable."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domainnorm.encoders.mixtures import Assign, Features, Form, Labels, fit_mixture, stability

# Of one split, the simplest first: three domains at equal distances have no stable halves.
_FORMS = tuple(Form(parts, kind) for parts in (2, 3, 4) for kind in ("tied", "full"))
FEWEST = 10  # different images of a domain: moments of fewer are worth nothing


@dataclass
class _Leaf:
    """One domain so far.

    Args:
        rows: Its images, (n,).
        made_by: Stability of the split that it comes from.
        scores: Stability of splitting it so.
    """

    rows: Labels
    made_by: float
    scores: dict[Form, float]


@dataclass(frozen=True)
class _Split:
    """What divides a leaf: part 0 stays this leaf, the others follow the leaves before."""

    leaf: int
    parts: Labels  # (parts,), their leaves
    assign: Assign


class SplitTree:
    """Splits of splits: the most stable one is made, until none is stable enough.

    Args:
        features: (N, F), in an order of their own.
        most: Largest number of leaves.
        least: Stability above zero that a split needs.
        seed: Of halves and fits.
    """

    def __init__(self, features: Features, most: int, least: float, seed: int) -> None:
        self.features, self.seed = features, seed
        self.splits: list[_Split] = []
        self.leaves = [self._leaf(np.arange(len(features)), 0.0, most)]
        while len(self.leaves) < most:
            room = most - len(self.leaves)
            possible = [
                (score, -_FORMS.index(form), -place)  # of equal ones the simplest, then the first
                for place, leaf in enumerate(self.leaves)
                for form, score in leaf.scores.items()
                if form.num_parts - 1 <= room and score >= max(least, 1e-6)
            ]
            if not possible:
                break
            score, form, place = max(possible)
            self._split(-place, _FORMS[-form], score, most)

    @property
    def stability(self) -> list[float]:
        """Of each leaf; that of the best split that was not made where there is one leaf."""
        if len(self.leaves) == 1:
            return [max(self.leaves[0].scores.values(), default=0.0)]
        return [leaf.made_by for leaf in self.leaves]

    def assign(self, features: Features) -> Labels:
        """Leaves (M,) of features (M, F)."""
        found = np.zeros(len(features), dtype=np.int64)
        for split in self.splits:
            rows = np.flatnonzero(found == split.leaf)
            if len(rows):
                found[rows] = split.parts[split.assign(features[rows])]
        return found

    def _leaf(self, rows: Labels, made_by: float, most: int) -> _Leaf:
        own = self.features[rows]
        number = len(np.unique(own, axis=0))
        scores = {
            form: stability(own, form, self.seed)
            for form in _FORMS
            if form.num_parts <= most and number >= form.num_parts * FEWEST
        }
        return _Leaf(rows, made_by, scores)

    def _split(self, place: int, form: Form, score: float, most: int) -> None:
        rows = self.leaves[place].rows
        assign = fit_mixture(self.features[rows], form, self.seed)
        part = assign(self.features[rows])
        if np.bincount(part, minlength=form.num_parts).min() < FEWEST:
            del self.leaves[place].scores[form]
            return
        made = [self._leaf(rows[part == label], score, most) for label in range(form.num_parts)]
        count = len(self.leaves)
        parts = np.array([place, *range(count, count + form.num_parts - 1)])
        self.splits.append(_Split(place, parts, assign))
        self.leaves[place] = made[0]
        self.leaves += made[1:]
