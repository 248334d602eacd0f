"""A network whose norms know the domain of each sample."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from domainnorm.backbones.conversion import Conversion, ConvertedLayer
from domainnorm.backbones.interface import TimmInterface
from domainnorm.backbones.unseen import Unseen, check_policy, find_nearest
from domainnorm.condition import Condition, ConditionSlot, RecordedMoments
from domainnorm.errors import ConditionError
from domainnorm.labels import as_condition
from domainnorm.norms import ConditionalNorm
from domainnorm.norms.running import RunningMoments


class OwnedRows(NamedTuple):
    """A parameter or buffer (D, *) of a model.

    Args:
        key: Its name in the state of the model.
        owner: The module that has it.
        name: Its name there.
    """

    key: str
    owner: nn.Module
    name: str

    @property
    def tensor(self) -> Tensor:
        """The parameter or buffer itself."""
        tensor: Tensor = getattr(self.owner, self.name)
        return tensor


class DomainModel(TimmInterface):
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

    Example:
        >>> logits = model(images, domain=torch.tensor([0, 1, 1]))
        >>> logits = model(images, domain=["site_a", "site_b", "site_b"])
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
        self.backbone = backbone
        self.domain_names = tuple(domain_names)
        self.slot = slot
        self.conversion = Conversion(conversion)
        self.unconditional = any(norm.modulation.unconditional is not None for norm in self.norms())

    @property
    def unseen(self) -> Unseen:
        """What is done about samples of unseen domains.

        Raises:
            ConditionError: Set to another value, or to one that these norms cannot carry out.
        """
        return self._unseen

    @unseen.setter
    def unseen(self, policy: Unseen) -> None:
        check_policy(policy, [norm.statistics for norm in self.norms()])
        self._unseen = policy

    @property
    def num_domains(self) -> int:
        """D."""
        return len(self.domain_names)

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
    ) -> Any:
        """Run the backbone on a batch in which every sample may be of another domain.

        Args:
            image: (N, C, H, W), or what the backbone takes.
            domain: Labels (N,), names (one per sample), or one name or label for all. May be left
                out when the model has one domain or, in evaluation, learned an unconditional row
                or has a policy for ``unseen`` domains.
            weights: Soft domain weights (N, D) instead.
            embedding: (N, E), for ``hyper`` modulation.
            map: (N, M, H, W), for ``spatial`` modulation.
            style: Moments from `record_moments`, for ``style`` modulation.
            thumbnail: Moments from `record_moments`, for ``thumbnail`` statistics.

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
        return self._under(self._condition(image, domain, weights, **given), self.backbone, image)

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

    def _condition(
        self,
        image: Tensor,
        domain: Tensor | Sequence[str] | str | int | None,
        weights: Tensor | None = None,
        *,
        features: bool = False,
        **given: Any,
    ) -> Condition:
        condition = as_condition(
            domain,
            weights,
            self.domain_names,
            image,
            unconditional=self.unconditional and not self.training,
            unseen="" if self.training or self.unseen == "error" else self.unseen,
            **given,
        )
        if condition.unseen == "nearest" and features:
            raise ConditionError(
                "unseen: features do not tell which domain is nearest; pass to forward_head what "
                "model.nearest_domains(image) gives"
            )
        if condition.unseen == "nearest":
            condition = self._resolve(image, condition)
        if self.unconditional and self.training:
            condition = replace(condition, chance=torch.rand(image.shape[0], device=image.device))
        return condition

    def _resolve(self, image: Tensor, condition: Condition) -> Condition:
        """The condition with the nearest domains for unseen ones."""
        if torch.compiler.is_compiling():
            raise ConditionError(
                "unseen: 'nearest' leaves a forward pass half-way, which cannot be compiled; set "
                "model.unseen = 'error' and pass domain=model.nearest_domains(image)"
            )
        domain = find_nearest(self.backbone, self.slot, image, condition)
        return replace(condition, domain=domain, unseen="")

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
        condition = as_condition(domain, None, self.domain_names, image, unseen="nearest")
        if not condition.unseen:  # nothing to find, as in a model of one domain
            assert condition.domain is not None
            return condition.domain
        return find_nearest(self.backbone, self.slot, image, condition)

    @torch.no_grad()
    def record_moments(
        self, image: Tensor, domain: Tensor | Sequence[str] | str | int | None = None
    ) -> RecordedMoments:
        """Moments of the input of every norm, for ``style=`` or ``thumbnail=`` of `forward`.

        Args:
            image: Style images or thumbnails, (N, C, H, W), or one for all, (1, C, H, W).
            domain: See `forward`.

        Returns:
            Module path -> mean and variance, (N, C) each.
        """
        with self.slot.recording() as recorded:
            self(image, domain)
        return recorded

    def norms(self) -> Iterator[ConditionalNorm]:
        """All conditional norms, in definition order."""
        for module in self.modules():
            if isinstance(module, ConditionalNorm):
                yield module

    def domain_rows(self) -> Iterator[OwnedRows]:
        """The tensors with a row per domain: all that domains own, in definition order."""
        for path, norm in self.named_modules():
            if not isinstance(norm, ConditionalNorm):
                continue
            for name in norm.modulation.row_names:
                yield OwnedRows(f"{path}.modulation.{name}", norm.modulation, name)
            if isinstance(norm.statistics, RunningMoments) and norm.statistics.tracks_domains:
                for name in norm.statistics.row_names:
                    yield OwnedRows(f"{path}.statistics.{name}", norm.statistics, name)
