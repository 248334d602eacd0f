"""A network whose norms know the domain of each sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from domainnorm.backbones.conditioned import ConditionedModel
from domainnorm.backbones.conversion import Conversion, ConvertedLayer
from domainnorm.backbones.interface import TimmInterface
from domainnorm.backbones.owned import OwnedRows, owned_rows
from domainnorm.condition import RecordedMoments
from domainnorm.encoders import Attributes
from domainnorm.slot import ConditionSlot


class DomainModel(ConditionedModel, TimmInterface):
    """A converted network, called with images and the domain of each.

    Args:
        backbone: The network with conditional norms.
        domain_names: Its domains; a label is a position in this tuple.
        slot: The slot that all its norms read.
        conversion: What was converted, layer by layer; printing it gives a table.

    The attribute ``unconditional`` tells whether its norms were made with ``dropout``: in training
    samples lose their domain at random, and in evaluation the model may be called without it.

    Samples of **unseen** domains, those of an unknown name, labelled −1, or in a call without
    ``domain``, are errors in training; in evaluation ``unseen`` decides, with known ones beside
    them in a batch or not:

    - ``error``: refused.
    - ``mean``: the mixture of all domains in equal parts, moments of the mixture distribution and
      the mean of scales and shifts (the learned row for unknown domains, where there is one).
    - ``nearest``: the domain whose moments are nearest, see `nearest_domains`.
    - ``batch``: scale and shift as in ``mean``; layers with running moments use those of the unseen
      samples of this very batch. No state changes.
    - ``estimate``: the domain that the attached encoder holds most probable.
    - ``mixture``: all domains that the encoder knows, by its soft weights: scales and shifts are
      weighted sums, moments those of the mixture distribution.

    Of samples whose domain is estimated, ``far`` says what becomes of those that the encoder finds
    near no known domain: ``mean`` and ``batch`` as above, or None, the same as of the others.

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
        self.backbone = backbone
        self.domain_names = tuple(domain_names)
        self.slot = slot
        self.conversion = Conversion(conversion)
        self.unconditional = any(norm.modulation.unconditional is not None for norm in self.norms())

    @property
    def bytes_per_domain(self) -> int:
        """What one more domain costs, in bytes of parameters and running moments."""
        rows = (owned.tensor for owned in self.domain_rows())
        return sum(row[0].numel() * row.element_size() for row in rows if row.is_floating_point())

    def forward(
        self,
        image: Tensor,
        domain: Tensor | Sequence[str] | str | int | None = None,
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
            domain: Labels (N,), names (one per sample), or one name or label for all. May be left
                out when the model has one domain or, in evaluation, learned an unconditional row
                or has a policy for ``unseen`` domains.
            weights: Soft domain weights (N, D) instead; where ``far`` is set, zeros for an image
                near no known domain.
            embedding: (N, E), for ``hyper`` modulation.
            map: (N, M, H, W), for ``spatial`` modulation.
            style: Moments from `record_moments`, for ``style`` modulation.
            thumbnail: Moments from `record_moments`, for ``thumbnail`` statistics.
            attributes: Column -> a value for each image, None where it is missing; for an encoder
                that reads them, where the domain is not given.

        Returns:
            What the backbone returns; (N, K) logits for a classifier.

        Raises:
            ConditionError: See `domainnorm.labels.as_condition`.
        """
        given: dict[str, Any] = {
            "embedding": embedding,
            "map": map,
            "style": style,
            "thumbnail": thumbnail,
        }
        condition = self._condition(image, domain, weights, attributes=attributes, **given)
        return self._under(condition, self.backbone, image)

    @contextmanager
    def condition(
        self, image: Tensor, domain: Tensor | Sequence[str] | str | int | None = None
    ) -> Iterator[nn.Module]:
        """The backbone under a condition, for what neither `forward` nor timm's methods here do.

        Gradient checkpointing works only inside the block; `forward` and they have no such limit.
        Other threads that call the model wait until the block is over.

        Example:
            >>> with model.condition(images, domain) as backbone:
            ...     stem = backbone.bn1(backbone.conv1(images))
        """
        with self.slot.holding(self._condition(image, domain)):
            yield self.backbone

    @torch.no_grad()
    def record_moments(
        self,
        image: Tensor,
        domain: Tensor | Sequence[str] | str | int | None = None,
        *,
        weights: Tensor | None = None,
        embedding: Tensor | None = None,
    ) -> RecordedMoments:
        """Moments of the input of every norm, for ``style=`` or ``thumbnail=`` of `forward`.

        Args:
            image: Style images or thumbnails, (N, C, H, W), or one for all, (1, C, H, W).
            domain: See `forward`.
            weights: See `forward`.
            embedding: See `forward`.

        Returns:
            Module path -> mean and variance, (N, C) each.
        """
        with self.slot.recording() as recorded:
            self(image, domain, weights=weights, embedding=embedding)
        return recorded

    def domain_rows(self) -> Iterator[OwnedRows]:
        """The tensors with a row per domain: all that domains own, in definition order."""
        return owned_rows(self)
