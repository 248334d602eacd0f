"""Domains that nobody wrote down, found in the style of the images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.metrics import silhouette_samples
from torch import Tensor

from domainnorm.encoders.mixtures import RIDGE, Axes, Features, Labels
from domainnorm.encoders.tree import FEWEST, SplitTree
from domainnorm.errors import ConditionError

STABLE = 0.8  # Tibshirani and Walther recommend 0.8 to 0.9


@dataclass(frozen=True)
class FoundDomains:
    """Domains found by `find_domains`, the largest first.

    Args:
        domain: Labels (N,), ``0 .. K - 1``.
        stability: Of the split that each domain comes from, (K,): how well half of the images
            foretells it for the other half, 0 to 1. For a single domain, that of the best split
            that was refused, 0 where there were too few images to try.
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
    """Group images by their style, without a label of any kind.

    All images are one domain at first. Mixtures of 2, 3 or 4 Gaussians (on the principal axes of
    standardized features, with one covariance or several) are fitted to each domain; the split
    that is most stable is made, until none reaches 0.8. Stable means that mixtures fitted to two
    halves of the images agree, as they do not on parts of one blob. A domain has at least 10
    images. The order of the images does not matter.

    Args:
        features: (N, F), such as `style_features` give.
        num_domains: K; as many as there are stable splits for when None.
        max_domains: Largest K that is found.
        shaping: Images that decide what domains there are, (N,) of bool; all when None. The
            others are assigned only.
        seed: Of halves and fits.

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
