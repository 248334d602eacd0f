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
from domainnorm.methods.samples import chosen, scattered
from domainnorm.methods.t3a import T3A
from domainnorm.norms.kernels.partition import by_row
from domainnorm.registry import register
from domainnorm.streams import Runs
from domainnorm.tasks import Task

_WHOLE = 16.0  # images that the source's moments count as, where the stream's are taken whole
_MEMORY = 1000  # images that certainty is of
_FIRST, _LATER = 256, 4  # images that both moments are tried on, and every how many batches after
_ENOUGH = 32  # images, before which nothing is decided
_SURER, _AS_SURE = 0.15, 0.05  # certainty by which whole moments are taken, and given up
_NOT_LESS = -0.05  # the same where they are taken until something speaks against them
# Standard deviations by which more neighbours are of one class than in any order: then whole
# moments are not taken; and predictions are assigned.
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
    pass; two on the first 256 images and on every fourth batch later. Images of each row are a
    stream of their own.

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
        moments: Those by layer, and those taken whole.
        trusted: Whether the latter are taken from the start.
        followed: What is known of the stream of each row.

    Reference:
        Iwasawa and Matsuo, NeurIPS 2021, alg. 1; Schneider et al., NeurIPS 2020, arXiv:2006.16971,
        eq. 1; Boudiaf et al., CVPR 2022, arXiv:2201.05718, eq. 4 to 6. The mean of both
        predictions, moments by layer, and when to take them whole: ours.
    """

    tasks: tuple[str, ...] = ("classification", "segmentation")
    remembered: tuple[str, ...] = ("kept", "seen")

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
        self.followed: dict[int, Followed] = {}

    def start_stream(self, domains: tuple[str, ...]) -> None:
        """Moments of the source, and the classifier's rows as supports."""
        super().start_stream(domains)
        for one in self.moments:
            one.start()
        self.followed = {}

    def row_opened(self, row: int) -> None:
        """Both moments are mixed with those that it was opened with."""
        for one in self.moments:
            one.begin(row)
        self.followed.pop(row, None)

    @property
    def seen(self) -> list[Any]:
        """What a killed stream goes on with, of moments and what is known of rows."""
        sums = [[one.sums, one.counts] for one in self.moments]
        return [sums, {row: one.stored for row, one in self.followed.items()}]

    @seen.setter
    def seen(self, value: list[Any]) -> None:
        for one, (sums, counts) in zip(self.moments, value[0], strict=True):
            one.sums, one.counts = sums, counts
        for row, found in value[1].items():
            self.followed[row] = Followed(whole=self.trusted)
            self.followed[row].stored = found

    @torch.no_grad()
    def adapt(self, batch: Batch) -> Tensor:
        """Log of the probabilities of one batch; logits of masks."""
        rows = by_row(batch["domain"])
        if len(rows) == 1:
            return self._adapted(batch, *rows)
        return scattered((own, self._adapted(chosen(batch, own), row)) for row, own in rows.items())

    def _adapted(self, batch: Batch, row: int) -> Tensor:
        """The same of images of one row."""
        followed = self.followed.setdefault(row, Followed(whole=self.trusted))
        found = self._predicted(batch, row, followed)
        if self.task.labels == "segmentation":
            return found[1]
        both = torch.stack([found[1], self.predicted(*found, batch["domain"])]).log_softmax(2)
        mean = both.logsumexp(0) - math.log(2)
        in_order = self.ordered is None and followed.runs.value > _IN_ORDER
        return assignments_of(found[0], mean).to(mean) if self.ordered or in_order else mean

    def _predicted(self, batch: Batch, row: int, followed: Followed) -> tuple[Tensor, Tensor]:
        """Features and logits under the moments that are taken now."""
        sure, movable = followed.sure, bool(self.moments[0].layers)
        looks = not self.ordered and (sure[0].images < _FIRST or followed.batches % _LATER == 0)
        choice = looks and movable
        # Neighbouring images of masks show the same classes in any order.
        judges = looks and self.task.labels != "segmentation"
        followed.batches += 1
        source = None
        if judges and movable:  # moments that move make predictions come in runs, in any order
            self.moments[0].restore(row)
            source = self._passed(batch)
        found = {}
        # Those that are taken come last, so that the rows keep them.
        tried = (not followed.whole, followed.whole) if choice else (followed.whole,)
        for whole in tried:
            with self.moments[whole].counting(batch["domain"]):
                found[whole] = self._passed(batch)
            sure[whole].update(found[whole][1])
        if judges:
            followed.runs.update((source or found[followed.whole])[1].argmax(1))
        if choice and sure[0].images >= _ENOUGH:
            least = _NOT_LESS if self.trusted else _AS_SURE if followed.whole else _SURER
            surer = sure[1].value - sure[0].value
            whole = surer > least and followed.runs.value <= _IN_RUNS
            if whole != followed.whole:
                followed.whole = whole
                self.moments[whole].write(row)
                self.kept.pop(row, None)  # prototypes so far are of other features
        return found[followed.whole]

    def _passed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        if self.task.labels == "segmentation":
            logits = self.outputs(batch)
            return logits, logits
        return self.features(batch)


class Followed:
    """What `Online` knows of the stream of one row.

    Attributes:
        whole: Whether its moments are taken whole.
        sure: Certainty under moments by layer, and under those taken whole.
        runs: Of the classes that are predicted under the source's moments.
        batches: How many have come.
    """

    def __init__(self, *, whole: bool) -> None:
        self.whole = whole
        self.sure = Certainty(_MEMORY), Certainty(_MEMORY)
        self.runs = Runs()
        self.batches = 0

    @property
    def stored(self) -> tuple[Any, ...]:
        """All of it, to go on from."""
        return self.whole, [one.stored for one in self.sure], self.runs.stored, self.batches

    @stored.setter
    def stored(self, value: tuple[Any, ...]) -> None:
        self.whole, sure, self.runs.stored, self.batches = value
        for one, found in zip(self.sure, sure, strict=True):
            one.stored = found
