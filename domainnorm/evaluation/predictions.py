"""What a model said about a set of samples: the one input of every metric."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from domainnorm.errors import CheckpointError, DomainNormError

_FIELDS = ("probabilities", "target", "index")


class EvaluationError(DomainNormError):
    """Predictions, metrics or matrices that cannot be computed or combined as asked."""


@dataclass(frozen=True)
class Predictions:
    """Class probabilities of N samples with their labels, on the CPU.

    Args:
        probabilities: Class probabilities (N, K), float32, in [0, 1].
        target: Labels (N,), int64, in [0, K); −1 means no label, which every metric drops.
        index: Position of each sample in its dataset (N,), int64.

    Raises:
        EvaluationError: A wrong shape, dtype, device or value.
    """

    probabilities: Tensor
    target: Tensor
    index: Tensor

    def __post_init__(self) -> None:
        if self.probabilities.ndim != 2 or self.probabilities.shape[1] < 1:
            _refuse("probabilities", f"shape {_shape(self.probabilities)}", "(N, K) with K >= 1")
        count, classes = self.probabilities.shape
        _check(self.probabilities, "probabilities", (count, classes), torch.float32)
        _check(self.target, "target", (count,), torch.int64)
        _check(self.index, "index", (count,), torch.int64)
        if count == 0:
            return
        # A comparison with nan is false, so a diverged network is refused here as well.
        if not bool(((self.probabilities >= 0) & (self.probabilities <= 1.0001)).all()):
            _refuse("probabilities", "values that are nan or outside [0, 1]", "softmax outputs")
        low, high = int(self.target.min()), int(self.target.max())
        if low < -1 or high >= classes:
            _refuse("target", f"labels from {low} to {high}", f"-1 (no label) to {classes - 1}")

    def __len__(self) -> int:
        return len(self.target)

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return int(self.probabilities.shape[1])

    def labelled(self) -> Predictions:
        """The samples that have a label, in the same order."""
        keep = self.target >= 0
        return Predictions(self.probabilities[keep], self.target[keep], self.index[keep])

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file; a kill in between leaves the former file untouched.

        Args:
            path: Where to write; missing folders are made.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
            partial = Path(folder) / "partial"
            tensors = {name: getattr(self, name).contiguous() for name in _FIELDS}
            save_file(tensors, partial, metadata={"format": "domainnorm.predictions"})
            partial.replace(path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Predictions:
        """Read what `save` wrote.

        Raises:
            CheckpointError: The file is missing, truncated or holds something else.
        """
        try:
            tensors = load_file(path)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(
                f"{path}: cannot be read as predictions ({error}); test the model again"
            ) from error
        if set(tensors) != set(_FIELDS):
            raise CheckpointError(
                f"{path}: holds {sorted(tensors)}, expected {sorted(_FIELDS)}; "
                "this file was not written by Predictions.save"
            )
        try:
            return cls(**tensors)
        except EvaluationError as error:
            raise CheckpointError(f"{path}: {error}") from error


def _check(tensor: Tensor, name: str, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if tuple(tensor.shape) != shape:
        _refuse(name, f"shape {_shape(tensor)}", f"{shape} to match probabilities")
    if tensor.dtype != dtype:
        _refuse(name, f"dtype {tensor.dtype}", f"{dtype}")
    if tensor.device.type != "cpu":
        _refuse(name, f"a tensor on {tensor.device}", "a tensor on the CPU")


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)


def _refuse(name: str, came: str, expected: str) -> None:
    raise EvaluationError(f"Predictions.{name}: {came}, expected {expected}")
