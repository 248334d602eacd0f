"""Predictions of a model for one domain, the one input of every metric, and what metrics share."""

from __future__ import annotations

import abc
import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, NoReturn

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from domainnorm.errors import CheckpointError, DomainNormError
from domainnorm.evaluation.intervals import percentile_intervals, units_of
from domainnorm.storage import whole_file

if TYPE_CHECKING:
    from typing_extensions import Self

DIVERGED = "the training has diverged: lower method.lr, or set trainer.gradient_clip"


class EvaluationError(DomainNormError):
    """Predictions, metrics or matrices that cannot be computed or combined as asked."""


class ClassScores(NamedTuple):
    """How well each of K classes, or findings, is told.

    Args:
        metric: What the values are, such as ``recall``.
        values: Higher is better (K,), float64; nan where a class has no value.
        images: Labelled images that have the class (K,), int64.
    """

    metric: str
    values: Tensor
    images: Tensor


@dataclasses.dataclass(frozen=True)
class WeightedMetrics(abc.ABC):
    """Labelled samples whose metrics can be computed under any weighting of them.

    Args:
        sums: What each of N samples adds to each of S sums, float64 (S, N); weights multiply it.
    """

    sums: Tensor

    @property
    def num_samples(self) -> int:
        """Number of labelled samples N."""
        return int(self.sums.shape[1])

    @abc.abstractmethod
    def metrics(self, weights: Tensor) -> dict[str, Tensor]:
        """Weighted metrics for several weightings at once.

        Args:
            weights: Weight of each labelled sample in each weighting, (N, B), float64, >= 0; every
                column has a positive sum.

        Returns:
            For each metric its value under every weighting, (B,); nan where it is undefined.
        """


class Evaluated(abc.ABC):
    """What a model said about N samples of one domain, with the truth, on the CPU.

    A subclass is a frozen dataclass of tensors with N rows. It says which samples have a label and
    how they are weighed together; point values, intervals and files follow from that.

    Attributes:
        kind: The task it comes from; stands in the metadata of its files.
        index: Position of each sample in its dataset (N,), int64.
    """

    kind: ClassVar[str]
    index: Tensor

    def __len__(self) -> int:
        return len(self.index)

    @property
    @abc.abstractmethod
    def has_label(self) -> Tensor:
        """Whether each sample has a label, (N,) bool."""

    @property
    def is_labelled(self) -> bool:
        """Whether any sample has a label, so that there is something to measure."""
        return bool(self.has_label.any())

    # Both stars, because mypy then lets a subclass name the options that it takes.
    @abc.abstractmethod
    def weighted(self, *args: Any, **options: Any) -> WeightedMetrics:
        """The metrics of the labelled samples as functions of their weights.

        Args:
            args: None.
            options: What the metrics of this kind can be told, by name; an unknown one is a
                TypeError.

        Raises:
            EvaluationError: No sample has a label, or an option out of range.
        """

    def by_class(self) -> ClassScores | None:
        """How well each class is told; None of tasks without classes.

        Raises:
            EvaluationError: No sample has a label.
        """
        return None

    def metrics(self, **options: Any) -> dict[str, float]:
        """Metrics of the labelled samples, each weighed by one, and their number ``n``.

        Args:
            options: Those of `weighted`.

        Raises:
            EvaluationError: No sample has a label, or an option out of range.
        """
        weighted = self.weighted(**options)
        unit = torch.ones(weighted.num_samples, 1, dtype=torch.float64)
        values = {name: float(value) for name, value in weighted.metrics(unit).items()}
        return {**values, "n": float(weighted.num_samples)}

    def intervals(
        self,
        *,
        confidence: float = 0.95,
        resamples: int = 1000,
        groups: Sequence[str] | None = None,
        seed: int = 0,
        **options: Any,
    ) -> dict[str, tuple[float, float]]:
        """Percentile bootstrap intervals of every metric.

        Samples of one patient, slide or sequence resemble each other; resampling them one by one
        makes intervals too narrow. With ``groups``, whole groups are drawn instead. A resample
        averages over the classes it happens to contain, as the point metrics do; the metric of one
        class is that of the resamples that contain it.

        Args:
            confidence: Mass of the interval, in (0, 1).
            resamples: Number of resamples B.
            groups: Name of the group of each of the N samples; those without a label are dropped.
            seed: Seed of the resampling.
            options: Those of `weighted`.

        Returns:
            For each metric but ``n`` the lower and upper end; nan when there is only one sample
            or one group, from which no interval can be estimated.

        Raises:
            EvaluationError: No sample has a label; a group name is missing; an argument out of
                range.

        Reference:
            Efron, Bootstrap Methods: Another Look at the Jackknife, Annals of Statistics 7, 1979;
            groups: Field and Welsh, Bootstrapping Clustered Data, JRSS B 69, 2007.
        """
        if not 0 < confidence < 1 or resamples < 1:
            raise EvaluationError(
                f"intervals: confidence={confidence}, resamples={resamples}; expected a "
                "confidence between 0 and 1 and at least one resample"
            )
        if groups is not None and len(groups) != len(self):
            raise EvaluationError(
                f"intervals: {len(groups)} group names for {len(self)} samples; "
                "give one per sample, in the order of the predictions"
            )
        weighted = self.weighted(**options)
        unit = units_of(self.has_label, groups)
        return percentile_intervals(weighted.metrics, unit, confidence, resamples, seed)

    def labelled(self) -> Self:
        """The samples that have a label, in the same order."""
        return self.chosen(self.has_label)

    def chosen(self, samples: Tensor) -> Self:
        """Some samples: a mask (N,) bool, or their positions in the order wanted."""
        return type(self)(**{name: tensor[samples] for name, tensor in self._tensors().items()})

    def require_labels(self) -> Self:
        """The samples that have a label, in the same order.

        Raises:
            EvaluationError: There is none.
        """
        labelled = self.labelled()
        if len(labelled) == 0:
            raise EvaluationError(
                f"metrics: none of {len(self)} samples has a label, expected at least one; "
                "evaluate on a labelled split"
            )
        return labelled

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file; a kill in between leaves the former file untouched.

        Args:
            path: Where to write; missing folders are made.
        """
        tensors = {name: tensor.contiguous() for name, tensor in self._tensors().items()}
        metadata = {"format": "domainnorm.predictions", "kind": self.kind}
        with whole_file(path) as partial:
            save_file(tensors, partial, metadata=metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: The file is missing, truncated or holds something else.
        """
        if read_kind(path) != cls.kind:
            raise CheckpointError(
                f"{path}: predictions of a {read_kind(path)} model, expected {cls.kind}; read them "
                "with load_evaluated"
            )
        tensors, expected = load_file(path), _fields(cls)
        if set(tensors) != set(expected):
            raise CheckpointError(
                f"{path}: holds {sorted(tensors)}, expected {sorted(expected)}; "
                f"this file was not written by {cls.__name__}.save"
            )
        try:
            return cls(**tensors)
        except EvaluationError as error:
            raise CheckpointError(f"{path}: {error}") from error

    def _tensors(self) -> dict[str, Tensor]:
        return {name: getattr(self, name) for name in _fields(type(self))}

    def _check(
        self, name: str, shape: tuple[int, ...], dtype: torch.dtype, matching: str = ""
    ) -> None:
        tensor = getattr(self, name)
        if tuple(tensor.shape) != shape:
            self._refuse(name, f"shape {tuple(tensor.shape)}", f"{shape}{matching}")
        if tensor.dtype != dtype:
            self._refuse(name, f"dtype {tensor.dtype}", f"{dtype}")
        if tensor.device.type != "cpu":
            self._refuse(name, f"a tensor on {tensor.device}", "a tensor on the CPU")

    def _check_probabilities(self, values: Tensor, most: float, expected: str) -> None:
        if bool(values.isnan().any()):
            self._refuse("probabilities", "values that are nan", f"{expected}; {DIVERGED}")
        if not bool(((values >= 0) & (values <= most)).all()):
            self._refuse("probabilities", "values outside [0, 1]", expected)

    def _refuse(self, name: str, came: str, expected: str) -> NoReturn:
        raise EvaluationError(f"{type(self).__name__}.{name}: {came}, expected {expected}")


def read_kind(path: str | os.PathLike[str]) -> str:
    """The kind of the predictions in a file.

    Raises:
        CheckpointError: The file is missing or truncated.
    """
    try:
        with safe_open(path, framework="pt") as file:
            # Files of before there were several kinds do not name theirs.
            return str((file.metadata() or {}).get("kind", "classification"))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{path}: cannot be read as predictions ({error}); test the model again"
        ) from error


def _fields(kind: type[Evaluated]) -> list[str]:
    return [part.name for part in dataclasses.fields(kind)]  # type: ignore[arg-type]


def ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Quotient of counts (K, B), nan where the denominator is zero."""
    return torch.where(denominator > 0, numerator / denominator, torch.nan)


def mean_ratio(numerator: Tensor, denominator: Tensor) -> Tensor:
    """Mean quotient over the classes (K, B) whose denominator is positive; nan where there is none.

    A class without samples has no recall. torchmetrics calls it 0 once it is predicted by mistake.
    """
    return ratio(numerator, denominator).nanmean(dim=0)


def class_labels(class_names: Sequence[str] | None, num_classes: int) -> list[str]:
    """The names of the classes, their numbers when there are none.

    Raises:
        EvaluationError: Their number is wrong, or a name comes twice.
    """
    if class_names is None:
        return [str(k) for k in range(num_classes)]
    if len(class_names) != num_classes or len(set(class_names)) != num_classes:
        raise EvaluationError(
            f"metrics: class_names={list(class_names)} for {num_classes} classes; give one "
            "distinct name per class"
        )
    return list(class_names)
