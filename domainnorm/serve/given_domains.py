"""Domains under which images are predicted: those told, or what the norms get in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.errors import ConditionError, counted
from domainnorm.ranges import ESTIMATED, Far, Unseen
from domainnorm.recipe import Recipe

TOLD, ONLY = "told", "only"
_CHEAP: tuple[Unseen, ...] = ("mean", "nearest", "batch")


@dataclass(frozen=True)
class GivenDomain:
    """What one image was predicted under.

    ``by`` is ``told``; ``only`` of a model of one domain; or the policy for images whose domain is
    not told, that for far ones among them, empty where it is all the same to the model.
    """

    domain: str = ""  # the most probable one of a mixture; empty where there is none
    by: str = ""
    weight: float | None = None  # of that domain by the encoder; None where it was not asked
    is_known: bool | None = None  # whether the encoder finds the image near enough, likewise


def policy_of(recipe: Recipe, model: DomainModel, asked: Unseen | None = None) -> Unseen:
    """What becomes of images whose domain is not told, if nothing else is asked.

    By the recipe's ``condition`` where that is an estimate, else its ``unseen``.

    Raises:
        ConditionError: The model cannot carry it out.
    """
    by_estimate: dict[str, Unseen] = {
        "estimate": "estimate",
        "id_or_estimate": "estimate",
        "mixture": "mixture",
    }
    policy = asked or by_estimate.get(recipe.condition, recipe.unseen)
    if policy == "error" and (is_indifferent(model) or (model.unconditional and asked is None)):
        return "mean"
    model.check_policy("unseen", policy)
    return policy


def is_indifferent(model: DomainModel) -> bool:
    """Whether an image is predicted the same whatever its domain."""
    return model.num_domains == 1 or not any(True for _ in model.domain_rows())


def check_told(model: DomainModel, policy: Unseen, domains: Sequence[str], where: str) -> None:
    """Raise a ConditionError for images whose domain is not told, where nothing stands for it."""
    untold = sum(not name for name in domains)
    if not untold or policy != "error":
        return
    possible = [one for one in _CHEAP if _is_possible(model, one)]
    if model.encoder is not None:
        possible += ESTIMATED
    raise ConditionError(
        f"{where}: the domain of {counted(untold, 'image')} is unknown, but this model has own "
        f"norms for {', '.join(model.domain_names)}; add --domain NAME, give a table with the "
        f"columns image and domain, or add --unseen, one of {', '.join(possible)} (models trained "
        "with 'encoder: style' estimate the domain)"
    )


class DomainGiver:
    """Says of each batch what its norms get.

    Args:
        model: What predicts, in evaluation mode; its policy for unseen domains becomes ``policy``.
        policy: What becomes of images whose domain is not told, see `policy_of`.
        far: What becomes of those that an encoder finds near no known domain; as the model has it
            when None.

    Raises:
        ConditionError: ``far``, and nothing is estimated, or the model cannot carry it out.
    """

    def __init__(self, model: DomainModel, policy: Unseen, far: Far | None = None) -> None:
        if far is not None and policy not in ESTIMATED:
            raise ConditionError(
                f"far: '{far}' is for images whose domain is estimated, but '{policy}' does not "
                "estimate; leave it out, or add --unseen mixture"
            )
        self.model, self.policy = model, policy
        model.unseen = policy
        model.far = far or model.far

    def __call__(
        self, image: Tensor, domain: Tensor, attributes: Mapping[str, Any]
    ) -> tuple[dict[str, Tensor], list[GivenDomain]]:
        """Keywords of `Task.predict`, and what is said of each image (N, C, H, W).

        Labels (N,) of domains are all told, or all −1.
        """
        batch = {"image": image, "attributes": attributes}
        if bool((domain >= 0).all()):
            given, said = {"domain": domain}, self._all(domain, TOLD)
        elif self.policy in ESTIMATED:
            given, said = self._estimated(batch, domain)
        elif self.model.num_domains == 1:
            domain = torch.zeros_like(domain)
            given, said = {"domain": domain}, self._all(domain, ONLY)
        elif self.policy == "nearest":
            domain = self.model.nearest_domains(image)
            given, said = {"domain": domain}, self._all(domain, self.policy)
        else:
            by = "" if is_indifferent(self.model) else self.policy
            given, said = {"domain": domain}, [GivenDomain(by=by)] * len(domain)
        embedding = self.model.embedding_of(batch)
        return given if embedding is None else {**given, "embedding": embedding}, said

    def _all(self, domain: Tensor, by: str) -> list[GivenDomain]:
        return [GivenDomain(self.model.domain_names[label], by) for label in domain.tolist()]

    def _estimated(
        self, batch: Mapping[str, Any], domain: Tensor
    ) -> tuple[dict[str, Tensor], list[GivenDomain]]:
        assert self.policy in ("estimate", "mixture")
        estimate, far = self.model.estimate_of(batch), self.model.far
        weights = estimate.weights.gather(1, estimate.domain[:, None])[:, 0]
        said = [
            GivenDomain(self.model.domain_names[label], self.policy, weight, known)
            if known or far is None
            else GivenDomain(by=far, is_known=False)
            for label, weight, known in zip(
                estimate.domain.tolist(),
                weights.tolist(),
                estimate.is_known.tolist(),
                strict=True,
            )
        ]
        return self.model.conditioned(domain, estimate, self.policy), said


def _is_possible(model: DomainModel, policy: Unseen) -> bool:
    try:
        model.check_policy("unseen", policy)
    except ConditionError:
        return False
    return True
