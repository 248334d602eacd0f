"""Store of what a model says batch by batch, over processes too; reading of what was stored."""

from __future__ import annotations

import abc
import math
import os
from collections.abc import Callable
from typing import Any, ClassVar, Generic, NoReturn, TypeVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities.data import dim_zero_cat

from domainnorm.condition import Estimate
from domainnorm.errors import CheckpointError
from domainnorm.evaluation.evaluated import DIVERGED, Evaluated, EvaluationError, read_kind
from domainnorm.evaluation.findings import MultiLabelPredictions
from domainnorm.evaluation.generations import Generations
from domainnorm.evaluation.pixels import VOID, SegmentationCounts, boundary_counts, confusion_counts
from domainnorm.evaluation.restorations import Restorations, has_clean, image_measures
from domainnorm.evaluation.single_label import Predictions
from domainnorm.evaluation.translations import Translations

Kind = TypeVar("Kind", bound=Evaluated)


class EvaluatedStore(Metric, Generic[Kind]):
    """Gathers tensors with a row per sample and returns them as one `Evaluated`.

    States are lists concatenated over processes. A distributed sampler repeats samples to fill its
    last batch, and each sample counts once: of samples with the same index the first one stays.

    Args:
        kwargs: Keywords of `torchmetrics.Metric`, such as ``compute_on_cpu``.

    Attributes:
        rows: Names of the tensors, ``index`` apart.
    """

    is_differentiable = False
    full_state_update = False
    rows: ClassVar[tuple[str, ...]]
    index: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name in (*self.rows, "index"):
            self.add_state(name, default=[], dist_reduce_fx="cat")

    @abc.abstractmethod
    def _evaluated(self, index: Tensor, **rows: Tensor) -> Kind:
        """The result for distinct samples, sorted by index, on the CPU."""

    def _append(self, **rows: Tensor) -> None:
        for name, tensor in rows.items():
            getattr(self, name).append(tensor.detach())

    def _refuse(self, logits: Tensor, target: Tensor, index: Tensor, expected: str) -> NoReturn:
        raise EvaluationError(
            f"{type(self).__name__}.update: logits {tuple(logits.shape)}, target "
            f"{tuple(target.shape)}, index {tuple(index.shape)}; expected {expected}"
        )

    def compute(self) -> Kind:
        """All samples seen so far by all processes, once each, sorted by index.

        Raises:
            EvaluationError: No batch came.
        """
        if isinstance(self.index, list) and not self.index:
            raise EvaluationError(
                f"{type(self).__name__}.compute: no batch came; call update first"
            )
        index = dim_zero_cat(self.index).cpu()
        order = torch.argsort(index, stable=True)
        ordered = index[order]
        first = torch.ones_like(ordered, dtype=torch.bool)
        first[1:] = ordered[1:] != ordered[:-1]
        kept = order[first]
        rows = {name: dim_zero_cat(getattr(self, name)).cpu()[kept] for name in self.rows}
        return self._evaluated(index[kept], **rows)

    def _wrap_compute(self, compute: Callable[..., Any]) -> Callable[..., Any]:
        # torchmetrics squeezes one-element tensors in whatever compute returns and refuses frozen
        # dataclasses, so the result passes its wrapper inside an object it does not look into.
        wrapped = super()._wrap_compute(lambda: _Sealed(compute()))
        return lambda: wrapped().content


class _Sealed:
    def __init__(self, content: Evaluated) -> None:
        self.content = content


class PredictionStore(EvaluatedStore[Predictions]):
    """Gathers (logits, target, index) of the batches and returns them as `Predictions`.

    Shape:
        ``update``: logits (N, K), target (N,) with −1 for no label, index (N,).

    Raises:
        EvaluationError: On ``update`` with another shape, on ``compute`` without a batch.
    """

    rows = ("logits", "target")

    def update(self, logits: Tensor, target: Tensor, index: Tensor) -> None:
        """Append one batch: logits (N, K), target (N,), index (N,)."""
        if logits.ndim != 2 or target.shape != logits.shape[:1] or index.shape != target.shape:
            self._refuse(logits, target, index, "(N, K), (N,), (N,)")
        self._append(logits=logits.float(), target=target.long(), index=index.long())

    def _evaluated(self, index: Tensor, **rows: Tensor) -> Predictions:
        return Predictions(rows["logits"].softmax(dim=1), rows["target"], index)


class MultiLabelStore(EvaluatedStore[MultiLabelPredictions]):
    """Gathers (logits, target, index) of the batches and returns `MultiLabelPredictions`.

    Shape:
        ``update``: logits (N, K), target (N, K) in {−1, 0, 1}, index (N,).

    Raises:
        EvaluationError: On ``update`` with another shape, on ``compute`` without a batch.
    """

    rows = ("logits", "target")

    def update(self, logits: Tensor, target: Tensor, index: Tensor) -> None:
        """Append one batch: logits (N, K), target (N, K), index (N,)."""
        if logits.ndim != 2 or target.shape != logits.shape or index.shape != target.shape[:1]:
            self._refuse(logits, target, index, "(N, K), (N, K), (N,)")
        self._append(logits=logits.float(), target=target.long(), index=index.long())

    def _evaluated(self, index: Tensor, **rows: Tensor) -> MultiLabelPredictions:
        return MultiLabelPredictions(rows["logits"].sigmoid(), rows["target"], index)


class SegmentationStore(EvaluatedStore[SegmentationCounts]):
    """Counts the pixels of each image and returns the counts of all as `SegmentationCounts`.

    Args:
        num_classes: Number of classes K.
        ignore_index: Target of pixels without a class.
        boundary: Width of a class's boundary as a fraction of the image's diagonal, > 0.
        kwargs: Keywords of `torchmetrics.Metric`.

    Shape:
        ``update``: logits (N, K, H, W), target (N, H, W), index (N,).

    Raises:
        EvaluationError: On ``update`` with another shape or a target that is no class, on
            ``compute`` without a batch.
    """

    rows = ("confusion", "boundary")

    def __init__(
        self, num_classes: int, ignore_index: int = -1, boundary: float = 0.02, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.num_classes = num_classes
        self.ignore_index = ignore_index
        self.boundary_ratio = boundary

    def update(self, logits: Tensor, target: Tensor, index: Tensor) -> None:
        """Count one batch: logits (N, K, H, W), target (N, H, W), index (N,)."""
        count, *size = target.shape
        expected = (count, self.num_classes, *size)
        if target.ndim != 3 or logits.shape != expected or index.shape != (count,):
            names = f"(N, {self.num_classes}, H, W), (N, H, W), (N,)"
            self._refuse(logits, target, index, names)
        known = self._known(target.long())
        highest, guess = logits.max(dim=1)
        if bool(highest.isnan().any()):
            raise EvaluationError(
                f"SegmentationStore.update: logits that are nan, expected numbers; {DIVERGED}"
            )
        self._append(
            confusion=confusion_counts(guess, known, self.num_classes),
            boundary=boundary_counts(guess, known, self.num_classes, self.boundary_ratio),
            index=index.long(),
        )

    def _known(self, target: Tensor) -> Tensor:
        """The target with `VOID` where there is no class."""
        void = target == self.ignore_index
        counted = target[~void]
        if bool(((counted < 0) | (counted >= self.num_classes)).any()):
            raise EvaluationError(
                f"SegmentationStore.update: classes from {int(counted.min())} to "
                f"{int(counted.max())} in the target, expected 0 to {self.num_classes - 1}, or "
                f"{self.ignore_index} for none"
            )
        return target.masked_fill(void, VOID)

    def _evaluated(self, index: Tensor, **rows: Tensor) -> SegmentationCounts:
        return SegmentationCounts(index=index, **rows)


class TranslationStore(EvaluatedStore[Translations]):
    """Gathers what became of the images of one domain, and returns it as `Translations`.

    Shape:
        ``update``: a row per domain with the domain it is taken for by style and by everything, its
        similarity and its features, (N, D, 3 + F); the domain of the images (N,); index (N,).

    Raises:
        EvaluationError: On ``update`` with another shape, on ``compute`` without a batch.
    """

    rows = ("said", "target")

    def update(self, said: Tensor, target: Tensor, index: Tensor) -> None:
        """Append one batch: (N, D, 3 + F), (N,), (N,)."""
        if said.ndim != 3 or target.shape != said.shape[:1] or index.shape != target.shape:
            self._refuse(said, target, index, "(N, D, 3 + F), (N,), (N,)")
        self._append(said=said.float(), target=target.long(), index=index.long())

    def _evaluated(self, index: Tensor, **rows: Tensor) -> Translations:
        said = rows["said"]
        judged, similarity, features = said[..., :2].long(), said[..., 2], said[..., 3:]
        return Translations(rows["target"], judged, similarity, features, index)


class RestorationStore(EvaluatedStore[Restorations]):
    """Measures restored images against the clean ones, and returns all measures.

    Shape:
        ``update``: restored images beside those they were made of, (N, 2, C, H, W); the clean ones
        (N, C, H, W), all 0 to 1, −1 where there is none; index (N,).

    Raises:
        EvaluationError: On ``update`` with another shape or values that are nan, on ``compute``
            without a batch.
    """

    rows = ("values",)

    def update(self, logits: Tensor, target: Tensor, index: Tensor) -> None:
        """Measure one batch: (N, 2, C, H, W), (N, C, H, W), (N,)."""
        count, *size = target.shape
        if target.ndim != 4 or logits.shape != (count, 2, *size) or index.shape != (count,):
            self._refuse(logits, target, index, "(N, 2, C, H, W), (N, C, H, W), (N,)")
        if bool(logits.isnan().any()):
            raise EvaluationError(
                f"RestorationStore.update: images that are nan, expected numbers; {DIVERGED}"
            )
        values = torch.stack([image_measures(one, target) for one in logits.unbind(1)], 1)
        values[~has_clean(target)] = torch.nan
        self._append(values=values, index=index.long())

    def _evaluated(self, index: Tensor, **rows: Tensor) -> Restorations:
        return Restorations(rows["values"], index)


class GenerationStore(EvaluatedStore[Generations]):
    """Gathers what images generated for one domain show, and returns it as `Generations`.

    Shape:
        ``update``: a row for each generated image and one for the real image beside it, with class
        and domain that it is taken for, its distance to training images and its features, (N, 2,
        3 + F); domain, class asked for and class of the real image (N, 3); index (N,).

    Raises:
        EvaluationError: On ``update`` with another shape, on ``compute`` without a batch.
    """

    rows = ("said", "target")

    def update(self, said: Tensor, target: Tensor, index: Tensor) -> None:
        """Append one batch: (N, 2, 3 + F), (N, 3), (N,)."""
        count = len(index)
        if said.shape[:2] != (count, 2) or said.ndim != 3 or target.shape != (count, 3):
            self._refuse(said, target, index, "(N, 2, 3 + F), (N, 3), (N,)")
        self._append(said=said.float(), target=target.long(), index=index.long())

    def _evaluated(self, index: Tensor, **rows: Tensor) -> Generations:
        said, (domain, asked, target) = rows["said"], rows["target"].unbind(1)
        judged, nearest, features = said[..., :2].long(), said[..., 2], said[..., 3:]
        return Generations(domain, asked, target, judged, nearest, features, index)


_CLASSES: tuple[type[Evaluated], ...] = (
    Predictions,
    SegmentationCounts,
    MultiLabelPredictions,
    Translations,
    Restorations,
    Generations,
)
_KINDS = {one.kind: one for one in _CLASSES}


def load_evaluated(path: str | os.PathLike[str]) -> Evaluated:
    """Read what `Evaluated.save` wrote, as the class that its metadata names.

    Raises:
        CheckpointError: The file is missing, truncated or of an unknown kind.
    """
    kind = read_kind(path)
    if kind not in _KINDS:
        raise CheckpointError(
            f"{path}: predictions of the kind '{kind}', expected one of {', '.join(_KINDS)}; a "
            "newer version may have written them"
        )
    return _KINDS[kind].load(path)


class DomainsTold(Metric):
    """How often the encoder is right about the domain of an image, and how often at home with it.

    ``compute`` gives ``domain_accuracy``, the share of images whose most probable domain is
    theirs, among those of domains that the encoder has seen (nan where there are none), and
    ``domain_known``, the share of all that is near enough to a known domain.
    """

    right: Tensor
    asked: Tensor
    known: Tensor
    total: Tensor

    def __init__(self) -> None:
        super().__init__()
        for name in ("right", "asked", "known", "total"):
            self.add_state(name, torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")

    def update(self, estimate: Estimate, domain: Tensor) -> None:
        """Count one batch with labels (N,)."""
        seen = estimate.distance.gather(1, domain[:, None]).isfinite()
        self.right += (seen[:, 0] & (estimate.domain == domain)).sum()
        self.asked += seen.sum()
        self.known += estimate.is_known.sum()
        self.total += domain.numel()

    def compute(self) -> dict[str, float]:
        """Shares of the images so far."""
        return {
            "domain_accuracy": float(self.right / self.asked) if self.asked else math.nan,
            "domain_known": float(self.known / self.total),
        }
