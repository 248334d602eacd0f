"""A network whose norms know the domain of each sample."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.backbones.conversion.converted import Conversion, ConvertedLayer
from domainnorm.backbones.conversion.norm_layers import probe_inputs, unobserved
from domainnorm.backbones.domains.owned_rows import OwnedRows, owned_rows
from domainnorm.backbones.timm_interface import TimmInterface
from domainnorm.condition import (
    Condition,
    Domain,
    RecordedMoments,
    as_condition,
    check_policy,
    conditioned,
)
from domainnorm.condition import told_weights as told_weights  # noqa: PLC0414 - offered here too
from domainnorm.encoders import Attributes, DomainEncoder, Estimate
from domainnorm.errors import ConditionError
from domainnorm.norms import ConditionalNorm
from domainnorm.norms.statistics.running import RunningMoments
from domainnorm.ranges import ESTIMATED, Conditioned, Far, Unseen
from domainnorm.slot import ConditionSlot, find_nearest


class DomainModel(TimmInterface):
    """A converted network, called with images and the domain of each image.

    It has timm's methods too, with the domain of each sample as a further argument.

    Args:
        backbone: The network with conditional norms.
        domain_names: Its domains; a label is a position in this tuple.
        slot: The slot that all its norms read.
        conversion: What was converted, layer by layer; printing it gives a table.

    The attribute ``unconditional`` says whether its norms have ``dropout``: in training, samples
    lose their domain at random, and in evaluation the model may be called without a domain.

    The attribute ``unseen`` is the policy for samples of unseen domains; ``far`` is the policy for
    samples that an encoder finds far from all known domains. See `domainnorm.condition`.

    Example:
        >>> logits = model(images, domain=torch.tensor([0, 1, 1]))
        >>> logits = model(images, domain=["site_a", "site_b", "site_b"])
        >>> logits = model(images, attributes={"scanner": ["A", None, "B"]})  # encoder "metadata"
    """

    def __init__(
        self,
        backbone: nn.Module,
        domain_names: Sequence[str],
        slot: ConditionSlot,
        conversion: Sequence[ConvertedLayer],
    ) -> None:
        super().__init__()
        self._unseen: Unseen = "error"
        self._far: Far | None = None
        self.encoder: DomainEncoder | None = None
        self.end_to_end = False
        self.backbone = backbone
        self.domain_names = tuple(domain_names)
        self.slot = slot
        self.conversion = Conversion(conversion)
        self.unconditional = any(norm.modulation.unconditional is not None for norm in self.norms())

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if hasattr(destination, "_metadata"):  # `torch.save` stores it beside the tensors
            destination._metadata[prefix[:-1]]["domains"] = list(self.domain_names)

    def _load_from_state_dict(
        self, state_dict: Any, prefix: str, local_metadata: Any, *others: Any
    ) -> None:
        saved = local_metadata.get("domains")
        if saved is not None and saved != list(self.domain_names):
            # Not a line for the end, as torch collects them: by then layers would be overwritten.
            raise RuntimeError(
                f"rows of domains {', '.join(saved)} in this order, but the model has "
                f"{', '.join(self.domain_names)}; build it with domains={saved}"
            )
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *others)

    def norms(self) -> Iterator[ConditionalNorm]:
        """All conditional norms, in definition order."""
        return (module for module in self.modules() if isinstance(module, ConditionalNorm))

    @property
    def num_domains(self) -> int:
        """D."""
        return len(self.domain_names)

    def domain_rows(self) -> Iterator[OwnedRows]:
        """The tensors with a row per domain: all that domains own, in definition order."""
        return owned_rows(self)

    @property
    def bytes_per_domain(self) -> int:
        """Bytes of parameters and running moments that one more domain needs."""
        return sum(rows.bytes for rows in self.domain_rows())

    def forward(
        self,
        image: Tensor,
        domain: Domain = None,
        *,
        weights: Tensor | None = None,
        embedding: Tensor | None = None,
        map: Tensor | None = None,
        style: RecordedMoments | None = None,
        thumbnail: RecordedMoments | None = None,
        attributes: Attributes | None = None,
    ) -> Any:
        """Run the backbone on a batch in which every sample may be of another domain.

        Args:
            image: (N, C, H, W), or what the backbone takes.
            domain: Labels (N,), names (one per sample), or one name or label for all. It may be
                left out if the model has one domain; in evaluation also if the model has an
                unconditional row or a policy for ``unseen`` domains.
            weights: Soft domain weights (N, D) instead of ``domain``. If ``far`` is set, zeros mean
                an image near no known domain.
            embedding: (N, E), for ``hyper`` modulation.
            map: (N, M, H, W), for ``spatial`` modulation.
            style: Moments from `record_moments`, for ``style`` modulation.
            thumbnail: Moments from `record_moments`, for ``thumbnail`` statistics.
            attributes: Column -> a value for each image, None where it is missing; for an encoder
                that reads them, where the domain is not given.

        Returns:
            What the backbone returns; (N, K) logits for a classifier.

        Raises:
            ConditionError: See `domainnorm.condition.as_condition`.
        """
        given: dict[str, Any] = {"map": map, "style": style, "thumbnail": thumbnail}
        condition = self._condition(
            image, domain, weights, attributes=attributes, embedding=embedding, **given
        )
        return self._under(condition, self.backbone, image)

    @contextmanager
    def condition(
        self,
        image: Tensor,
        domain: Domain = None,
        *,
        weights: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> Iterator[nn.Module]:
        """The backbone under a condition, for calls that `forward` and timm's methods do not cover.

        ``domain``, ``weights`` and ``embedding`` are those of `forward`.

        Gradient checkpointing only works inside the block; `forward` and timm's methods have no
        such limit. Other threads that call the model wait for the end of the block.

        Example:
            >>> with model.condition(images, domain) as backbone:
            ...     stem = backbone.bn1(backbone.conv1(images))
        """
        condition = self._condition(image, domain, weights, embedding=embedding)
        with self.slot.holding(condition), self._looking(self.backbone, image):
            yield self.backbone

    @torch.no_grad()
    def record_moments(
        self,
        image: Tensor,
        domain: Domain = None,
        *,
        weights: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> RecordedMoments:
        """Moments of the input of every norm, for ``style=`` or ``thumbnail=`` of `forward`.

        ``image``: style images or thumbnails, (N, C, H, W), or one for all, (1, C, H, W). Returns
        module path -> mean and variance, (N, C) each.
        """
        with self.slot.recording() as recorded:
            self(image, domain, weights=weights, embedding=embedding)
        return recorded

    @property
    def unseen(self) -> Unseen:
        """Policy for samples of unseen domains; the norms must support it."""
        return self._unseen

    @unseen.setter
    def unseen(self, policy: Unseen) -> None:
        self.check_policy("unseen", policy)
        self._unseen = policy

    @property
    def far(self) -> Far | None:
        """Policy for estimated samples that the encoder finds near no known domain."""
        return self._far

    @far.setter
    def far(self, policy: Far | None) -> None:
        if policy is not None:
            self.check_policy("far", policy)
        self._far = policy

    def check_policy(self, key: str, policy: str) -> None:
        """Refuse a policy for ``unseen`` or ``far`` samples that it cannot carry out."""
        tracked = [m for norm in self.norms() if isinstance(m := norm.statistics, RunningMoments)]
        check_policy(
            key,
            policy,
            running=bool(tracked),
            by_domain=any(moments.tracks_domains for moments in tracked),
            has_encoder=self.encoder is not None,
        )

    def attach_encoder(
        self,
        encoder: DomainEncoder,
        unseen: Unseen = "mixture",
        *,
        end_to_end: bool = False,
        far: Far | None = None,
    ) -> None:
        """Attach an encoder that estimates missing domains: ``model(images)`` then works.

        Args:
            encoder: Made for the domains of this model, in their order; becomes part of it.
            unseen: Policy for samples without a domain from now on.
            end_to_end: Norms that take an embedding (``film``, or any norm with ``hyper``) get that
                of the image in every call, for any domain. The encoder is then one of the network's
                layers and learns through the loss of the task.
            far: Policy for samples that the encoder finds near no known domain.

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
            encoder.check_end_to_end(norm.modulation.embedding_size for norm in self.norms())
        self.end_to_end = end_to_end
        # Else `fit_encoder` trains it; methods and ranks must not wait for gradients of its own.
        self.encoder = encoder.requires_grad_(end_to_end)
        self.unseen = unseen
        self.far = far

    @property
    def reads_attributes(self) -> bool:
        """Whether the attached encoder estimates the domain from attributes, not from pixels."""
        return self.encoder is not None and self.encoder.reads_attributes

    def estimate(self, image: Tensor, attributes: Attributes | None = None) -> Estimate:
        """The attached encoder's estimate for images (N, C, H, W), or for their attributes.

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

    def embed(self, image: Tensor, attributes: Attributes | None = None) -> Tensor:
        """Embeddings (N, E) of images by an encoder end to end; see `estimate`."""
        if self.encoder is None or not self.end_to_end:
            raise ConditionError(
                "embedding: this model has no encoder that computes it for the norms; "
                "model.attach_encoder(encoder, end_to_end=True)"
            )
        return self.encoder.embedded(self.encoder.look(image, attributes, varied=self.training))

    def estimate_of(self, batch: Mapping[str, Any]) -> Estimate:
        """`estimate` of a batch of a data module, of whatever the encoder reads of it."""
        return self.estimate(batch["image"], batch["attributes"] if self.reads_attributes else None)

    def embedding_of(self, batch: Mapping[str, Any]) -> Tensor | None:
        """`embed` of a batch by an encoder end to end of attributes; None of all other models."""
        if not (self.end_to_end and self.reads_attributes):
            return None
        return self.embed(batch["image"], batch["attributes"])

    def conditioned(
        self, domain: Tensor, estimate: Estimate, condition: Conditioned
    ) -> dict[str, Tensor]:
        """What norms read in a test, see `domainnorm.condition.conditioned`."""
        assert self.encoder is not None
        return conditioned(domain, estimate, condition, self.encoder.gaussians.known, self.far)

    def resolve_domain(
        self, image: Tensor, domain: Domain = None, attributes: Attributes | None = None
    ) -> dict[str, Tensor]:
        """The condition that `forward` derives from ``domain``, to pass on for parts of images.

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

    def nearest_domains(self, image: Tensor, domain: Domain = None) -> Tensor:
        """Labels of the known domains that are most similar to images, for any ``unseen``.

        The moments of each image, at the first norm with running moments of domains, are compared
        with these moments, see `domainnorm.slot.find_nearest`. A batch gives the same labels (N,)
        as its images one by one; samples with a known ``domain`` keep it.

        Raises:
            ConditionError: No norm with moments of domains is reached, or the model is training.
        """
        if self.training:
            raise ConditionError("nearest_domains: the model is training; call model.eval() first")
        embedding = self.embed(image) if self.end_to_end else None
        condition = as_condition(
            domain, None, self.domain_names, image, unseen="nearest", embedding=embedding
        )
        if not condition.unseen:  # nothing to find, as in a model of one domain
            assert condition.domain is not None
            return condition.domain
        return find_nearest(self.backbone, self.slot, image, condition)

    def _condition(
        self,
        image: Tensor,
        domain: Domain,
        weights: Tensor | None = None,
        *,
        features: bool = False,
        within_pass: bool = True,
        attributes: Attributes | None = None,
        **given: Any,
    ) -> Condition:
        """What norms know of a batch, completed by the policies and by the encoder.

        ``features``: of the images, is what ``image`` is. ``within_pass``: the encoder may look
        at them in the coming pass. ``given``: further fields of the condition.
        """
        if attributes is not None and self.encoder is None:
            how = "model.attach_encoder(create_encoder('metadata', ...))"
            raise ConditionError(f"attributes: this model has no encoder that reads them; {how}")
        seen = None
        if self.end_to_end and given.get("embedding") is None:
            if features:
                raise ConditionError(
                    "embedding: the norms need the embedding of the image, which features do not "
                    "give; call the model with images, or pass embedding="
                )
            assert self.encoder is not None
            seen = self.encoder.look(image, attributes, varied=self.training)
            given["embedding"] = self.encoder.embedded(seen)
        evaluates = not self.training
        condition = as_condition(
            domain,
            weights,
            self.domain_names,
            image,
            unconditional=self.unconditional and evaluates,
            unseen=self.unseen if evaluates and self.unseen != "error" else "",
            far=self.far if evaluates else None,
            **given,
        )
        if features and condition.unseen in ("nearest", *ESTIMATED):
            raise ConditionError(
                f"unseen: '{condition.unseen}' needs images, got features; pass the result of "
                "model.nearest_domains(image) or model.estimate(image) to forward_head"
            )
        if condition.unseen:
            # Looked at here and not in `as_condition` alone: a compiler may have taken that for a
            # graph of its own, in which no label is read.
            compiled = torch.compiler.is_compiling() and not self.reads_attributes
            looks = domain is not None and attributes is None and not compiled
            condition = self._resolved(image, condition, looks, within_pass, attributes, seen)
        if self.unconditional and self.training:
            condition = replace(condition, chance=torch.rand(image.shape[0], device=image.device))
        return condition

    def _resolved(
        self,
        image: Tensor,
        condition: Condition,
        looks: bool,
        within_pass: bool,
        attributes: Attributes | None,
        seen: Tensor | None,
    ) -> Condition:
        """The condition with what the policy for unseen samples says, or will say on the way."""
        if condition.unseen == "nearest":
            if torch.compiler.is_compiling():
                raise ConditionError(
                    "unseen: 'nearest' leaves a forward pass half-way, which cannot be compiled; "
                    "set model.unseen = 'error' and pass domain=model.nearest_domains(image)"
                )
            nearest = find_nearest(self.backbone, self.slot, image, condition)
            return replace(condition, domain=nearest, unseen="")
        # Norms that take statistics of the batch have to know each label.
        if looks and (
            condition.unseen in ESTIMATED or any(norm.statistics.training for norm in self.norms())
        ):
            condition = condition.all_known()
        if condition.unseen not in ESTIMATED:
            return condition
        encoder, number = self.encoder, len(image)
        if encoder is not None and seen is not None:
            encoder.check_fitted()
            return condition.estimated(encoder.judge(seen), self.far)
        if encoder is None or not encoder.reads_backbone or not within_pass:
            return condition.estimated(self.estimate(image, attributes), self.far)
        encoder.check_fitted()
        return condition.estimated_within(
            lambda maps: encoder.judge(encoder.reached(maps, number)), self.far
        )

    def _under(self, condition: Condition, method: Any, *arguments: Any, **options: Any) -> Any:
        """Call ``method`` under a condition, which a recompute during backward sees again."""
        with self.slot.holding(condition), self._looking(method, *arguments, **options):
            output = method(*arguments, **options)
            if condition.settle is not None:
                condition = self.slot.current or condition
        self.slot.arm_backward(output, condition)
        return output

    def _looking(
        self, method: Any, image: Tensor, *others: Any, **options: Any
    ) -> AbstractContextManager[None]:
        """Layers that see several rows per image at this size are found out inside the block."""

        def look() -> set[str]:
            norms = {norm.path: norm for norm in self.norms()}
            with unobserved(self.backbone):  # they wait for the images of the batch, once
                inputs = probe_inputs(
                    self.backbone, norms, image[:1], lambda one: method(one, *others, **options)
                )
            for path, seen in inputs.items():
                norms[path].folded |= seen.folded
            return {path for path, seen in inputs.items() if seen.folded}

        return self.slot.looking(look)
