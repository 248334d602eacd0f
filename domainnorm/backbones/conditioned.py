"""What a call says of a batch, completed by a policy for unseen domains and by an encoder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.backbones.embedded import check_embedding, embedded, looked_at
from domainnorm.backbones.unseen import (
    ESTIMATED,
    Unseen,
    all_known,
    check_policy,
    find_nearest,
    settled_within,
    with_estimate,
)
from domainnorm.condition import Condition
from domainnorm.encoders import Attributes, DomainEncoder, Estimate
from domainnorm.errors import ConditionError
from domainnorm.labels import as_condition
from domainnorm.norms import ConditionalNorm
from domainnorm.slot import ConditionSlot


class ConditionedModel(nn.Module):
    """Turns the domain of a call into the condition that norms read; for `DomainModel`."""

    backbone: nn.Module
    domain_names: tuple[str, ...]
    slot: ConditionSlot
    unconditional: bool

    def __init__(self) -> None:
        super().__init__()
        self._unseen: Unseen = "error"
        self.encoder: DomainEncoder | None = None
        self.end_to_end = False

    def norms(self) -> Iterator[ConditionalNorm]:
        """All conditional norms, in definition order."""
        for module in self.modules():
            if isinstance(module, ConditionalNorm):
                yield module

    @property
    def num_domains(self) -> int:
        """D."""
        return len(self.domain_names)

    @property
    def unseen(self) -> Unseen:
        """What is done about samples of unseen domains.

        Raises:
            ConditionError: Set to another value, or to one that these norms cannot carry out.
        """
        return self._unseen

    @unseen.setter
    def unseen(self, policy: Unseen) -> None:
        statistics = [norm.statistics for norm in self.norms()]
        check_policy(policy, statistics, has_encoder=self.encoder is not None)
        self._unseen = policy

    def attach_encoder(
        self, encoder: DomainEncoder, unseen: Unseen = "mixture", *, end_to_end: bool = False
    ) -> None:
        """Let an encoder estimate domains that are not given: ``model(images)`` then works.

        Args:
            encoder: For the domains of this model, in their order; becomes a part of it.
            unseen: What is done about samples without a domain from now on.
            end_to_end: Norms that take an embedding (``film``, or ``hyper`` in any other) get that
                of the image in every call, whatever its domain; the encoder is one of the
                network's layers then and learns through the loss of the task.

        Raises:
            ConditionError: It is for another number of domains; or, end to end, one that reads the
                backbone, or norms that take no embedding of its size.
        """
        if encoder.num_domains != self.num_domains:
            raise ConditionError(
                f"encoder: made for {encoder.num_domains} domains, this model has "
                f"{self.num_domains}: {', '.join(self.domain_names)}"
            )
        if end_to_end:
            check_embedding(encoder, (norm.modulation for norm in self.norms()))
        self.end_to_end = end_to_end
        # Else `fit_encoder` trains it; methods and ranks must not wait for gradients of its own.
        self.encoder = encoder.requires_grad_(end_to_end)
        self.unseen = unseen

    @property
    def reads_attributes(self) -> bool:
        """Whether the attached encoder estimates the domain from attributes, not from pixels."""
        return self.encoder is not None and self.encoder.reads_attributes

    def estimate(self, image: Tensor, attributes: Attributes | None = None) -> Estimate:
        """What the attached encoder says of images (N, C, H, W).

        Args:
            image: (N, C, H, W); of an encoder that reads attributes only N counts.
            attributes: See `forward`.

        Raises:
            ConditionError: There is no encoder, it was not fitted, or attributes are missing, do
                not fit, or are not what it reads.
        """
        if self.encoder is None:
            raise ConditionError(
                "encoder: this model has none; model.attach_encoder(create_encoder('style', ...))"
            )
        estimate: Estimate = self.encoder(self.encoder.inputs(image, attributes))
        return estimate

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
            **given,
        )
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
            return with_estimate(condition, encoder.judge(seen))
        if encoder is None or not encoder.reads_backbone or not within_pass:
            return with_estimate(condition, self.estimate(image, attributes))
        return settled_within(condition, encoder, len(image))

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
            ``{"domain": labels (N,)}`` or, for mixtures, ``{"weights": (N, D)}``.
        """
        condition = self._condition(image, domain, within_pass=False, attributes=attributes)
        given = {"domain": condition.domain, "weights": condition.weights}
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
