"""Mixtures of Gaussians over style features, and how stable what they find is."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA
from sklearn.exceptions import ConvergenceWarning
from sklearn.mixture import GaussianMixture

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


class Form(NamedTuple):
    """What is fitted.

    Args:
        num_parts: Number of Gaussians.
        covariance: ``tied``: one for all, which few images suffice for; ``full``: one for each.
    """

    num_parts: int
    covariance: Literal["tied", "full"]


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
    """Fit Gaussians on the principal axes of the features.

    Args:
        features: (N, F).
        form: Number of Gaussians, at most N, and their covariances.
        seed: Of the starts, of which the likeliest wins.

    Returns:
        What gives other features (M, F) the most probable part, (M,) in ``0 .. num_parts - 1``.
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
    of one blob come out differently each time.

    Args:
        features: (N, F), N at least four times the number of Gaussians.
        form: Number of Gaussians and their covariances.
        seed: Of halves and fits.

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
            found.append(
                min(
                    prediction_strength(first, second, form.num_parts),
                    prediction_strength(second, first, form.num_parts),
                )
            )
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
