"""What a stream gets of which nothing is known: moments where it is unlike, and sure features."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.methods.alpha_bn import StreamMoments
from domainnorm.methods.base import Batch
from domainnorm.methods.lame import assignments_of
from domainnorm.methods.roles import Roles
from domainnorm.methods.t3a import T3A
from domainnorm.methods.without_gradients import WithoutGradients
from domainnorm.registry import register
from domainnorm.tasks import Task


@register
class Online(T3A):
    """Predict a stream of which nothing is known: moments, prototypes, and the source model.

    Layers whose moments are unlike the source's get those of the stream, others hardly: those of
    `AlphaBN` with ``share: layers, memory: stream``. Then ``p = (p_model + p_T3A) / 2``: where the
    prototypes of the stream are good the mean follows them, and where they are those of a few
    classes the model's own prediction holds against it. Of a stream in order, in which the images
    of a batch are of few classes, the assignments of `LAME` from there on. Masks get moments alone.
    No gradient, one pass, single images too.

    Args:
        model: The source model.
        task: Of one class per image, or of masks.
        roles: Source and target domains.
        supports: See `T3A`.
        prior: See `AlphaBN`.
        ordered: Whether images of one class follow each other, as frames of a scene or slices of a
            patient do.
        **options: See `OnlineMethod`.

    Reference:
        Iwasawa and Matsuo, NeurIPS 2021, alg. 1; Schneider et al., NeurIPS 2020, arXiv:2006.16971,
        eq. 1; Boudiaf et al., CVPR 2022, arXiv:2201.05718, eq. 4 to 6. The mean of both
        predictions, and moments by layer: ours.
    """

    tasks: tuple[str, ...] = ("classification", "segmentation")
    remembered: tuple[str, ...] = ("supports", "entropy", "label", "moments.sums", "moments.counts")

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        supports: int | None = 20,
        prior: float = 32.0,
        ordered: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, supports=supports, **options)
        self.ordered = ordered
        self.moments = StreamMoments(model, prior, "layers", whole=True)

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """Moments of the source, and the classifier's rows as supports."""
        if self.task.labels == "segmentation":
            WithoutGradients.start_stream(self, domains)
        else:
            super().start_stream(domains)
        self.moments.start()

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Tensor:
        """Log of the probabilities of one batch; logits of masks."""
        with self.moments.counting(batch["domain"]):
            if self.task.labels == "segmentation":
                return self.outputs(batch)
            features, logits = self.features(batch)
        both = torch.stack([logits, self.predicted(features, logits)]).log_softmax(2)
        mean = both.logsumexp(0) - math.log(2)
        return assignments_of(features, mean) if self.ordered else mean
