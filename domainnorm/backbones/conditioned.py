"""What a call says of a batch, completed by a policy for unseen domains and by an encoder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.backbones.embedded import embedded, looked_at
from domainnorm.backbones.estimating import EstimatingModel
from domainnorm.backbones.unseen import (
    ESTIMATED,
    all_known,
    find_nearest,
    settled_within,
    with_estimate,
    with_far,
)
from domainnorm.condition import Condition
from domainnorm.encoders import Attributes
from domainnorm.errors import ConditionError
from domainnorm.labels import as_condition
from domainnorm.slot import ConditionSlot


class ConditionedModel(EstimatingModel):
    """Turns the domain of a call into the condition that norms read; for `DomainModel`."""

    backbone: nn.Module
    slot: ConditionSlot
    unconditional: bool

    def _condition(
        self,
        image: Tensor,
        domain: Tensor | Sequence[str] | str | int | None,
        weights: Tensor | None = None,
        *,
        features: bool = False,
        within_pass: bool = True,
        attributes: Attributes | None = None,
        **given: Any,
    ) -> Condition:
        if attributes is not None and self.encoder is None:
            raise ConditionError(
                "attributes: this model has no encoder that reads them; "
                "model.attach_encoder(create_encoder('metadata', ...))"
            )
        seen = None
        if self.end_to_end and given.get("embedding") is None:
            if features:
                raise ConditionError(
                    "embedding: the norms take that of the image, which its features do not tell; "
                    "call the model with images"
                )
            assert self.encoder is not None
            seen = looked_at(self.encoder, image, attributes, varied=self.training)
            given["embedding"] = embedded(self.encoder, seen)
        condition = as_condition(
            domain,
            weights,
            self.domain_names,
            image,
            unconditional=self.unconditional and not self.training,
            unseen="" if self.training or self.unseen == "error" else self.unseen,
            zeros=self.far is not None and not self.training,
            **given,
        )
        if weights is not None and self.far is not None and not self.training:
            assert condition.weights is not None
            condition = with_far(condition, condition.weights.sum(1) == 0, self.far)
        if condition.unseen in ("nearest", *ESTIMATED) and features:
            raise ConditionError(
                f"unseen: features do not tell the domain that '{condition.unseen}' asks for; pass "
                "to forward_head what model.nearest_domains(image) or model.estimate(image) gives"
            )
        if condition.unseen == "nearest":
            condition = self._resolve(image, condition)
        # Looked at here and not in `as_condition` alone: a compiler may have taken that for a graph
        # of its own, in which no label is read.
        told = domain is not None and attributes is None
        compiled = torch.compiler.is_compiling() and not self.reads_attributes
        looked = condition.unseen in ESTIMATED or (bool(condition.unseen) and self._learns())
        if looked and told and not compiled:
            condition = all_known(condition)
        if condition.unseen in ESTIMATED:
            condition = self._estimated(image, condition, within_pass, attributes, seen)
        if self.unconditional and self.training:
            condition = replace(condition, chance=torch.rand(image.shape[0], device=image.device))
        return condition

    def _learns(self) -> bool:
        """Whether norms take statistics of the batch, for which each label has to be known."""
        return any(norm.statistics.training for norm in self.norms())

    def _estimated(
        self,
        image: Tensor,
        condition: Condition,
        within_pass: bool,
        attributes: Attributes | None,
        seen: Tensor | None,
    ) -> Condition:
        """The condition with what the encoder says for unseen domains, or will say on the way."""
        encoder = self.encoder
        if encoder is not None and seen is not None:
            encoder.check_fitted()
            return with_estimate(condition, encoder.judge(seen), self.far)
        if encoder is None or not encoder.reads_backbone or not within_pass:
            return with_estimate(condition, self.estimate(image, attributes), self.far)
        return settled_within(condition, encoder, len(image), self.far)

    def embed(self, image: Tensor, attributes: Attributes | None = None) -> Tensor:
        """Embeddings (N, E) of images (N, C, H, W), as the norms of this model take them.

        Args:
            image: (N, C, H, W); of an encoder that reads attributes only N counts.
            attributes: See `forward`.

        Raises:
            ConditionError: No encoder end to end; or see `estimate`.
        """
        if self.encoder is None or not self.end_to_end:
            raise ConditionError(
                "embedding: this model has no encoder that computes it for the norms; "
                "model.attach_encoder(encoder, end_to_end=True)"
            )
        seen = looked_at(self.encoder, image, attributes, varied=self.training)
        return embedded(self.encoder, seen)

    def _resolve(self, image: Tensor, condition: Condition) -> Condition:
        """The condition with the nearest domains for unseen ones."""
        if torch.compiler.is_compiling():
            raise ConditionError(
                "unseen: 'nearest' leaves a forward pass half-way, which cannot be compiled; set "
                "model.unseen = 'error' and pass domain=model.nearest_domains(image)"
            )
        domain = find_nearest(self.backbone, self.slot, image, condition)
        return replace(condition, domain=domain, unseen="")

    def resolve_domain(
        self,
        image: Tensor,
        domain: Tensor | Sequence[str] | str | int | None = None,
        attributes: Attributes | None = None,
    ) -> dict[str, Tensor]:
        """What `forward` makes of ``domain`` for these images, to pass on for parts of them.

        Returns:
            ``{"domain": labels (N,)}`` or, for mixtures and where ``far`` is set, ``{"weights":
            (N, D)}``; zeros for images near no known domain.
        """
        condition = self._condition(image, domain, within_pass=False, attributes=attributes)
        weights = condition.weights
        if weights is not None and condition.far is not None:
            weights = weights.masked_fill(condition.unknown, 0)
        given = {"domain": condition.domain, "weights": weights}
        return {name: value for name, value in given.items() if value is not None}

    def nearest_domains(
        self, image: Tensor, domain: Tensor | Sequence[str] | str | int | None = None
    ) -> Tensor:
        """Labels of the known domains that images look most like, whatever ``unseen`` is.

        The moments of each image at the first norm with running moments of domains are compared
        with these, by the symmetric Kullback-Leibler divergence of diagonal Gaussians.
        It costs a forward pass up to this norm, the stem when all norms have such moments. A batch
        gives the same labels as its images one by one.

        Args:
            image: (N, C, H, W).
            domain: See `forward`; samples with a known domain keep it.

        Returns:
            Labels (N,).

        Raises:
            ConditionError: No norm with moments of domains is reached, or the model is training.
        """
        if self.training:
            raise ConditionError(
                "nearest_domains: running moments still change; model.eval() first"
            )
        embedding = self.embed(image) if self.end_to_end else None
        condition = as_condition(
            domain, None, self.domain_names, image, unseen="nearest", embedding=embedding
        )
        if not condition.unseen:  # nothing to find, as in a model of one domain
            assert condition.domain is not None
            return condition.domain
        return find_nearest(self.backbone, self.slot, image, condition)
