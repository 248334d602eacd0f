"""What a stream gets of which nothing is known: moments where it is unlike, and sure features."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from domainnorm.backbones import DomainModel
from domainnorm.evaluation.certainty import Certainty
from domainnorm.methods.alpha_bn import StreamMoments
from domainnorm.methods.base import Batch
from domainnorm.methods.lame import assignments_of
from domainnorm.methods.roles import Roles
from domainnorm.methods.samples import by_row
from domainnorm.methods.t3a import T3A
from domainnorm.registry import register
from domainnorm.streams import Runs
from domainnorm.tasks import Task

_WHOLE = 16.0  # images that the source's moments count as, where the stream's are taken whole
_MEMORY = 1000  # images that certainty is of
_FIRST, _LATER = 256, 4  # images that both moments are tried on, and every how many batches after
_ENOUGH = 32  # images, before which nothing is decided
_SURER, _AS_SURE = 0.15, 0.05  # certainty by which whole moments are taken, and given up
_NOT_LESS = -0.05  # the same where they are taken until something speaks against them
# Standard deviations by which more neighbours are of one class than in any order: whole moments are
# not taken; predictions are assigned.
_IN_RUNS, _IN_ORDER = 2.5, 4.0


@register
class Online(T3A):
    """Predict an unknown stream: adapt moments, and average the model with class prototypes.

    Moments are those of `AlphaBN` with ``share: layers, memory: stream``: a layer takes more of the
    stream's moments, the more they differ from the source's. All layers take the stream's moments
    whole if this raises the `Certainty` of the model by 0.15, as with noise or a colour cast, and
    predicted classes do not come in `Runs`: moments of few classes make a model sure of all. Then
    ``p = (p_model + p_T3A) / 2``: good prototypes lead the mean, and the model's own prediction
    limits prototypes of only a few classes. As soon as classes clearly come in runs, by 4 standard
    deviations, p gets the assignments of `LAME` on top. An ``ordered`` stream gets them from the
    start, and moments by layer alone. One told to be shuffled never does, and gets moments whole
    from the start where other layers have statistics of each image (``cin``), unless they cost
    certainty. Masks only get moments. It needs no gradient, works with single images, and makes one
    pass; two on the first 256 images and on every fourth batch later.

    Args:
        model: The source model.
        task: Classification or segmentation.
        roles: Source and target domains.
        supports: Most supports of a class, at least 1; null for all, see `T3A`.
        prior: Number of images that the source's moments count as, at least 0, see `AlphaBN`.
        ordered: True if images of one class follow each other, such as frames of a scene or slices
            of a patient; false if one image tells nothing of the next; null if you do not know.
        **options: See `OnlineMethod`.

    Attributes:
        whole: Whether moments of the stream are taken whole.
        trusted: Whether they are from the start.
        moments: Those by layer, and those taken whole.
        sure: Certainty under each.
        runs: Of the classes that are predicted under the former, by row.

    Reference:
        Iwasawa and Matsuo, NeurIPS 2021, alg. 1; Schneider et al., NeurIPS 2020, arXiv:2006.16971,
        eq. 1; Boudiaf et al., CVPR 2022, arXiv:2201.05718, eq. 4 to 6. The mean of both
        predictions, moments by layer, and when to take them whole: ours.
    """

    tasks: tuple[str, ...] = ("classification", "segmentation")
    remembered: tuple[str, ...] = ("kept", "whole", "batches", "looked", "seen")

    def __init__(
        self,
        model: DomainModel,
        task: Task,
        roles: Roles,
        *,
        supports: int | None = 20,
        prior: float = 32.0,
        ordered: bool | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, task, roles, supports=supports, **options)
        self.ordered = ordered
        self.moments = (
            StreamMoments(model, prior, "layers", whole=True),
            StreamMoments(model, _WHOLE, None, whole=True),
        )
        in_part = 0 < len(self.moments[0].layers) < len(list(model.norms()))
        self.trusted = ordered is False and in_part
        self._forget()

    def _forget(self) -> None:
        self.sure = Certainty(_MEMORY), Certainty(_MEMORY)
        self.runs: dict[int, Runs] = {}
        self.whole, self.batches, self.looked = self.trusted, 0, False

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """Moments of the source, and the classifier's rows as supports."""
        super().start_stream(domains)
        for one in self.moments:
            one.start()
        self._forget()

    def row_opened(self, row: int) -> None:
        """Both moments are mixed with those that it was opened with."""
        for one in self.moments:
            one.begin(row)

    @property
    def seen(self) -> list[Any]:
        """What a killed stream goes on with, of moments and certainties."""
        sums = [[one.sums, one.counts] for one in self.moments]
        runs = {row: one.stored for row, one in self.runs.items()}
        return [sums, [one.stored for one in self.sure], runs]

    @seen.setter
    def seen(self, value: list[Any]) -> None:
        for one, (sums, counts) in zip(self.moments, value[0], strict=True):
            one.sums, one.counts = sums, counts
        for sure, found in zip(self.sure, value[1], strict=True):
            sure.stored = found
        for row, found in value[2].items():
            self.runs[row] = Runs()
            self.runs[row].stored = found

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Tensor:
        """Log of the probabilities of one batch; logits of masks."""
        found = self._predicted(batch)
        if self.task.labels == "segmentation":
            return found[1]
        both = torch.stack([found[1], self.predicted(*found, batch["domain"])]).log_softmax(2)
        mean = both.logsumexp(0) - math.log(2)
        return self._assigned(found[0], mean, batch["domain"])

    def _assigned(self, features: Tensor, told: Tensor, domain: Tensor) -> Tensor:
        """Log-probabilities (N, K), of rows whose classes come in order by their neighbours."""
        if self.ordered:
            return assignments_of(features, told)
        for row, own in by_row(domain).items() if self.ordered is None else ():
            if row in self.runs and self.runs[row].value > _IN_ORDER:
                told[own] = assignments_of(features[own], told[own])
        return told

    def _predicted(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Features and logits under the moments that are taken now."""
        looks = self.sure[0].images < _FIRST or self.batches % _LATER == 0
        looks = looks and not self.ordered
        choice = looks and bool(self.moments[0].layers)
        self.batches += 1
        found = {}
        # Those that are taken come last, so that the rows keep them.
        tried = (not self.whole, self.whole) if choice else (self.whole,)
        for whole in tried:
            with self.moments[whole].counting(batch["domain"]):
                found[whole] = self._passed(batch)
            self.sure[whole].update(found[whole][1])
        if looks:
            self._count_runs(found[False][1], batch["domain"])
        self.looked = looks
        if choice and self.sure[0].images >= _ENOUGH:
            gain = self.sure[1].value - self.sure[0].value
            in_runs = max((one.value for one in self.runs.values()), default=0.0) > _IN_RUNS
            least = _NOT_LESS if self.trusted else _AS_SURE if self.whole else _SURER
            whole = gain > least and not in_runs
            if whole != self.whole:
                self.whole = whole
                self.moments[whole].write()
                self.kept = {}  # prototypes so far are of other features
        return found[self.whole]

    def _count_runs(self, logits: Tensor, domain: Tensor) -> None:
        if self.task.labels == "segmentation":
            return  # neighbouring images of masks show the same classes in any order
        for row, own in by_row(domain).items():
            found = self.runs.setdefault(row, Runs())
            found.update(logits[own].argmax(1), follows=self.looked)

    def _passed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.task.labels == "segmentation":
            logits = self.outputs(batch)
            return logits, logits
        return self.features(batch)
