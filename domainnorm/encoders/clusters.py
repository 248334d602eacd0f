"""Clusters of images by style: domains that nobody wrote down.

Mixtures of Gaussians divide the images, and the parts are divided again, as long as that is stable.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.metrics import silhouette_samples
from sklearn.mixture import GaussianMixture
from torch import Tensor

from domainnorm.errors import ConditionError

Features = NDArray[np.float64]
Labels = NDArray[np.int64]
Assign = Callable[[Features], Labels]

# Share of the variance that principal axes keep: the rest is noise to full covariances.
_VARIANCE = 0.95
# Spreads: one odd image is not to bend an axis, let alone to be a domain.
_LARGEST = 4.0
_CONSTANT = 1e-3  # less than a grey level
RIDGE = 1e-3  # of covariances
_STARTS, _REPEATS = 3, 5
STABLE = 0.8  # Tibshirani and Walther recommend 0.8 to 0.9
FEWEST = 10  # different images of a domain: moments of fewer are worth nothing


class Form(NamedTuple):
    """What is fitted.

    Args:
        num_parts: Number of Gaussians.
        covariance: ``tied``: one for all, which few images suffice for; ``full``: one for each.
    """

    num_parts: int
    covariance: Literal["tied", "full"]


# Of one split, the simplest first: three domains at equal distances have no stable halves.
_FORMS = tuple(Form(parts, kind) for parts in (2, 3, 4) for kind in ("tied", "full"))


@dataclass(frozen=True)
class Axes:
    """Standardized, limited features on their principal axes.

    Args:
        location: Mean of each feature, (F,).
        spread: Standard deviation of each feature, (F,); 1 for a constant one.
        rotation: The axes that keep 95 % of the variance; None where nothing varies.
    """

    location: Features
    spread: Features
    rotation: PCA | None

    @classmethod
    def of(cls, features: Features) -> Axes:
        """The axes of features (N, F), two or more rows."""
        spread = features.std(0)
        spread = np.where(spread < _CONSTANT, 1.0, spread)  # a constant feature says nothing
        plain = cls(features.mean(0), spread, None)
        standard = plain._standard(features)
        if float(standard.var(0).sum()) < _CONSTANT:
            return plain
        rotation = PCA(_VARIANCE, svd_solver="full").fit(standard)
        return cls(plain.location, spread, rotation)

    def __call__(self, features: Features) -> Features:
        """Features (N, F) -> coordinates (N, A)."""
        standard = self._standard(features)
        if self.rotation is None:
            return np.zeros((len(features), 1))
        return np.asarray(self.rotation.transform(standard), dtype=np.float64)

    def _standard(self, features: Features) -> Features:
        return np.clip((features - self.location) / self.spread, -_LARGEST, _LARGEST)


def fit_mixture(features: Features, form: Form, seed: int) -> Assign:
    """Fit Gaussians on the principal axes of features (N, F); of several starts the likeliest wins.

    Returns what gives other features (M, F) the most probable part, (M,) in ``0 .. num_parts - 1``.
    """
    axes = Axes.of(features)
    mixture = GaussianMixture(
        form.num_parts,
        covariance_type=form.covariance,
        reg_covar=RIDGE,
        n_init=_STARTS,
        max_iter=200,
        random_state=seed,
    )
    with warnings.catch_warnings():
        # A bad fit is no defect here: it comes out different in the other half, and is refused.
        warnings.simplefilter("ignore", ConvergenceWarning)
        mixture.fit(axes(features))
    return lambda other: np.asarray(mixture.predict(axes(other)), dtype=np.int64)


def stability(features: Features, form: Form, seed: int) -> float:
    """How well a mixture of one half of the images foretells that of the other half.

    Mean over five random halvings, and over the two halves of each, of the `prediction_strength`
    with which the mixtures of both foretell each other, whichever is less. Parts that are cut out
    of one blob come out differently each time. N is at least four times the number of Gaussians.

    Reference:
        Tibshirani and Walther, Cluster Validation by Prediction Strength, JCGS 2005, sec. 2.
        Differs: mixtures of Gaussians instead of k-means, several halvings, and both directions:
        an overfitted Gaussian foretells one part for all, which keeps all pairs together.
    """
    found = []
    for repeat in range(_REPEATS):
        order = np.random.default_rng([seed, repeat]).permutation(len(features))
        halves = features[order[: len(order) // 2]], features[order[len(order) // 2 :]]
        fits = [fit_mixture(half, form, seed) for half in halves]
        for half in halves:
            first, second = (fit(half) for fit in fits)
            pairs = (first, second), (second, first)
            found.append(min(prediction_strength(*pair, form.num_parts) for pair in pairs))
    return float(np.mean(found))


def prediction_strength(own: Labels, foretold: Labels, num_parts: int) -> float:
    """Least share, over the parts, of pairs of one part that are foretold to be together.

    Args:
        own: Parts of N images by a fit to them, (N,).
        foretold: Parts of the same images by a fit to others, (N,).
        num_parts: Number of parts; a part of fewer than two images counts 0.

    Reference:
        Tibshirani and Walther, Cluster Validation by Prediction Strength, JCGS 2005, sec. 2.
    """
    shares = []
    for part in range(num_parts):
        together = np.bincount(foretold[own == part], minlength=num_parts)
        number = int(together.sum())
        pairs = number * (number - 1)
        shares.append(float((together * (together - 1)).sum()) / pairs if pairs else 0.0)
    return min(shares)


@dataclass
class _Leaf:
    """One domain so far."""

    rows: Labels  # its images, (n,)
    made_by: float  # stability of the split that it comes from
    scores: dict[Form, float]  # stability of splitting it so


@dataclass(frozen=True)
class _Split:
    """What divides a leaf: part 0 stays this leaf, the others follow the leaves before."""

    leaf: int
    parts: Labels  # (parts,), their leaves
    assign: Assign


class SplitTree:
    """A tree of splits: the most stable split is made next, until none is stable enough.

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


@dataclass(frozen=True)
class FoundDomains:
    """Domains found by `find_domains`, the largest first.

    Args:
        domain: Labels (N,), ``0 .. K - 1``.
        stability: Stability of the split that made each domain, (K,), 0 to 1: how well one half of
            the images predicts the split of the other half. For a single domain: that of the best
            refused split, or 0 if there were too few images to try.
        silhouette: Mean silhouette of the images of each domain, (K,), -1 to 1; nan for a single
            domain.
        distance: Squared Mahalanobis distance of each image to the centre of its domain, (N,):
            small for a typical one.
    """

    domain: Tensor
    stability: Tensor
    silhouette: Tensor
    distance: Tensor

    @property
    def num_domains(self) -> int:
        """K."""
        return len(self.stability)

    @property
    def size(self) -> Tensor:
        """Number of images of each domain, (K,)."""
        return torch.bincount(self.domain, minlength=self.num_domains)

    def typical(self, domain: int, count: int, among: Tensor | None = None) -> list[int]:
        """Positions of the ``count`` images nearest to the centre of a domain, nearest first.

        Args:
            domain: Label.
            count: How many, or all there are.
            among: Images that may be taken, (N,) of bool; all when None.
        """
        may = self.domain == domain if among is None else (self.domain == domain) & among
        places = may.nonzero().flatten()
        order = self.distance[places].argsort(stable=True)
        chosen: list[int] = places[order[:count]].tolist()
        return chosen


def find_domains(
    features: Tensor,
    num_domains: int | None = None,
    *,
    max_domains: int = 8,
    shaping: Tensor | None = None,
    seed: int = 0,
) -> FoundDomains:
    """Group images by their style, without any labels.

    All images start as one domain. Mixtures of 2, 3 or 4 Gaussians (on the principal axes of
    standardized features, with one covariance or several) are fitted to each domain. The most
    stable split is made, until none reaches a stability of 0.8. A split is stable if mixtures
    fitted to two halves of the images agree; on parts of one cluster they do not. A domain has at
    least 10 images. The order of the images does not matter.

    Args:
        features: (N, F), such as `style_features` give.
        num_domains: K; None for as many as the stable splits support.
        max_domains: Largest K.
        shaping: Images that define the domains, (N,) of bool; None for all. Other images are only
            assigned to domains.
        seed: Seed of halves and fits.

    Raises:
        ConditionError: No image, features that are not finite or not (N, F), a K below 1, or one
            that the images cannot be split into.

    Reference:
        Tibshirani and Walther, Cluster Validation by Prediction Strength, JCGS 2005, sec. 2.
        Differs: mixtures of Gaussians instead of k-means, and splits of splits.
    """
    values, used = _checked(features, shaping)
    most = max_domains if num_domains is None else num_domains
    if most < 1:
        raise ConditionError(f"find_domains: {most} domains, expected 1 or more")
    order = np.lexsort(values.T)  # the same sums in the same order, however images come
    values, used = values[order], used[order]
    tree = SplitTree(values[used], most, 0.0 if num_domains else STABLE, seed)
    stable = tree.stability
    if num_domains and len(stable) < num_domains:
        raise ConditionError(
            f"find_domains: {num_domains} domains asked for, {len(stable)} could be told apart in "
            f"{int(used.sum())} images; a split needs {FEWEST} different images for each part: ask "
            "for fewer domains or give more images"
        )
    domain = tree.assign(values)
    # The largest first; equal ones stay in the order of the splits.
    rank = np.argsort(-np.bincount(domain[used], minlength=len(stable)), kind="stable")
    domain = np.argsort(rank)[domain]
    silhouette, distance = _judged(values, domain, used, len(stable))
    back = np.argsort(order)
    return FoundDomains(
        torch.from_numpy(domain[back]),
        torch.tensor([stable[label] for label in rank], dtype=torch.float64),
        torch.from_numpy(silhouette),
        torch.from_numpy(distance[back]),
    )


def _checked(features: Tensor, shaping: Tensor | None) -> tuple[Features, NDArray[np.bool_]]:
    if features.ndim != 2 or len(features) == 0 or not bool(features.isfinite().all()):
        raise ConditionError(
            f"find_domains: features {tuple(features.shape)}, expected finite ones (N, F) of at "
            "least one image"
        )
    used = torch.ones(len(features), dtype=torch.bool) if shaping is None else shaping
    if used.shape != (len(features),) or not bool(used.any()):
        raise ConditionError(
            f"find_domains: shaping {tuple(used.shape)}, {int(used.sum())} of them set; expected "
            f"({len(features)},) and at least one"
        )
    return features.detach().cpu().double().numpy(), used.cpu().numpy().astype(bool)


def _judged(
    features: Features, domain: Labels, used: NDArray[np.bool_], num_domains: int
) -> tuple[Features, Features]:
    """Silhouette of each domain, (K,), and distance of each image to its centre, (N,)."""
    axes = Axes.of(features[used])
    points = axes(features)
    silhouette = np.full(num_domains, np.nan)
    if num_domains > 1:
        each = silhouette_samples(points[used], domain[used])
        silhouette = np.array([each[domain[used] == k].mean() for k in range(num_domains)])
    distance = np.zeros(len(points))
    for label in range(num_domains):
        own = points[used & (domain == label)]
        apart = points[domain == label] - own.mean(0)
        covariance = np.cov(own.T, bias=True).reshape(points.shape[1], -1)
        inverse = np.linalg.inv(covariance + RIDGE * np.eye(len(covariance)))
        distance[domain == label] = ((apart @ inverse) * apart).sum(1)
    return silhouette, distance
