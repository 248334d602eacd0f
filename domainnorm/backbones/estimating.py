"""What a model does about samples whose domain it is not told: policies, and an encoder."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from domainnorm.backbones.embedded import check_embedding
from domainnorm.backbones.unseen import Far, Unseen, check_far, check_policy
from domainnorm.encoders import Attributes, DomainEncoder, Estimate
from domainnorm.errors import ConditionError
from domainnorm.norms import ConditionalNorm


class EstimatingModel(nn.Module):
    """Holds the encoder and the policies; for `ConditionedModel`."""

    domain_names: tuple[str, ...]

    def __init__(self) -> None:
        super().__init__()
        self._unseen: Unseen = "error"
        self._far: Far | None = None
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

    @property
    def far(self) -> Far | None:
        """What is done about estimated samples that the encoder finds near no known domain.

        Raises:
            ConditionError: Set to another value, or to one that this model cannot carry out.
        """
        return self._far

    @far.setter
    def far(self, policy: Far | None) -> None:
        if policy is not None:
            statistics = [norm.statistics for norm in self.norms()]
            check_far(policy, statistics, has_encoder=self.encoder is not None)
        self._far = policy

    def attach_encoder(
        self,
        encoder: DomainEncoder,
        unseen: Unseen = "mixture",
        *,
        end_to_end: bool = False,
        far: Far | None = None,
    ) -> None:
        """Let an encoder estimate domains that are not given: ``model(images)`` then works.

        Args:
            encoder: For the domains of this model, in their order; becomes a part of it.
            unseen: What is done about samples without a domain from now on.
            end_to_end: Norms that take an embedding (``film``, or ``hyper`` in any other) get that
                of the image in every call, whatever its domain; the encoder is one of the
                network's layers then and learns through the loss of the task.
            far: What is done about those of them that the encoder finds near no known domain.

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
        self.far = far

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
