"""What becomes of samples of unseen domains, and the known domain nearest to one."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Literal, TypeAlias, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from domainnorm.condition import Condition, MomentsReached
from domainnorm.encoders import DomainEncoder, Estimate
from domainnorm.errors import ConditionError, unknown
from domainnorm.norms.kernels.mixing import Moments
from domainnorm.norms.kernels.per_sample import moments
from domainnorm.norms.statistics.base import RunningMoments, Statistics
from domainnorm.slot import ConditionSlot

# What becomes of images that an encoder finds near no known domain.
Far: TypeAlias = Literal["mean", "batch"]
Unseen: TypeAlias = Literal["error", "mean", "nearest", "batch", "estimate", "mixture"]
ESTIMATED: tuple[Unseen, ...] = ("estimate", "mixture")


def check_policy(
    policy: Unseen, statistics: Iterable[Statistics], *, has_encoder: bool = False
) -> None:
    """Whether a model with norms of these statistics can carry out a policy.

    Raises:
        ConditionError: It cannot, or there is no such policy.
    """
    if policy not in get_args(Unseen):
        raise ConditionError(unknown("policy for unseen domains", policy, get_args(Unseen)))
    if policy in ESTIMATED and not has_encoder:
        raise ConditionError(
            f"unseen: '{policy}' needs a domain encoder, and this model has none; "
            "model.attach_encoder(create_encoder('style', ...)) first, or 'encoder: style' in a "
            "recipe"
        )
    known = list(statistics)
    tracked = (moments for moments in known if isinstance(moments, RunningMoments))
    if policy == "nearest" and not any(moments.tracks_domains for moments in tracked):
        raise ConditionError(
            "unseen: 'nearest' compares moments of domains, and no norm of this model has any; "
            "use 'mean', or a norm that has, such as 'dsbn'"
        )
    if policy == "batch":
        check_tracked("unseen", known)


def check_far(policy: Far, statistics: Iterable[Statistics], *, has_encoder: bool) -> None:
    """Whether a model with norms of these statistics can carry out a policy for far images.

    Raises:
        ConditionError: It cannot, or there is no such policy.
    """
    if policy not in get_args(Far):
        raise ConditionError(unknown("policy for far images", policy, get_args(Far)))
    if not has_encoder:
        raise ConditionError(
            "far: an encoder tells which images are near no known domain, and this model has none; "
            "model.attach_encoder(create_encoder('style', ...)) first, or 'encoder: style' in a "
            "recipe"
        )
    if policy == "batch":
        check_tracked("far", statistics)


def check_tracked(key: str, statistics: Iterable[Statistics]) -> None:
    """Whether there are running moments, whose place those of a batch can take.

    Raises:
        ConditionError: There are none.
    """
    if not any(isinstance(moments, RunningMoments) for moments in statistics):
        raise ConditionError(
            f"{key}: 'batch' takes the place of running moments, and no norm of this model has "
            "any; use 'mean', which is the same here"
        )


@torch.no_grad()
def find_nearest(
    backbone: nn.Module, slot: ConditionSlot, image: Tensor, condition: Condition
) -> Tensor:
    """Labels (N,) of the domains nearest to each sample, those that ``condition`` knows kept.

    Runs ``backbone`` until the first norm with running moments of domains (for norms everywhere,
    its stem), where `divergence` decides. Norms before it, which have a pair per domain
    but no moments of domains, treat unseen samples as ``mean`` does.

    Raises:
        ConditionError: The image reaches no norm with moments of domains, or one that sees a single
            value per channel.
    """
    try:
        with slot.holding(replace(condition, unseen="nearest")):
            backbone(image)
    except MomentsReached as reached:
        assert condition.domain is not None
        own = _of_images(reached.x, len(image))
        running = Moments(reached.running_mean, reached.running_var)
        nearest = divergence(own, running, reached.eps).argmin(1)
        return torch.where(condition.domain < 0, nearest, condition.domain)
    raise ConditionError(
        "unseen: 'nearest' compares moments of domains, and this image reached no norm that has "
        "them; use 'mean'"
    )


def with_estimate(condition: Condition, estimate: Estimate, far: Far | None = None) -> Condition:
    """The condition with what an encoder says in the place of unseen domains.

    Args:
        condition: Its ``unseen`` is ``estimate`` or ``mixture``.
        estimate: For the images of the batch.
        far: What becomes of images near no known domain; None: the same as of the others.
    """
    assert condition.domain is not None
    known = condition.domain >= 0
    if condition.unseen == "estimate" and far is None:
        domain = torch.where(known, condition.domain, estimate.domain)
        return replace(condition, domain=domain, unseen="")
    weights = told_weights(condition.domain, estimate, soft=condition.unseen == "mixture")
    found = replace(condition, domain=None, weights=weights, unseen="")
    return found if far is None else with_far(found, ~known & ~estimate.is_known, far)


def told_weights(domain: Tensor, estimate: Estimate, *, soft: bool) -> Tensor:
    """Weights (N, D): all on the label of a sample, or what the encoder says where it is −1.

    Args:
        domain: Labels, (N,).
        estimate: For the same samples.
        soft: The encoder's weights; otherwise all on the most probable domain.
    """
    num_domains = estimate.weights.shape[1]
    found = estimate.weights
    if not soft:
        found = F.one_hot(estimate.domain, num_domains).to(found)
    given = F.one_hot(domain.clamp(min=0), num_domains).to(found)
    return torch.where((domain >= 0)[:, None], given, found)


def with_far(condition: Condition, far: Tensor, policy: Far) -> Condition:
    """The condition, which has weights, with a policy for the samples ``far``, (N,) bool."""
    assert condition.weights is not None
    # On a GPU the policy is set whether there are any or not, without a synchronization.
    looked = far.device.type == "cpu" and not torch.compiler.is_compiling()
    if looked and not bool(far.any()):
        return condition
    equal = 1 / condition.weights.shape[1]
    weights = condition.weights.masked_fill(far[:, None], equal)
    return replace(condition, weights=weights, far=far, unseen=policy)


def settled_within(
    condition: Condition, encoder: DomainEncoder, number: int, far: Far | None = None
) -> Condition:
    """The condition that gets the estimate for ``number`` images within the model's own pass."""
    encoder.check_fitted()

    def settle(maps: Tensor) -> Condition:
        # A recompute of gradient checkpointing reads the settled condition, and has to save
        # what the forward pass saved: no gradient goes through the estimate.
        with torch.no_grad():
            estimate = encoder.judge(encoder.reached(maps, number))
        return with_estimate(replace(condition, settle=None), estimate, far)

    return replace(condition, settle=settle)


def all_known(condition: Condition) -> Condition:
    """The condition without a policy, if no label is −1; in compiled code none may be."""
    assert condition.domain is not None
    # On a GPU a policy is set whether there are any or not; looking costs a synchronization, which
    # is less than an estimate that nobody needs.
    unseen = not torch.compiler.is_compiling() and bool((condition.domain < 0).any())
    return condition if unseen else replace(condition, unseen="")


def divergence(own: Moments, running: Moments, eps: float) -> Tensor:
    """Symmetric Kullback-Leibler divergence between diagonal Gaussians, of samples and domains.

    ``½ avg_c (v/V + V/v - 2 + (m - M)² (1/v + 1/V))`` with m, v of the sample, M, V of the domain
    and eps added to variances. The scale of a channel does not matter, as it does for the
    Wasserstein distance.

    Args:
        own: Moments of samples, (N, C).
        running: Moments of domains, (D, C).
        eps: What the layer adds to variances.

    Returns:
        (N, D).

    Reference:
        Pan et al., Two at Once (IBN-Net), ECCV 2018, arXiv:1807.09441 (feature divergence of two
        domains). Differs: between a sample and a domain, as in Segu et al., Batch Normalization
        Embeddings for Deep Domain Generalization, 2020, arXiv:2011.12672, who take the Wasserstein
        distance summed over layers, and a mixture of domains instead of the nearest.
    """
    v = own.var[:, None] + eps
    other = running.var.to(v.dtype) + eps
    apart = (own.mean[:, None] - running.mean.to(v.dtype)).square()
    return (v / other + other / v - 2 + apart * (1 / v + 1 / other)).mean(2) / 2


def _of_images(x: Tensor, num_images: int) -> Moments:
    """Moments (N, C) of images, each of which may be several consecutive rows of ``x``."""
    mean, var = moments(x)
    rows = mean.reshape(num_images, -1, mean.shape[1])
    if rows.shape[1] * x.shape[2:].numel() == 1:
        raise ConditionError(
            f"unseen: 'nearest' compares moments, and the first norm that has them sees one value "
            f"per channel, {tuple(x.shape)}; use 'mean'"
        )
    centre = rows.mean(1)
    spread = (rows - centre[:, None]).square()
    return Moments(centre, (var.reshape(rows.shape) + spread).mean(1))
