"""Translated images, judged: whose style they have, how near they come, what is left of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from domainnorm.evaluation.evaluated import Evaluated, WeightedMetrics, class_labels
from domainnorm.evaluation.intervals import mean_of_known

_DIRECTIONS = 128  # on which distributions of features are compared
_LEAST = 0.1  # deviation of a feature, as a share of the mean one
_REGULARITY = 0.1  # inverse strength of the classifier's penalty: images are few


class StyleJudge:
    """Tells of what domain an image looks, by logistic regression on features of real images.

    Each feature is brought to mean 0 and variance 1 first; all domains count the same.

    Args:
        features: Of real training images, (N, F).
        domain: Their domains, (N,), two or more.
    """

    def __init__(self, features: Tensor, domain: Tensor) -> None:
        # Deferred: half a second, and few programs judge images.
        from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

        std, self._mean = torch.std_mean(features.float().cpu(), 0)
        # What hardly varies here would be all there is in images that differ in it.
        self._std = std.clamp(min=max(_LEAST * float(std.mean()), 1e-6))
        self._classifier = LogisticRegression(
            C=_REGULARITY, class_weight="balanced", max_iter=2000
        ).fit(self.scaled(features).numpy(), domain.cpu().numpy())

    def scaled(self, features: Tensor) -> Tensor:
        """Features (N, F) as the classifier takes them, on the CPU."""
        return (features.float().cpu() - self._mean) / self._std

    def __call__(self, scaled: Tensor) -> Tensor:
        """The domain that each of (N, F) looks of, (N,)."""
        return torch.from_numpy(self._classifier.predict(scaled.numpy())).long()


@dataclass(frozen=True)
class Translations(Evaluated):
    """What became of N images of one domain in the styles of D domains, on the CPU.

    Of the domain of the images themselves, the features and what they are taken for are those of
    the real images.

    Args:
        domain: The domain of the images, (N,), int64.
        judged: The domain that each translation is taken for, by a `StyleJudge` of its style and by
            one of all that it shows, (N, D, 2), int64.
        similarity: SSIM of each image and what comes back from each domain, (N, D), float32; in the
            column of its own domain that of the image in its own style.
        features: Of each translation, (N, D, F), float32.
        index: Position of each image in its dataset (N,), int64.

    Raises:
        EvaluationError: A wrong shape, dtype or device.
    """

    domain: Tensor
    judged: Tensor
    similarity: Tensor
    features: Tensor
    index: Tensor
    kind: ClassVar[str] = "translation"

    def __post_init__(self) -> None:
        shape = tuple(self.similarity.shape)
        if len(shape) != 2:
            self._refuse("similarity", f"shape {shape}", "(N, D)")
        self._check("similarity", shape, torch.float32)
        self._check("judged", (*shape, 2), torch.int64, " to match similarity")
        self._check("features", (*shape, self.features.shape[-1]), torch.float32)
        for name in ("domain", "index"):
            self._check(name, shape[:1], torch.int64, " to match similarity")

    @property
    def has_label(self) -> Tensor:
        """Every image has a domain."""
        return torch.ones(len(self), dtype=torch.bool)

    def weighted(self, *, domain_names: Sequence[str] | None = None) -> TranslationSums:
        """What metrics of translations are computed from.

        Args:
            domain_names: Names of the D domains; None for their numbers.

        Raises:
            EvaluationError: The number of names is not D.
        """
        names = class_labels(domain_names, self.similarity.shape[1])
        right = self.judged == torch.arange(len(names))[:, None]
        sums = torch.cat([right.flatten(1), self.similarity], 1).double().T
        return TranslationSums(sums, int(self.domain[0]), names)

    def real(self) -> Tensor:
        """Features of the images themselves, (N, F)."""
        return self.features[:, int(self.domain[0])]


@dataclass(frozen=True)
class TranslationSums(WeightedMetrics):
    """Sums of translations, for weights to be applied.

    Args:
        sums: See `WeightedMetrics`. Rows: D of pairs, images taken for what they were asked to be
            by their style and by everything; D of similarities.
        own: The domain of the images.
        domain_names: Names of the D domains.
    """

    own: int
    domain_names: list[str]

    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Weighted metrics for several weightings at once, see `WeightedMetrics`.

        Returns:
            Values (B,), means over the other domains, and of each as ``style_accuracy/<domain>``:
            ``style_accuracy``, the share of translations whose style is taken for that of the
            domain that was asked for; ``look_accuracy``, of those that are by all that they show;
            and ``round_trip_ssim``. Of the images themselves: ``style_accuracy_real`` and
            ``look_accuracy_real``, the shares taken for their own domain, and ``own_style_ssim``,
            of what they become in their own style.
        """
        count = len(self.domain_names)
        means = self.sums @ weights / weights.sum(0)
        right, similar = means[: 2 * count], means[2 * count :]
        values = {"style_accuracy": right[::2], "look_accuracy": right[1::2]}
        others = [d for d in range(count) if d != self.own]
        found = {}
        for name, of in {**values, "round_trip_ssim": similar}.items():
            found[name] = of[others].mean(0)
            found |= {f"{name}/{self.domain_names[d]}": of[d] for d in others}
        found |= {f"{name}_real": of[self.own] for name, of in values.items()}
        return {**found, "own_style_ssim": similar[self.own]}


def style_distances(
    evaluated: Mapping[str, Evaluated], domain_names: Sequence[str]
) -> dict[str, dict[str, float]]:
    """How far translated images are from real ones of the domain asked for, by their own domain.

    Each is a sliced Wasserstein distance of features of test images. ``distance/<domain>``: of
    translations to real images of the domain. What it is to be seen beside: that of the images
    before translation, ``distance_before/<domain>``, and that of one half of the domain's real
    images to the other, ``distance_halves/<domain>``, of the even and odd positions in the dataset.
    ``distance``, ``distance_before`` and ``distance_halves`` are means over domains.

    Args:
        evaluated: Domain -> `Translations` of its test images.
        domain_names: Names of the D domains, by label.
    """
    translated = {name: one for name, one in evaluated.items() if isinstance(one, Translations)}
    found: dict[str, dict[str, float]] = {}
    for name, one in translated.items():
        values: dict[str, dict[str, float]] = {}
        for asked, other in translated.items():
            if asked == name:
                continue
            real, made = other.real(), one.features[:, domain_names.index(asked)]
            values[asked] = {
                "distance": sliced_wasserstein(made, real),
                "distance_before": sliced_wasserstein(one.real(), real),
                "distance_halves": sliced_wasserstein(real[::2], real[1::2]),
            }
        found[name] = {
            key: mean_of_known(of[key] for of in values.values())
            for key in ("distance", "distance_before", "distance_halves")
            if values
        } | {f"{key}/{asked}": value for asked, of in values.items() for key, value in of.items()}
    return found


def sliced_wasserstein(one: Tensor, other: Tensor) -> float:
    """Sliced Wasserstein-1 distance of two sets of features, along directions that a seed draws.

    ``mean over directions v of ∫ |F(x) - G(x)| dx``, F and G the shares of samples with ``v · f``
    of at most x; ``v`` of length 1. nan where a set is empty.

    Args:
        one: (N, F).
        other: (M, F).

    Reference:
        Bonneel et al., Sliced and Radon Wasserstein Barycenters of Measures, JMIV 51, 2015.
    """
    if not len(one) or not len(other):
        return float("nan")
    generator = torch.Generator().manual_seed(0)
    directions = torch.randn(one.shape[1], _DIRECTIONS, generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    first, second = ((part.double() @ directions).T.sort().values for part in (one, other))
    every = torch.cat([first, second], 1).sort().values  # (V, N + M)
    shares = [
        torch.searchsorted(part.contiguous(), every[:, :-1].contiguous(), right=True)
        / part.shape[1]
        for part in (first, second)
    ]
    return float(((shares[0] - shares[1]).abs() * every.diff()).sum(1).mean())
