"""Validators: scores of a model that need no label of the target; of all, higher is better.

Each is a pure function of what `Outputs` holds; its arguments name the fields that it reads. The
registry finds it by its mark, and recipes name it in ``evaluation.selection``.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import adjusted_mutual_info_score
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from domainnorm.evaluation.evaluated import Evaluated, EvaluationError
from domainnorm.evaluation.single_label import Predictions
from domainnorm.registry import VALIDATORS, register

_ROWS = 1000  # of the similarity matrix of `snd`
_FOLDS = 5  # of `dev`
_STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # C of its regressions, of which one is chosen
_METRICS = ("balanced_accuracy", "miou", "auroc")  # of each kind of labels the one of its tables


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What a model said of N samples, images or pixels, of one target domain; on the CPU.

    Args:
        probability: Class probabilities (N, K).
        strong: Those of the same samples in a strongly changed view, (N, K).
        student: Those of the network that a teacher follows, (N, K); None without a teacher.
        features: What reaches the classifier, (N, F); None for pixels.
        mixed: Class probabilities of M samples of mixed images, (M, K).
        mixed_label: What ``probability`` calls the larger part of each, (M,), int64.
        mixed_same: Whether it calls the smaller part the same, (M,), bool.
        source: Predictions on labelled validation images of each source; empty where there are
            none.
        source_features: What reaches the classifier on these S images of all sources, (S, F).
        source_wrong: Whether they are called another class than they are, (S,), bool.
    """

    probability: Tensor
    strong: Tensor | None = None
    student: Tensor | None = None
    features: Tensor | None = None
    mixed: Tensor | None = None
    mixed_label: Tensor | None = None
    mixed_same: Tensor | None = None
    source: Sequence[Evaluated] = ()
    source_features: Tensor | None = None
    source_wrong: Tensor | None = None


def score(name: str, outputs: Outputs) -> float | None:
    """What the validator ``name`` says of a model; None where ``outputs`` lacks what it reads.

    Raises:
        UnknownNameError: No such validator.
    """
    given = [getattr(outputs, field) for field in VALIDATORS.entry(name).arguments]
    if any(value is None or (not isinstance(value, Tensor) and not value) for value in given):
        return None
    return float(VALIDATORS.load(name)(*given))


@register("source_accuracy")
def source_accuracy(source: Sequence[Evaluated]) -> float:
    """Mean validation score of the sources: balanced accuracy (masks: mIoU, findings: AUROC).

    Args:
        source: Predictions on labelled images of each source domain.

    Reference:
        Musgrave et al., Three New Validators and a Large-Scale Benchmark Ranking for Unsupervised
        Domain Adaptation, 2022, arXiv:2208.07360, sec. 3 (source accuracy).
    """
    measured = [one.metrics() for one in source]
    metric = next(name for name in _METRICS if name in measured[0])
    return sum(one[metric] for one in measured) / len(measured)


@register("dev")
def dev(features: Tensor, source_features: Tensor, source_wrong: Tensor) -> float:
    """Negative validation error e of the source, weighted by similarity to the target.

    ``-(mean(w e) + η (mean(w) - 1))`` with the control variate ``η = -cov(w e, w) / var(w)``, and
    ``w = (S / N) · p(target | feature) / p(source | feature)`` by a logistic regression.

    Args:
        features: Features of target images, (N, F).
        source_features: Features of validation images of the sources, (S, F).
        source_wrong: Whether the predicted class of these is wrong, (S,), bool.

    Reference:
        You et al., Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation, ICML
        2019, alg. 1 (DEV).
        Differs: p is of a regression of standardized features by four fifths of the same images
        that the fifth is not among, where the paper trains a network on training images; its
        penalty too is the one with the least loss on images left out.
    """
    weight = _density_ratio(source_features.double().numpy(), features.double().numpy())
    weighted = weight * source_wrong.double().numpy()
    variance = weight.var()
    eta = -np.mean((weighted - weighted.mean()) * weight) / variance if variance > 0 else 0.0
    return -float(weighted.mean() + eta * (weight.mean() - 1))


def _density_ratio(source: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """How much likelier each source point (S, F) is among those of the target (N, F): (S,)."""
    sizes = len(source), len(target)
    folds = min(_FOLDS, *sizes)
    if folds < 2:
        return np.ones(len(source))  # one image says nothing of a density
    points, label = np.concatenate([source, target]), np.repeat([0, 1], sizes)
    fold = np.concatenate([np.arange(size) % folds for size in sizes])
    logits = np.empty((len(_STRENGTHS), len(points)))
    for left_out in range(folds):
        known = fold != left_out
        scaled = StandardScaler().fit(points[known]).transform(points)
        model = LogisticRegression(tol=1e-8, max_iter=1000, warm_start=True)
        for number, strength in enumerate(_STRENGTHS):
            model.set_params(C=strength).fit(scaled[known], label[known])
            logits[number, ~known] = model.decision_function(scaled[~known])
    losses = np.logaddexp(0, np.where(label == 1, -logits, logits)).mean(1)
    logit = logits[losses.argmin()]
    ratio: NDArray[np.float64] = sizes[0] / sizes[1] * np.exp(logit[: sizes[0]])
    return ratio


@register("entropy")
def entropy(probability: Tensor) -> float:
    """Confidence of predictions: ``-mean_n H(p_n)``, in nats. Predicting only one class is best.

    Args:
        probability: (N, K).

    Reference:
        Morerio et al., Minimal-Entropy Correlation Alignment, ICLR 2018, arXiv:1711.10288, sec. 4.
    """
    return -float(_entropies(probability.double()).mean())


@register("infomax")
def infomax(probability: Tensor) -> float:
    """Confident, diverse predictions: ``H(mean_n p_n) - mean_n H(p_n)``, in nats; 0 to ln K.

    Args:
        probability: (N, K).

    Reference:
        Shi and Sha, Information-Theoretical Learning of Discriminative Clusters for Unsupervised
        Domain Adaptation, ICML 2012, arXiv:1206.6438, eq. 8 (IM).
    """
    wide = probability.double()
    return float(_entropies(wide.mean(0, keepdim=True))) - float(_entropies(wide).mean())


@register("bnm")
def bnm(probability: Tensor) -> float:
    """Nuclear norm of the predictions, as a share of the largest possible: ``|P|_* / √(N · r)``.

    r is the smaller of N and K. Confident and diverse predictions have the largest norm.

    Args:
        probability: P (N, K).

    Reference:
        Cui et al., Towards Discriminability and Diversity: Batch Nuclear-norm Maximization, CVPR
        2020, arXiv:2003.12237, eq. 9; as a validator Musgrave et al., arXiv:2208.07360, sec. 4.
        Differs: as a share, so that numbers of samples compare.
    """
    norm = torch.linalg.svdvals(probability.double()).sum()
    return float(norm) / math.sqrt(len(probability) * min(probability.shape))


@register("snd")
def snd(probability: Tensor) -> float:
    """Density of soft neighbourhoods: ``mean_n H(softmax_m(s_nm / 0.05))``, m ≠ n, in nats.

    s is the cosine of two predictions. Of more than 1000 samples a subset is drawn, equally many of
    each predicted class.

    Args:
        probability: (N, K).

    Reference:
        Saito et al., Tune It the Right Way: Unsupervised Validation of Domain Adaptation via Soft
        Neighborhood Density, ICCV 2021, arXiv:2108.10860, eq. 1 to 3.
        Differs: a sample is no neighbour of its own, where the authors' code leaves it a similarity
        of -1.
    """
    rows = F.normalize(balanced(probability, _ROWS).double(), dim=1)
    if len(rows) < 2:
        return 0.0  # one sample has no neighbours
    similarity = (rows @ rows.T / 0.05).fill_diagonal_(-torch.inf)
    return float(_entropies(similarity.softmax(1)).mean())


@register("corr_c")
def corr_c(probability: Tensor) -> float:
    """Similarity of class correlations to the identity: ``tr C / (√K |C|_F)``, ``C = PᵀP``.

    Args:
        probability: P (N, K).

    Reference:
        Tu et al., What Does Softmax Probability Tell Us about Classifiers Ranking Across Diverse
        Test Conditions?, TMLR 2024, arXiv:2406.09908 (SoftmaxCorr): the cosine between C and the
        identity.
        Differs: from the code of EnsV, whose "Corr-C" takes the smallest: that is a model which
        knows one class alone.
    """
    correlation = probability.double().T @ probability.double()
    return float(correlation.trace() / correlation.norm()) / math.sqrt(len(correlation))


@register("class_ami")
def class_ami(probability: Tensor, features: Tensor) -> float:
    """Adjusted mutual information of predicted classes and K clusters of the features, to 1.

    Clusters are those of k-means, the best of five starts.

    Args:
        probability: (N, K).
        features: (N, F).

    Reference:
        Musgrave et al., arXiv:2208.07360, sec. 4 (ClassAMI).
    """
    points = features.double().numpy()
    number = min(probability.shape[1], len(np.unique(points, axis=0)))
    clusters = KMeans(number, n_init=5, random_state=0).fit(points).labels_
    return float(adjusted_mutual_info_score(probability.argmax(1).numpy(), clusters))


@register("mixval")
def mixval(mixed: Tensor, mixed_label: Tensor, mixed_same: Tensor) -> float:
    """Share of mixed images ``0.55 a + 0.45 b`` with the same predicted class as a.

    The mean of this share over pairs of one class and pairs of two classes, if there are both.

    Args:
        mixed: Probabilities of the mixed images, (M, K).
        mixed_label: Predicted classes of a, (M,).
        mixed_same: Whether b is predicted to be of the same class, (M,), bool.

    Reference:
        Hu et al., Mixed Samples as Probes for Unsupervised Model Selection in Domain Adaptation,
        NeurIPS 2023, eq. 1 to 3.
        Differs: the two shares are averaged, not the ranks of candidates by each, so that a model
        has a score of its own.
    """
    right = (mixed.argmax(1) == mixed_label).double()
    shares = [right[mixed_same].mean(), right[~mixed_same].mean()]
    return float(torch.stack(shares).nanmean())


@register("view_agreement")
def view_agreement(probability: Tensor, strong: Tensor) -> float:
    """Share of samples with the same predicted class in a strongly augmented view.

    Args:
        probability: (N, K).
        strong: Probabilities of the strong view, (N, K).
    """
    return _agreement(probability, strong)


@register("teacher_agreement")
def teacher_agreement(probability: Tensor, student: Tensor) -> float:
    """Share of samples with the same predicted class by a teacher and its student.

    Args:
        probability: Probabilities of the teacher, (N, K).
        student: Probabilities of the student, (N, K).
    """
    return _agreement(probability, student)


def ensv(candidates: Sequence[Evaluated]) -> list[float]:
    """Agreement of each of several models with the mean of all, on the same target samples.

    ``EnsV_m = mean_n [argmax p_mn = argmax Σ_j p_jn]``. The mean is a model that is never the worst
    of them, and what is near it is not either.

    Args:
        candidates: `Predictions` of each model, such as ``unlabelled-<domain>.safetensors`` of
            stages of one transfer; labels in them are not read.

    Raises:
        EvaluationError: No candidate, predictions without probabilities of classes that exclude
            each other, or of other samples.

    Reference:
        Hu et al., Unsupervised Model Selection for Domain Adaptation via an Ensemble, NeurIPS 2024
        (EnsV), eq. 4 and 5.
    """
    probabilities, first = [], candidates[0] if candidates else None
    for one in candidates:
        if not isinstance(one, Predictions):
            raise EvaluationError(
                f"ensv: {type(one).__name__}, expected Predictions; of masks take the pixels in "
                "unlabelled-<domain>.safetensors"
            )
        probabilities.append(one.probabilities.double())
        if not torch.equal(one.index, candidates[0].index):
            raise EvaluationError(
                f"ensv: {len(one)} and {len(candidates[0])} samples that are not the same; compare "
                "stages of one transfer, run with the same evaluation.score_images"
            )
    if first is None:
        raise EvaluationError("ensv: no candidate came, expected predictions of at least one model")
    together = torch.stack(probabilities)
    agreed = together.mean(0)
    return [_agreement(agreed, one) for one in together]


def balanced(probability: Tensor, most: int) -> Tensor:
    """At most ``most`` rows (n, K), drawn by a fixed seed: of each predicted class equally many.

    Classes of fewer rows leave room for others. All rows, in their order, where there are no more.

    Args:
        probability: (N, K).
        most: Number of rows.
    """
    if len(probability) <= most:
        return probability
    order = torch.randperm(len(probability), generator=torch.Generator().manual_seed(0))
    label = probability[order].argmax(1)
    one_hot = F.one_hot(label, probability.shape[1])
    # How many of its class come before each row: a round deals one row of every class.
    place = one_hot.cumsum(0).gather(1, label[:, None]).squeeze(1)
    return probability[order[place.argsort(stable=True)[:most]]]


def _entropies(probability: Tensor) -> Tensor:
    entropies: Tensor = -torch.special.xlogy(probability, probability).sum(1)
    return entropies


def _agreement(first: Tensor, second: Tensor) -> float:
    return float((first.argmax(1) == second.argmax(1)).double().mean())
