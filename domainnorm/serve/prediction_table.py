"""The table of predictions: a line for each image, and what they are in all."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import numpy as np
from numpy.typing import NDArray

from domainnorm.serve.file_model import Said
from domainnorm.serve.given_domains import GivenDomain


@dataclass(frozen=True)
class Predicted:
    """What `predict_run` has left.

    Args:
        folder: Where the files are.
        images: Number of images.
        unreadable: Names of those that could not be read.
        masks: Whether predictions are masks.
        classes: Class -> number of images, or of masks mean share of their pixels.
        domains: Domain -> number of images that were predicted under it.
        by: How these domains were found -> number of images, see `GivenDomain`.
        unlike: Images that are of no known domain; None where the encoder was not asked.
        unused: Columns of a table that nothing reads.
    """

    folder: Path
    images: int
    unreadable: tuple[str, ...]
    masks: bool
    classes: dict[str, float]
    domains: dict[str, int]
    by: dict[str, int]
    unlike: int | None
    unused: tuple[str, ...] = ()


class PredictionTable:
    """Writes ``predictions.csv`` as images come, and counts.

    Args:
        file: Text file, open for writing.
        class_names: Names of the K classes.
        masks: Whether predictions are masks.
    """

    columns = (
        "image",
        "prediction",
        "confidence",
        *("domain", "domain_by", "domain_weight", "is_known"),
        "problem",
    )

    def __init__(self, file: TextIO, class_names: Sequence[str], *, masks: bool) -> None:
        self.class_names, self.masks = class_names, masks
        self._writer = csv.writer(file, lineterminator="\n")
        of_class = "share" if masks else "probability"
        self._writer.writerow([*self.columns, *(f"{of_class}_{name}" for name in class_names)])
        self.problems: dict[str, str] = {}
        self._classes = dict.fromkeys(class_names, 0.0)
        self._domains: Counter[str] = Counter()
        self._by: Counter[str] = Counter()
        self._known: list[bool] = []
        self._read = 0

    def add_problem(self, name: str, problem: str) -> None:
        """A line for an image that cannot be read."""
        self.problems[name] = problem
        empty = [""] * (len(self.columns) - 2)
        self._writer.writerow([name, *empty, problem, *[""] * len(self.class_names)])

    def add(
        self,
        name: str,
        said: Said,
        given: GivenDomain,
        mask: tuple[str, NDArray[np.uint8]] | None = None,
    ) -> None:
        """A line for an image.

        Args:
            name: Of the image.
            said: What the model says.
            given: What it was predicted under.
            mask: File of the mask and its classes (h, w), where there is one.
        """
        prediction, shares = "|".join(said.classes), said.shares
        if mask is not None:
            prediction, shares = mask[0], _shares(mask[1], len(self.class_names))
        self._writer.writerow(
            [
                name,
                prediction,
                f"{said.confidence:.6f}",
                given.domain,
                given.by,
                "" if given.weight is None else f"{given.weight:.6f}",
                "" if given.is_known is None else int(given.is_known),
                "",
                *(f"{share:.6f}" for share in shares),
            ]
        )
        self._count(said, given, shares)

    def _count(self, said: Said, given: GivenDomain, shares: Sequence[float]) -> None:
        self._read += 1
        for name in said.classes:
            self._classes[name] += 1
        if self.masks:
            for name, share in zip(self.class_names, shares, strict=True):
                self._classes[name] += share
        if given.domain:
            self._domains[given.domain] += 1
        if given.by:
            self._by[given.by] += 1
        if given.is_known is not None:
            self._known.append(given.is_known)

    def summary(self, folder: Path, unused: Sequence[str]) -> Predicted:
        """What the lines are in all."""
        divisor = self._read if self.masks else 1
        return Predicted(
            folder,
            self._read + len(self.problems),
            tuple(self.problems),
            self.masks,
            {name: count / divisor for name, count in self._classes.items()},
            dict(self._domains.most_common()),
            dict(self._by),
            self._known.count(False) if self._known else None,
            tuple(unused),
        )


def _shares(mask: NDArray[np.uint8], num_classes: int) -> tuple[float, ...]:
    """Share of each class in the pixels of a mask that have one, (K,)."""
    counts = np.bincount(mask.ravel(), minlength=256)[:num_classes]
    return tuple((counts / max(1, counts.sum())).tolist())
